"""`yqc compile`."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yqc.commands.arguments import Chosen, JsonOption, QuietOption, with_settings
from yqc.commands.common import echo, importing, pass_names, print_tables
from yqc.commands.completing import complete_pipeline
from yqc.errors import PipelineError
from yqc.settings import SETTINGS, Budget, Settings, read_recipe
from yqc.targets import find_target

if TYPE_CHECKING:
    from yqc.pipeline.registry import Registry


@with_settings(*SETTINGS)
def compile_command(
    model: Annotated[
        Path | None, typer.Argument(help="Checkpoint, graph file or snapshot; or as in --config.")
    ] = None,
    *,
    passes: Annotated[
        list[str] | None,
        typer.Option(
            help="Such as prune,int8; see `yqc passes`.", autocompletion=complete_pipeline
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="OUT.onnx")] = None,
    config: Annotated[Path | None, typer.Option(help="Recipe file of an earlier compile.")] = None,
    print_after: Annotated[str, typer.Option(help="Passes, or all: print the graph after.")] = "",
    print_before: Annotated[str, typer.Option(help="Passes, or all: print it before.")] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on after a kill.")] = False,
    save_temps: Annotated[Path | None, typer.Option(help="Folder for every stage's graph.")] = None,
    max_drop: Annotated[
        str | None,
        typer.Option(help="1% or 0.005: write nothing, exit 3, where more accuracy is lost."),
    ] = None,
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
    chosen: Chosen,
) -> None:
    """Rewrite a checkpoint's graph with passes; emit ONNX and report."""
    settings = _settings(config, chosen, passes)
    model = model or _recorded_model(settings, config)
    Budget(max_drop=max_drop)  # malformed ones are refused at once
    _check_output(output, model, settings, chosen.load)
    registry = chosen.registry
    lists = {"--print-after": print_after, "--print-before": print_before}
    after, before = (pass_names(registry, *item) for item in lists.items())

    with importing():
        from yqc import report as rp  # noqa: PLC0415  # what follows imports torch
        from yqc.compiler import compile as run  # noqa: PLC0415
        from yqc.pipeline.watchers import PrintGraph  # noqa: PLC0415

    progress = rp.make_progress(quiet=quiet)
    if no_eval:
        progress.note("--no-eval: neither accuracy nor latency will be measured")
    with (
        resumable(model, output, settings, registry),
        advised(settings, registry),
        progress.task("compiling", 0),
    ):
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
            max_drop=max_drop,
            watchers=[PrintGraph(after, before, echo)] if after or before else [],
            progress=progress,
        )
    if json:
        echo(result.report.to_json(), nl=False)
    elif not quiet:
        tables = [rp.layers_table(result.report.layers)] if layers else []
        print_tables(result.report, *tables, result.files_table())


def _check_output(
    output: Path | None, model: Path, settings: "Settings", load: Iterable[Path]
) -> None:
    """Refuse an output that cannot be, before torch is imported and files with passes are run."""
    from yqc.job.outputs import Outputs  # noqa: PLC0415

    if output is not None:
        device = find_target(settings.target).file
        named = map(Path, filter(None, (settings.data, settings.arch, device)))
        Outputs(output).check([model, *named, *load])


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


@contextmanager
def advised(settings: "Settings", registry: "Registry") -> Iterator[None]:
    """Say in an error about passes which files of --load and packages a recipe needs."""
    try:
        yield
    except PipelineError as error:
        advice = settings.written_for.advise([sha256 for _, sha256 in registry.files])
        if not advice:
            raise
        raise PipelineError(f"{error}\nthe recipe was written for more{advice}") from error


def _recorded_model(settings: "Settings", config: Path | None) -> Path:
    """Return the model that a recipe was written for.

    Raises:
        PipelineError: there is none, or it is not there any more.
    """
    recorded = settings.written_for.model
    if recorded is None:
        raise typer.BadParameter(
            "give a model, or a recipe that records one with --config", param_hint="MODEL"
        )
    path = Path(recorded.path)
    if not path.is_file():
        raise PipelineError(
            f"{config} was written for {path} (SHA-256 {recorded.sha256[:12]}), which is not "
            "there; give the model before --config"
        )
    return path


def _settings(config: Path | None, chosen: Chosen, passes: list[str] | None) -> "Settings":
    """Return the settings of a recipe, or the defaults, with those replaced that were given."""
    if passes is None and config is None:
        raise typer.BadParameter("give --passes, or a recipe with --config", param_hint="--passes")
    if len(passes or ()) > 1:
        joined = ",".join(passes or ())
        raise typer.BadParameter(
            f"it is given {len(passes or ())} times; one compile runs one pipeline: write "
            f"--passes {joined}",
            param_hint="--passes",
        )
    base = read_recipe(config) if config else Settings()
    return chosen.settings(replace(base, passes=passes[0]) if passes else base)
