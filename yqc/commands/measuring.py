"""`yqc eval`, `yqc bench` and `yqc replay`: running files."""

from pathlib import Path
from typing import Annotated, cast

import typer

from yqc.commands.arguments import (
    Chosen,
    JsonOption,
    LoadOption,
    PrecisionChoice,
    QuietOption,
    RuntimeChoice,
    with_settings,
)
from yqc.commands.common import echo, find_passes, show
from yqc.settings import DATA, MODEL
from yqc.targets import Runtime


@with_settings(*MODEL, *DATA, "threads")
def eval_command(
    model: Annotated[Path, typer.Argument(help="ONNX file or checkpoint.")],
    *,
    json: JsonOption = False,
    quiet: QuietOption = False,
    chosen: Chosen,
) -> None:
    """Measure the mAP of a decoded YOLO ONNX file, or of a checkpoint."""
    if "data" not in chosen.values:
        raise typer.BadParameter("give a data YAML or a COCO JSON", param_hint="--data")
    from yqc.interface import evaluate  # noqa: PLC0415
    from yqc.report import make_progress  # noqa: PLC0415

    found = evaluate(model, settings=chosen.settings(), progress=make_progress(quiet=quiet))
    show(found, json=json)


@with_settings("imgsz", "threads", "data", "images")
def bench_command(
    models: Annotated[list[Path], typer.Argument(help="ONNX files; ratios are to the first.")],
    *,
    runs: Annotated[
        int | None,
        typer.Option(min=1, help="Timed rounds; default: until the ratios are known to 2 %."),
    ] = None,
    warmup: Annotated[int, typer.Option(min=0, help="Rounds before them.")] = 3,
    nodes: Annotated[
        bool, typer.Option("--nodes", help="Also the time of each node, and which run in float.")
    ] = False,
    runtime: Annotated[
        RuntimeChoice, typer.Option(help="What runs them.")
    ] = RuntimeChoice.onnxruntime,
    precision: Annotated[
        PrecisionChoice | None,
        typer.Option(help="f32 keeps OpenVINO from bfloat16; default: its own choice."),
    ] = None,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Time letterbox, decoding and NMS, too.")
    ] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    chosen: Chosen,
) -> None:
    """Time ONNX files in turn under one runtime: medians and ratios."""
    if "data" in chosen.values and not end_to_end:
        raise typer.BadParameter("only --end-to-end looks at images", param_hint="--data")
    from yqc.interface import bench  # noqa: PLC0415
    from yqc.report import make_progress  # noqa: PLC0415

    found = bench(
        models,
        runs=runs,
        warmup=warmup,
        nodes=nodes,
        runtime=cast(Runtime, runtime.value),
        precision="f32" if precision else None,
        end_to_end=end_to_end,
        progress=make_progress(quiet=quiet),
        **chosen.values,
    )
    show(found, json=json)


def replay_command(
    reproducer: Annotated[Path, typer.Argument(help="What a failing compile left behind.")],
    *,
    load: LoadOption = None,
) -> None:
    """Run the pass of a reproducer again, on the graph it failed on."""
    from yqc.pipeline.replay import replay as run  # noqa: PLC0415

    echo(run(reproducer, find_passes(load)))
