"""`yqc tune`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from yqc.commands.arguments import Chosen, JsonOption, QuietOption, RayOption, with_settings
from yqc.commands.common import echo, importing, show
from yqc.commands.process import OVER_BUDGET
from yqc.settings import SETTINGS, Budget

PreferChoice = StrEnum("PreferChoice", ["size", "speed"])


@with_settings(*(name for name in SETTINGS if name not in {"passes", "threads", "emit"}))
def tune_command(
    model: Annotated[Path, typer.Argument(help="Checkpoint (.pt) or graph file (.yqc).")],
    *,
    max_drop: Annotated[
        str | None, typer.Option(help="1% of the float figure, or 0.005; default 1%.")
    ] = None,
    max_size: Annotated[str | None, typer.Option(help="Bytes of the file, such as 1MB.")] = None,
    max_ms: Annotated[str | None, typer.Option(help="Milliseconds an image, such as 20.")] = None,
    time: Annotated[
        str | None, typer.Option(help="Of the whole search, such as 30m, the default.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Pipelines to try at most.")] = None,
    prefer: Annotated[
        PreferChoice | None, typer.Option(help="The best file: smallest, or fastest.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the files; default: tuned.")
    ] = Path("tuned"),
    jobs: Annotated[int | None, typer.Option(help="Trials side by side; default: cores.")] = None,
    threads_per_trial: Annotated[int, typer.Option(help="Kept in the recipes.")] = 1,
    ray: RayOption = None,
    measure: Annotated[
        str | None,
        typer.Option(help="Command that prints milliseconds: 'ssh pi bench {onnx}'."),
    ] = None,
    space: Annotated[Path | None, typer.Option(help="TOML file of what may be tried.")] = None,
    print_space: Annotated[
        bool, typer.Option("--print-space", help="Print what may be tried, and stop.")
    ] = False,
    no_latency: Annotated[bool, typer.Option("--no-latency", help="Times do not count.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in -o.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    chosen: Chosen,
) -> None:
    """Search the best files within a budget of loss, bytes and time."""
    budget = Budget(max_drop=max_drop, max_size=max_size, max_ms=max_ms)
    settings = chosen.settings()
    registry = chosen.registry

    with importing():
        from yqc import report as rp  # noqa: PLC0415  # what follows imports torch
        from yqc.interface import search_space  # noqa: PLC0415
        from yqc.interface import tune as run  # noqa: PLC0415

    if print_space:
        echo(str(search_space(model, time, settings=settings, registry=registry)), nl=False)
        return
    front = run(
        model,
        budget=budget,
        output=output,
        time=time,
        trials=trials,
        prefer=None if prefer is None else prefer.value,  # type: ignore[arg-type]
        jobs=jobs,
        threads_per_trial=threads_per_trial,
        ray=ray,
        latency=not no_latency,
        measure=measure,
        space=space,
        resume=resume,
        registry=registry,
        settings=settings,
        progress=rp.make_progress(quiet=quiet),
    )
    if json or not quiet:
        show(front, json=json)
    if front.best is None:
        raise typer.Exit(OVER_BUDGET)
