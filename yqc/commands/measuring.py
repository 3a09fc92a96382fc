"""`yqc eval`, `yqc bench` and `yqc replay`: running files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yqc.commands.arguments import (
    DataOption,
    ImagesOption,
    JsonOption,
    LoadOption,
    ModelOptions,
    PrecisionChoice,
    QuietOption,
    RuntimeChoice,
    SingleClassOption,
    SizeOption,
    StrictOption,
    ThreadsOption,
    parse_size,
    with_options,
)
from yqc.commands.common import echo, find_passes, print_lines, print_tables

if TYPE_CHECKING:
    from yqc.evaluation.cost import NodeCost


@with_options(ModelOptions)
def eval_command(
    model: Annotated[Path, typer.Argument(help="ONNX file or checkpoint.")],
    data: Annotated[Path, typer.Option(help="Data YAML or COCO JSON.")],
    *,
    images: ImagesOption = None,
    single_class: SingleClassOption = False,
    strict: StrictOption = False,
    threads: ThreadsOption = 2,
    json: JsonOption = False,
    quiet: QuietOption = False,
    how: ModelOptions,
) -> None:
    """Measure the COCO mAP of any decoded YOLO ONNX file, or of a checkpoint."""
    from yqc import report as rp  # noqa: PLC0415
    from yqc.job.files import evaluate_file  # noqa: PLC0415

    find_passes(how.load)
    result = evaluate_file(
        model,
        data,
        images=images,
        imgsz=how.settings().imgsz,
        threads=threads,
        head=None if how.head is None else how.head.value,  # type: ignore[arg-type]  # one of them
        arch=how.arch,
        single_class=single_class,
        strict=strict,
        progress=rp.make_progress(quiet=quiet),
    )
    echo(rp.to_json(result), nl=False) if json else print_tables(rp.eval_table(result))


def bench_command(
    models: Annotated[list[Path], typer.Argument(help="ONNX files; ratios are to the first.")],
    *,
    imgsz: SizeOption = None,
    threads: ThreadsOption = 1,
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
    data: DataOption = None,
    images: ImagesOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Time ONNX files under one runtime in turn: medians, and ratios with their intervals."""
    if data is not None and not end_to_end:
        raise typer.BadParameter("only --end-to-end looks at images", param_hint="--data")
    from yqc import report as rp  # noqa: PLC0415
    from yqc.job.files import input_channels, open_pictures, time_files  # noqa: PLC0415

    size = None if imgsz is None else parse_size(imgsz)
    how: dict[str, Any] = {"imgsz": size, "threads": threads, "runs": runs}
    how |= {"runtime": runtime.value, "precision": precision and precision.value}
    channels = input_channels(models[0]) if end_to_end else 3
    pictures = open_pictures(data, images, channels=channels) if end_to_end else ()
    progress = rp.make_progress(quiet=quiet)
    result = time_files(models, **how, warm_up=warmup, pictures=pictures, progress=progress)
    costs: dict[str, tuple[NodeCost, ...]] = {}
    if nodes:
        from yqc.evaluation.profile import profile  # noqa: PLC0415

        for path in models:
            costs[str(path)] = profile(path, **how)
    if json:
        echo(rp.to_json({"bench": result, "nodes": costs} if nodes else result), nl=False)
        return
    print_tables(rp.bench_table(result))
    for name, found in costs.items():
        print_lines(["", f"{name}, milliseconds a run by kernel:", *cost_lines(found)])


def cost_lines(costs: "Sequence[NodeCost]", shown: int = 12) -> list[str]:
    """List the time of nodes: by type of arithmetic, by kernel, and the slowest one by one."""
    kinds, kernels = Counter[str](), Counter[tuple[str, str]]()
    count = Counter((cost.kind, cost.op) for cost in costs)
    for cost in costs:
        kinds[cost.kind] += cost.ms  # type: ignore[assignment]  # a Counter sums floats too
        kernels[cost.kind, cost.op] += cost.ms  # type: ignore[assignment]
    total = sum(kinds.values()) or 1
    written = [
        "  " + ", ".join(f"{k} {ms:.1f} ({ms / total:.0%})" for k, ms in kinds.most_common())
    ]
    for (kind, op), ms in kernels.most_common(shown):
        written.append(f"  {ms:8.2f}  {kind:8} {count[kind, op]:4} x {op}")
    written.append("  the dearest nodes:")
    written += [f"  {c.ms:8.2f}  {c.kind:8} {c.op} {c.name}" for c in costs[:shown]]
    return written


def replay_command(
    reproducer: Annotated[Path, typer.Argument(help="What a failing compile left behind.")],
    *,
    load: LoadOption = None,
) -> None:
    """Run the pass of a reproducer again, on the graph that it failed on."""
    from yqc.pipeline.replay import replay as run  # noqa: PLC0415

    echo(run(reproducer, find_passes(load)))
