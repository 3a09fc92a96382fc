"""`yqc compile`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yqc.commands.arguments import JsonOption, PassOptions, QuietOption, TargetOption, with_options
from yqc.commands.common import echo, find_passes, importing, pass_names, print_tables

if TYPE_CHECKING:
    from yqc.compiler import Result
    from yqc.pipeline.registry import Registry
    from yqc.settings import Settings


@with_options(PassOptions)
def compile_command(
    model: Annotated[Path, typer.Argument(help="Checkpoint (.pt) or graph file (.yqc).")],
    *,
    passes: Annotated[
        str | None, typer.Option(help="Such as prune,int8; see `yqc passes`.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="OUT.onnx")] = None,
    config: Annotated[Path | None, typer.Option(help="Recipe file of an earlier compile.")] = None,
    calib_images: Annotated[int | None, typer.Option(min=1, help="Default: 128.")] = None,
    target: TargetOption = None,
    device: Annotated[str | None, typer.Option(help="cpu, or cuda for passes that train.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: 0.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of PyTorch and onnxruntime; default: the cores.")
    ] = None,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Any batch size.")] = False,
    opset: Annotated[
        int | None, typer.Option(help="ONNX opset; default: the oldest that works.")
    ] = None,
    print_after: Annotated[str, typer.Option(help="Passes, or all: print the graph after.")] = "",
    print_before: Annotated[str, typer.Option(help="Passes, or all: print it before.")] = "",
    emit: Annotated[str | None, typer.Option(help="onnx, or onnx,pt2: torch.export too.")] = None,
    nms: Annotated[bool, typer.Option("--nms", help="Suppress boxes in the graph.")] = False,
    nms_options: Annotated[
        str, typer.Option(help="iou=0.65 conf=0.25 top=300 inputs=false; implies --nms.")
    ] = "",
    fp16_io: Annotated[bool, typer.Option("--fp16-io", help="Half in and out.")] = False,
    uint8_input: Annotated[
        bool, typer.Option("--uint8-input", help="Take bytes 0..255, not floats 0..1.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after a kill.")] = False,
    save_temps: Annotated[Path | None, typer.Option(help="Folder for every stage's graph.")] = None,
    no_eval: Annotated[
        bool, typer.Option("--no-eval", help="Measure neither accuracy nor latency.")
    ] = False,
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Measure no latency.")] = False,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Compare no outputs.")] = False,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity", help="Rank layers by sensitivity: the effect of rounding each alone."
        ),
    ] = False,
    no_html: Annotated[bool, typer.Option("--no-html", help="Write no HTML page.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Show the table of layers too.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    how: PassOptions,
) -> None:
    """Compile a checkpoint: rewrite its graph with passes, emit ONNX and a report."""
    if passes is None and config is None:
        raise typer.BadParameter("give --passes, or a recipe with --config", param_hint="--passes")
    settings = _settings(
        config,
        how,
        passes=passes,
        calib_images=calib_images,
        target=target,
        device=device,
        seed=seed,
        threads=threads,
        dynamic=dynamic or None,
        opset=opset,
        emit=emit,
        embed=_embedding(nms_options, nms=nms, uint8_input=uint8_input, fp16_io=fp16_io),
    )
    _check_output(output, model, how)
    registry = find_passes(how.load)
    lists = {"--print-after": print_after, "--print-before": print_before}
    after, before = (pass_names(registry, *item) for item in lists.items())

    with importing():
        from yqc import report as rp  # noqa: PLC0415  # what follows imports torch
        from yqc.compiler import compile as run  # noqa: PLC0415
        from yqc.pipeline.watchers import PrintGraph  # noqa: PLC0415

    progress = rp.make_progress(quiet=quiet)
    if no_eval:
        progress.note("--no-eval: neither accuracy nor latency will be measured")
    with resumable(model, output, settings, registry):
        result = run(
            model,
            output=output,
            settings=settings,
            registry=registry,
            evaluate=not no_eval,
            latency=not no_latency,
            verify=not no_verify,
            save_temps=save_temps,
            sensitivity=sensitivity,
            html=not no_html,
            resume=resume,
            watchers=[PrintGraph(after, before, echo)],
            progress=progress,
        )
    if json:
        echo(result.report.to_json(), nl=False)
    elif not quiet:
        exported = "pt2" in (settings.emit or "")
        _print_result(result, layers=layers, page=not no_html, exported=exported)


def _check_output(output: Path | None, model: Path, how: PassOptions) -> None:
    """Refuse an output that cannot be, before torch is imported and files with passes are run."""
    from yqc.job.outputs import Outputs  # noqa: PLC0415

    if output is not None:
        Outputs(output).check([model, *filter(None, (how.data, how.arch)), *(how.load or ())])


@contextmanager
def resumable(
    model: Path, output: Path | None, settings: "Settings", registry: "Registry"
) -> Iterator[None]:
    """Note on an interruption that --resume goes on, where something was kept."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        from yqc.compiler import default_output  # noqa: PLC0415
        from yqc.job.outputs import Outputs  # noqa: PLC0415
        from yqc.job.work import has_work  # noqa: PLC0415
        from yqc.pipeline.pipeline import Pipeline  # noqa: PLC0415

        name = output or default_output(model, Pipeline.of(settings.passes, registry))
        if has_work(Outputs(name)):
            stop.add_note("the same command with --resume goes on from what was kept")
        raise


def _print_result(result: "Result", *, layers: bool, page: bool, exported: bool) -> None:
    """Print the report and the files that were written."""
    from yqc import report as rp  # noqa: PLC0415

    outputs = result.files
    paths = [outputs.onnx, outputs.report, outputs.recipe]
    paths += [outputs.page] * page + [outputs.exported] * exported
    files = [rp.WrittenFile(path=str(p), bytes=p.stat().st_size) for p in paths]
    tables = [rp.layers_table(result.report.layers)] if layers else []
    print_tables(result.report, *tables, rp.written_files(files))


def _embedding(nms_options: str, **asked: bool) -> str | None:
    """Return the options around the detector as a recipe holds them, None for none."""
    words = [name.replace("_", "-") for name, wanted in asked.items() if wanted and name != "nms"]
    if asked["nms"] or nms_options:
        words.insert(0, f"nms{{{nms_options}}}")
    return ",".join(words) or None


def _settings(config: Path | None, how: PassOptions, **given: Any) -> "Settings":  # noqa: ANN401
    """Return the settings of a recipe, or the defaults, with those replaced that were given."""
    from yqc.settings import Settings, read_recipe  # noqa: PLC0415

    base, read = read_recipe(config) if config else Settings(), how.settings()
    given |= {name: getattr(read, name) for name in ("imgsz", "head", "arch", "data", "images")}
    given |= {name: getattr(read, name) or None for name in ("single_class", "strict")}
    return replace(base, **{name: value for name, value in given.items() if value is not None})
