"""`yqc eval`, `yqc bench` and `yqc replay`: running files."""

from pathlib import Path
from typing import Annotated

import typer

from yqc.arguments import Arch, Images, Json, Load, OneOf, Quiet, Size, Threads, parse_size
from yqc.commands.common import find_passes, show


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
    find_passes(load)
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
    typer.echo(rp.to_json(result), nl=False) if json else show(rp.eval_table(result))


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
    typer.echo(rp.to_json(result), nl=False) if json else show(rp.bench_table(result))


def replay(
    reproducer: Annotated[Path, typer.Argument(help="What a failing compile left behind.")],
    *,
    load: Load = None,
) -> None:
    """Run the pass of a reproducer again, on the graph that it failed on."""
    from yqc.replay import replay as run  # noqa: PLC0415

    typer.echo(run(reproducer, find_passes(load)))
