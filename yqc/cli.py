"""The command line. Results go to stdout, progress and diagnostics to stderr."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yqc import __version__
from yqc.arguments import (
    Arch,
    Data,
    Images,
    Json,
    Load,
    OneOf,
    Quiet,
    Size,
    Target,
    Threads,
    parse_size,
)
from yqc.errors import PipelineError, YqcError
from yqc.options import near

if TYPE_CHECKING:  # torch takes seconds to import, and --help must not
    from rich.console import RenderableType

    from yqc.recipe import Settings
    from yqc.registry import Registry

app = typer.Typer(
    name="yqc",
    help="Compile YOLO detectors: checkpoint in; ONNX, a recipe and a measured report out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


INTERRUPTED = 130


@app.callback()
def common(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Compile YOLO detectors: checkpoint in; ONNX, a recipe and a measured report out."""
    del debug  # main() looks for it before anything is parsed, so that it may stand anywhere


@app.command("compile")
def compile_(
    model: Annotated[Path, typer.Argument(help="Checkpoint (.pt) or graph file (.yqc).")],
    *,
    passes: Annotated[
        str | None, typer.Option(help="Such as prune,int8; see `yqc passes`.")
    ] = None,
    data: Data = None,
    images: Images = None,
    imgsz: Size = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="OUT.onnx")] = None,
    config: Annotated[Path | None, typer.Option(help="Recipe file of an earlier compile.")] = None,
    load: Load = None,
    head: OneOf = None,
    arch: Arch = None,
    calib_images: Annotated[int | None, typer.Option(min=1, help="Default: 128.")] = None,
    target: Annotated[Target | None, typer.Option(help="Runtime to compile for.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu: no pass trains yet.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: 0.")] = None,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Any batch size.")] = False,
    opset: Annotated[
        int | None, typer.Option(help="ONNX opset; default: the oldest that works.")
    ] = None,
    print_after: Annotated[str, typer.Option(help="Passes, or all: print the graph after.")] = "",
    print_before: Annotated[str, typer.Option(help="Passes, or all: print it before.")] = "",
    save_temps: Annotated[Path | None, typer.Option(help="Folder for every stage's graph.")] = None,
    no_eval: Annotated[bool, typer.Option("--no-eval", help="Measure no accuracy.")] = False,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Compare no outputs.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Show the table of layers too.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compile a checkpoint: rewrite its graph with passes, emit ONNX and a report."""
    if passes is None and config is None:
        raise typer.BadParameter("give --passes, or a recipe with --config", param_hint="--passes")
    settings = _settings(
        config,
        passes=passes,
        imgsz=None if imgsz is None else parse_size(imgsz),
        head=None if head is None else head.value,
        arch=_text(arch),
        data=_text(data),
        images=_text(images),
        calib_images=calib_images,
        target=None if target is None else target.value,
        device=device,
        seed=seed,
        dynamic=dynamic or None,
        opset=opset,
    )
    registry = _registry(load)
    after, before = (
        _names(registry, flag, text)
        for flag, text in (("--print-after", print_after), ("--print-before", print_before))
    )

    from yqc import report as rp  # noqa: PLC0415  # what follows imports torch
    from yqc.compiler import compile as run  # noqa: PLC0415
    from yqc.watch import PrintGraph  # noqa: PLC0415

    printer = PrintGraph(after, before, typer.echo)
    result = run(
        model,
        output=output,
        settings=settings,
        registry=registry,
        evaluate=not no_eval,
        verify=not no_verify,
        save_temps=save_temps,
        watchers=[printer],
        progress=rp.make_progress(quiet=quiet),
    )
    if json:
        typer.echo(result.report.to_json(), nl=False)
    elif not quiet:
        written = (result.files.onnx, result.files.report, result.files.recipe)
        files = [rp.WrittenFile(path=str(p), bytes=p.stat().st_size) for p in written]
        _print(
            result.report,
            *([rp.layers_table(result.report.layers)] if layers else []),
            rp.written_files(files),
        )


@app.command("eval")
def eval_(
    model: Annotated[Path, typer.Argument(help="ONNX file or checkpoint.")],
    data: Annotated[Path, typer.Option(help="Data YAML or COCO JSON.")],
    *,
    images: Images = None,
    imgsz: Size = None,
    threads: Threads = 2,
    load: Load = None,
    head: OneOf = None,
    arch: Arch = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure the COCO mAP of any decoded YOLO ONNX file, or of a checkpoint."""
    from yqc import report as rp  # noqa: PLC0415
    from yqc.assess import assess  # noqa: PLC0415

    size = None if imgsz is None else parse_size(imgsz)
    _registry(load)
    result = assess(
        model,
        data,
        images=images,
        imgsz=size,
        threads=threads,
        head=None if head is None else head.value,
        arch=arch,
        progress=rp.make_progress(quiet=quiet),
    )
    typer.echo(rp.to_json(result), nl=False) if json else _print(rp.eval_table(result))


