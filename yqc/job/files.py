"""Looking at single files: `yqc eval`, `yqc inspect` and `yqc bench`."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from yqc import evaluation as ev
from yqc import report as rp
from yqc.data import check_classes, load_data
from yqc.emit import emit, save, yolo_metadata
from yqc.errors import CheckpointError, DataError, ForbiddenGlobalError, UnknownBlockError
from yqc.graph.compare import macs
from yqc.graph.serial import is_graph_file
from yqc.models.load import LoadedModel, load
from yqc.models.source import DEFAULT_SIZE, Head, Source, file_sha256, open_model
from yqc.models.survey import Survey, survey
from yqc.progress import Progress

OUTPUTS = {
    "yolov5": "[N, A, 5+nc]: cx cy w h, objectness, scores",
    "yolov8": "[N, 4+nc, A]: cx cy w h, scores",
    "end2end": "[N, min(300, A), 6]: x1 y1 x2 y2, score, class",
}


def assess(
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
    require(model)
    found = load_data(data, images=images)
    with tempfile.TemporaryDirectory() as folder:
        path, layout = model, None
        if model.suffix != ".onnx":
            source = open_model(model, imgsz=imgsz, head=head, arch=arch)
            check_classes(found, len(source.names))
            path = _as_onnx(source, Path(folder))
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


def _as_onnx(source: Source, folder: Path) -> Path:
    path = folder / "model.onnx"
    about = yolo_metadata(source.names, source.strides, source.imgsz, batch=1, task=source.task)
    save(emit(source.gm, metadata=about), path)
    return path


def summarize(model: Path, *, arch: Path | None = None) -> rp.ModelSummary:
    """Describe a checkpoint or a graph file; of one with unknown blocks, what it says itself.

    Raises:
        CheckpointError: the file cannot be read, or holds no detector.
    """
    require(model)
    if is_graph_file(model):
        source = open_model(model)
        return _summary(model, source, params=source.params, macs=macs(source.gm))
    try:
        loaded = load(model, arch=arch)
    except (UnknownBlockError, ForbiddenGlobalError):
        found = survey(model)
        if not found.unknown:
            raise
        return _unbuilt(model, found)
    params = sum(p.numel() for p in loaded.module.parameters())
    return _summary(model, loaded, params=params, macs=_macs(loaded), blocks=loaded.blocks)


def _summary(
    path: Path,
    known: Source | LoadedModel,
    *,
    params: int,
    macs: int,
    blocks: Mapping[str, int] | None = None,
) -> rp.ModelSummary:
    return rp.ModelSummary(
        path=str(path),
        sha256=known.sha256,
        bytes=path.stat().st_size,
        family=known.family,
        name=known.name,
        task=known.task,
        names=known.names,
        strides=known.strides,
        imgsz=known.imgsz,
        params=params,
        macs=macs,
        output=OUTPUTS.get(known.layout or ""),
        blocks=blocks or {},
        warnings=known.warnings,
    )


def _unbuilt(model: Path, found: Survey) -> rp.ModelSummary:
    """Describe a checkpoint with blocks that yqc does not know."""
    return rp.ModelSummary(
        path=str(model),
        sha256=file_sha256(model),
        bytes=model.stat().st_size,
        family=found.family,
        name=found.name,
        task="detect",
        names=found.names,
        strides=found.strides,
        imgsz=found.imgsz,
        blocks=found.blocks,
        unknown=found.unknown,
        advice=found.advice,
    )


def _macs(loaded: LoadedModel) -> int:
    """Count multiply-accumulates for one image, on tensors without contents."""
    high, wide = loaded.imgsz or DEFAULT_SIZE
    counter = FlopCounterMode(display=False)
    step = max(loaded.strides, default=1)
    example = torch.zeros(1, 3, -(-high // step) * step, -(-wide // step) * step, device="meta")
    with counter, torch.no_grad(), torch.device("meta"):
        loaded.module.to("meta")(example)
    return int(counter.get_total_flops()) // 2


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
        require(model)
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


def require(path: Path) -> None:
    """Raise a CheckpointError if there is no such file."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
