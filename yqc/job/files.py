"""Measuring single files: their accuracy (`yqc eval`) and their latency (`yqc bench`)."""

import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL.Image import fromarray

from yqc import evaluation as ev
from yqc import report as rp
from yqc.data import (
    Bands,
    Data,
    Labelling,
    Picture,
    fit_channels,
    fit_classes,
    list_unreadable,
    load_data,
    read_image,
)
from yqc.emit import emit, save, yolo_metadata
from yqc.errors import CheckpointError, DataError
from yqc.evaluation.latency import WARM_UP
from yqc.job.inputs import open_source
from yqc.job.measure import doubt_zero
from yqc.look.summary import require_file
from yqc.models.source import AnyModel, Source
from yqc.onnx_file import check_onnx, read_onnx
from yqc.progress import Progress
from yqc.settings import Settings

IMAGE_RANK = 4
"""Dimensions of [N, C, H, W]."""
PICTURES = 16
"""Most images to time end to end. With half of it a crowded image counts twice as much, and double
takes another 15 MB of memory for photographs of 640 x 480."""


def evaluate_file(model: AnyModel, settings: Settings, *, progress: Progress) -> rp.EvalResult:
    """Measure the accuracy of an ONNX file or of any model on the val split of the settings' data.

    Raises:
        CheckpointError: the model cannot be read or is no decoded YOLO detector.
        DataError: the data set cannot be read, or has other classes than the model.
    """
    if isinstance(model, str | Path):
        require_file(Path(model))
    if settings.data is None:
        raise DataError("there is nothing to evaluate on: give data")
    built = isinstance(model, str | Path) and Path(model).suffix == ".onnx"
    source = None if built else open_source(model, settings)
    form = source.form if source else None
    with tempfile.TemporaryDirectory() as folder:
        if source is None:
            path = _built_file(Path(model), settings)  # type: ignore[arg-type]  # it is a path
            runner = ev.OnnxModel(path, threads=settings.threads or ev.count_cores())
            found = _load_labelled(settings, _labelling_of(runner))
        else:
            found = _load_labelled(settings, Labelling.of(form))
            path = _write_float(source, Path(folder))
            runner = ev.OnnxModel(path, threads=settings.threads or ev.count_cores())
        found = fit_channels(found, runner.channels)
        names = runner.names if source is None else source.names
        size = settings.imgsz if source is None else source.imgsz
        found = fit_classes(found, names, single_class=settings.single_class)
        measured = ev.evaluate(runner, found.val, imgsz=size, form=form, progress=progress)
    return rp.EvalResult(
        path=str(path) if source is None else source.path,
        images=measured.images,
        task=measured.detections.head.task,
        main=measured.main,
        scores=rp.Scores.of(measured),
        interval=ev.figure_interval(measured.resampled, seed=settings.seed),
        seconds_total=measured.seconds_total,
        seconds_session=measured.seconds_session,
        unreadable=len(measured.skipped),
        warnings=(
            *found.warnings,
            *list_unreadable("evaluation", measured.skipped),
            *doubt_zero("model", measured),
        ),
    )


def _write_float(source: Source, folder: Path) -> Path:
    """Write a model as it is to an ONNX file in a folder; return its path."""
    path = folder / "model.onnx"
    about = yolo_metadata(
        source.names,
        source.strides,
        source.imgsz,
        task=source.task,
        channels=source.channels,
        kpt_shape=source.facts.kpt_shape,
    )
    save(emit(source.gm, metadata=about), path)
    return path


def _load_labelled(settings: Settings, labelling: Labelling) -> Data:
    """Read the data of the settings for a task."""
    images = None if settings.images is None else Path(settings.images)
    where = Path(settings.data or "")
    return load_data(where, images=images, strict=settings.strict, labelling=labelling)


