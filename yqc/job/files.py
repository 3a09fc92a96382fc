"""Measuring single files: their accuracy (`yqc eval`) and their latency (`yqc bench`)."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from yqc import evaluation as ev
from yqc import report as rp
from yqc.data import check_classes, load_data
from yqc.emit import emit, save, yolo_metadata
from yqc.errors import CheckpointError, DataError
from yqc.look.summary import require_file
from yqc.models.source import Head, Source, open_model
from yqc.progress import Progress


def evaluate_file(
    model: Path,
    data: Path,
    *,
    images: Path | None = None,
    imgsz: tuple[int, int] | None = None,
    threads: int = 2,
    head: Head | None = None,
    arch: Path | None = None,
    progress: Progress,
) -> rp.EvalResult:
    """Measure the mAP of an ONNX file, a checkpoint or a graph file on the val split of `data`.

    Raises:
        CheckpointError: the model cannot be read or is no decoded YOLO detector.
        DataError: the data set cannot be read, or has other classes than the model.
    """
    require_file(model)
    found = load_data(data, images=images)
    with tempfile.TemporaryDirectory() as folder:
        path, layout = model, None
        if model.suffix != ".onnx":
            source = open_model(model, imgsz=imgsz, head=head, arch=arch)
            check_classes(found, len(source.names))
            path = _save_as_onnx(source, Path(folder))
            imgsz, layout = source.imgsz, source.layout
        elif head is not None or arch is not None:
            option = "--arch" if head is None else "--head"
            raise CheckpointError(f"{model} is an ONNX file, built already; leave {option} out")
        measured = ev.evaluate(
            path, found.val, imgsz=imgsz, layout=layout, threads=threads, progress=progress
        )
    return rp.EvalResult(
        path=str(model),
        images=measured.images,
        scores=rp.Scores.of(measured),
        seconds_total=measured.seconds_total,
        seconds_session=measured.seconds_session,
        unreadable=len(measured.skipped),
    )


def _save_as_onnx(source: Source, folder: Path) -> Path:
    path = folder / "model.onnx"
    about = yolo_metadata(source.names, source.strides, source.imgsz, batch=1, task=source.task)
    save(emit(source.gm, metadata=about), path)
    return path


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
