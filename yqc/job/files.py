"""Measuring single files: their accuracy (`yqc eval`) and their latency (`yqc bench`)."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from yqc import evaluation as ev
from yqc import report as rp
from yqc.data import fit_classes, list_unreadable, load_data
from yqc.emit import emit, save, yolo_metadata
from yqc.errors import CheckpointError, DataError
from yqc.job.measure import doubt_zero
from yqc.look.summary import require_file
from yqc.models.heads import HeadBranch
from yqc.models.source import open_model
from yqc.progress import Progress


def evaluate_file(
    model: Path,
    data: Path,
    *,
    images: Path | None = None,
    imgsz: tuple[int, int] | None = None,
    threads: int = 2,
    head: HeadBranch | None = None,
    arch: Path | None = None,
    single_class: bool = False,
    strict: bool = False,
    progress: Progress,
) -> rp.EvalResult:
    """Measure the mAP of an ONNX file, a checkpoint or a graph file on the val split of `data`.

    `images`, `strict`: see `load_data`; `imgsz`, `head`, `arch`: see `open_model`; `single_class`:
    see `fit_classes`.

    Raises:
        CheckpointError: the model cannot be read or is no decoded YOLO detector.
        DataError: the data set cannot be read, or has other classes than the model.
    """
    require_file(model)
    found = load_data(data, images=images, strict=strict)
    with tempfile.TemporaryDirectory() as folder:
        path, layout = model, None
        if model.suffix != ".onnx":
            source = open_model(model, imgsz=imgsz, head=head, arch=arch)
            found = fit_classes(found, source.names, single_class=single_class)
            path, size, task = Path(folder, "model.onnx"), source.imgsz, source.task
            about = yolo_metadata(source.names, source.strides, size, batch=1, task=task)
            save(emit(source.gm, metadata=about), path)
            imgsz, layout = size, source.layout
        elif head is not None or arch is not None:
            option = "--arch" if head is None else "--head"
            raise CheckpointError(f"{model} is an ONNX file, built already; leave {option} out")
        runner = ev.OnnxModel(path, threads=threads)
        if model.suffix == ".onnx":
            found = fit_classes(found, runner.names, single_class=single_class)
        measured = ev.evaluate(runner, found.val, imgsz=imgsz, layout=layout, progress=progress)
    return rp.EvalResult(
        path=str(model),
        images=measured.images,
        scores=rp.Scores.of(measured),
        seconds_total=measured.seconds_total,
        seconds_session=measured.seconds_session,
        unreadable=len(measured.skipped),
        warnings=(
            *found.warnings,
            *list_unreadable("evaluation", measured.skipped),
            *doubt_zero("model", measured.map),
        ),
    )


def time_files(
    models: Sequence[Path],
    *,
    imgsz: tuple[int, int] | None = None,
    threads: int,
    runs: int,
    runtime: ev.Runtime = "onnxruntime",
    progress: Progress,
) -> rp.Bench:
    """Time ONNX files in turn, run by run.

    Raises:
        CheckpointError: a file cannot be run.
        YqcError: the runtime is not installed.
    """
    for model in models:
        require_file(model)
    if len(set(models)) < len(models):
        raise DataError("the same file is named twice; name each once")
    timing = ev.latency(
        models, threads=threads, runs=runs, imgsz=imgsz, runtime=runtime, progress=progress
    )
    rows = [
        rp.BenchRow(path=str(path), bytes=path.stat().st_size, median_ms=ms)
        for path, ms in zip(models, timing.ms, strict=True)
    ]
    cpu = rp.Environment.here(threads=threads, seed=0).cpu
    return rp.Bench.measured(runtime=runtime, threads=threads, runs=runs, cpu=cpu, rows=rows)