def _labelling_of(file: ev.FileModel) -> Labelling:
    """Return what a file's task needs of labels, as its metadata say."""
    hints = file.hints
    return Labelling(hints.task or "detect", hints.kpt_shape[0] if hints.kpt_shape else None)


def _built_file(path: Path, settings: Settings) -> Path:
    """Return the path of an ONNX file that can be read, and that no setting contradicts."""
    if settings.head is not None or settings.arch is not None:
        option = "--arch" if settings.head is None else "--head"
        raise CheckpointError(f"{path} is an ONNX file, built already; leave {option} out")
    check_onnx(path)
    return path


def time_files(
    models: Sequence[Path],
    *,
    imgsz: tuple[int, int] | None = None,
    threads: int,
    runs: int | None = None,
    warm_up: int = WARM_UP,
    runtime: ev.Runtime = "onnxruntime",
    precision: ev.Precision | None = None,
    pictures: Sequence[Picture] = (),
    progress: Progress,
) -> rp.Bench:
    """Time ONNX files in turn, round by round; arguments as in `latency`.

    Raises:
        CheckpointError: a file cannot be run.
        YqcError: the runtime is not installed.
    """
    for model in models:
        require_file(model)
        check_onnx(model)
    if len(set(models)) < len(models):
        raise DataError("the same file is named twice; name each once")
    timing = ev.latency(
        models,
        threads=threads,
        runs=runs,
        warm_up=warm_up,
        imgsz=imgsz,
        runtime=runtime,
        precision=precision,
        pictures=pictures,
        progress=progress,
    )
    columns = (timing.ms, timing.p10, timing.p90, timing.intervals, timing.cpu_ms, timing.load_ms)
    names = ("median_ms", "p10_ms", "p90_ms", "interval", "cpu_ms", "load_ms")
    rows = [
        rp.BenchRow(
            path=str(path), bytes=path.stat().st_size, **dict(zip(names, each, strict=True))
        )
        for path, each in zip(models, zip(*columns, strict=True), strict=True)
    ]
    return rp.Bench.measured(
        runtime=runtime,
        version=timing.version,
        precision=precision,
        end_to_end=bool(pictures),
        threads=threads,
        runs=timing.rounds,
        cpu=rp.Environment.here(threads=threads, seed=0).cpu,
        rows=rows,
    )


def input_channels(model: Path) -> int:
    """Return the channels of the images that an ONNX file takes; 3 where it fixes none.

    Raises:
        CheckpointError: the file cannot be read.
    """
    require_file(model)
    dims = [i.type.tensor_type.shape.dim for i in read_onnx(model, weights=False).graph.input]
    return next((d[1].dim_value for d in dims if len(d) == IMAGE_RANK and d[1].dim_value), 3)


def open_pictures(
    data: Path | None, images: Path | None = None, *, channels: int = 3
) -> list[Picture]:
    """Read the first images of the val split of `data`, or draw one of seeded noise without data.

    They have 3 channels for models of 1 or 3, else those of the files.

    Raises:
        DataError: the data set cannot be read, or has no readable image to evaluate on.
    """
    if data is None:
        size = (480, 640, 3 if channels == 1 else channels)
        noise = np.random.default_rng(0).integers(256, size=size, dtype=np.uint8)
        return [fromarray(noise) if channels in (1, 3) else Bands(noise)]
    labelling = Labelling("classify") if data.is_dir() else None  # folders of classes have images
    split = load_data(data, images=images, labelling=labelling).val
    wanted = 3 if channels == 1 else channels
    found = list(islice(_readable(split.images, wanted), PICTURES))
    if not found:
        raise DataError(split.absent or f"no image of the {split.name} split can be read")
    return found


def _readable(paths: Sequence[Path], channels: int) -> Iterator[Picture]:
    """Read images, those left out that cannot be read."""
    for path in paths:
        try:
            image, _ = read_image(path, channels)
        except Exception:  # noqa: BLE001, S112  # Pillow's decoders raise anything on a broken file
            continue
        yield image