@app.command()
def passes(
    name: Annotated[str | None, typer.Argument(help="One pass, in full.")] = None,
    *,
    load: Load = None,
    json: Json = False,
) -> None:
    """List the passes there are, or explain one: its options, types and defaults."""
    from yqc import listing  # noqa: PLC0415
    from yqc import report as rp  # noqa: PLC0415

    registry = _registry(load)
    if name is None:
        rows = listing.listings(registry)
        typer.echo(rp.to_json(rows), nl=False) if json else _print(rp.passes_table(rows))
    else:
        about = listing.explain(registry, name)
        typer.echo(rp.to_json(about), nl=False) if json else _print(rp.pass_help(about))


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help="Checkpoint or graph file.")],
    *,
    arch: Arch = None,
    load: Load = None,
    json: Json = False,
) -> None:
    """Summarise a model: family, task, strides, classes, parameters, blocks."""
    from yqc import report as rp  # noqa: PLC0415
    from yqc.assess import summarize  # noqa: PLC0415

    _registry(load)
    summary = summarize(model, arch=arch)
    typer.echo(rp.to_json(summary), nl=False) if json else _print(rp.inspect_table(summary))


@app.command()
def bench(
    models: Annotated[list[Path], typer.Argument(help="ONNX files; ratios are to the first.")],
    *,
    imgsz: Size = None,
    threads: Threads = 1,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each.")] = 30,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time ONNX files under onnxruntime: paired runs, medians."""
    from yqc import report as rp  # noqa: PLC0415
    from yqc.assess import time_files  # noqa: PLC0415

    size = None if imgsz is None else parse_size(imgsz)
    result = time_files(
        models, imgsz=size, threads=threads, runs=runs, progress=rp.make_progress(quiet=quiet)
    )
    typer.echo(rp.to_json(result), nl=False) if json else _print(rp.bench_table(result))


@app.command()
def replay(
    reproducer: Annotated[Path, typer.Argument(help="What a failing compile left behind.")],
    *,
    load: Load = None,
) -> None:
    """Run the pass of a reproducer again, on the graph that it failed on."""
    from yqc.replay import replay as run  # noqa: PLC0415

    typer.echo(run(reproducer, _registry(load)))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _settings(config: Path | None, **given: Any) -> "Settings":  # noqa: ANN401
    from yqc.recipe import Settings, read_recipe  # noqa: PLC0415

    base = read_recipe(config) if config else Settings()
    return replace(base, **{k: v for k, v in given.items() if v is not None})


def _registry(load: list[Path] | None) -> "Registry":
    from yqc.registry import Registry  # noqa: PLC0415

    registry = Registry.default()
    for path in load or ():
        registry.load_file(path)
    return registry


def _names(registry: "Registry", flag: str, text: str) -> list[str]:
    """Read a list of passes, or `all`."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name != "all" and name not in registry.found:
            hint = near(name, registry.found) or "; `yqc passes` lists what there is"
            raise PipelineError(f"{flag}: unknown pass {name!r}{hint}")
    return names


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _print(*things: "RenderableType") -> None:
    from yqc.report import make_console  # noqa: PLC0415

    console = make_console()
    for number, thing in enumerate(things):
        if number:
            console.print()
        console.print(thing)


def main() -> None:
    """Run the command line: exit status 0, 1 for a failure told in one message, 2 for usage."""
    debugging = "--debug" in sys.argv
    sys.argv[1:] = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        app(prog_name="yqc")
    except YqcError as error:
        if debugging:
            raise
        typer.echo(f"yqc: {error}", err=True)
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:  # typer turned the KeyboardInterrupt into it
            typer.echo("yqc: interrupted; nothing was written", err=True)
        raise
