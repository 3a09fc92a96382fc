"""`yqc sweep`."""

from pathlib import Path
from typing import Annotated

import typer

from yqc.commands.arguments import Chosen, JsonOption, QuietOption, RayOption, with_settings
from yqc.commands.common import find_passes, importing, show
from yqc.settings import SETTINGS, SettingError


@with_settings(*(name for name in SETTINGS if name not in {"passes", "threads"}))
def sweep_command(
    models: Annotated[
        list[Path], typer.Argument(help="Checkpoints or graph files; or one TOML file of a sweep.")
    ],
    *,
    passes: Annotated[
        list[str] | None, typer.Option(help="A pipeline; may be given several times.")
    ] = None,
    grid: Annotated[
        list[str] | None, typer.Option(help="Several: 'int8{ranges=[relevance,mse]}'.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the files; default: sweep.")
    ] = Path("sweep"),
    jobs: Annotated[int | None, typer.Option(help="Side by side; default: cores.")] = None,
    threads_per_trial: Annotated[int, typer.Option(help="Kept in the recipes.")] = 1,
    ray: RayOption = None,
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Take no times.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Keep what is done in -o.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    chosen: Chosen,
) -> None:
    """Compile models with pipelines, each with each, and compare them."""
    if [path.suffix for path in models] == [".toml"] and (passes or grid):
        raise SettingError("--passes", "and --grid stand in the TOML file; leave them out")
    settings = chosen.settings()
    registry = find_passes(chosen.load)

    with importing():
        from yqc import report as rp  # noqa: PLC0415  # what follows imports torch
        from yqc.interface import sweep as run  # noqa: PLC0415

    found = run(
        models,
        passes or (),
        grid=grid or (),
        output=output,
        jobs=jobs,
        threads_per_trial=threads_per_trial,
        ray=ray,
        latency=not no_latency,
        resume=resume,
        registry=registry,
        settings=settings,
        progress=rp.make_progress(quiet=quiet),
    )
    if json or not quiet:
        show(found, json=json)
    if all(row.failed for row in found.rows):
        raise typer.Exit(1)
