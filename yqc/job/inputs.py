"""What a compile has before its first pass: the data, and the context that passes work in."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, fx

from yqc import __version__
from yqc import evaluation as ev
from yqc.data import Data, Split, calibration_images, fit_classes, load_data
from yqc.errors import DataError, PipelineError
from yqc.graph.compare import macs
from yqc.job.cache import FolderCache
from yqc.job.sensitivity import worst
from yqc.models.source import Source
from yqc.pipeline.base import JUDGES, Context, Given, Pass
from yqc.progress import Progress
from yqc.settings import Settings
from yqc.training.teacher import fold

JUDGED = 2e11
"""Multiply-accumulates that one such judgement may take, about; large graphs get fewer images."""
FEWEST = 8
TOGETHER = 4
"""It takes so many of them at a time."""

KINDS = ("onnx", "pt2")
"""What can be emitted."""


def foreseen_given(settings: Settings) -> Given:
    """Return what recipes will know, before the model and the data are read."""
    has_data = settings.data is not None
    return Given(settings.target, has_data=has_data, can_train=has_data)


def check_device(device: str, passes: Sequence[Pass]) -> None:
    """Check that there is a device, and a pass that can use it.

    Raises:
        PipelineError: there is none.
    """
    if device == "cpu":
        return
    if not any(each.trains for each in passes):
        raise PipelineError(
            f"no pass here can run on {device!r}: none of them trains; leave --device out"
        )
    kind, _, number = device.partition(":")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind != "cuda" or (number and not number.isdecimal()):
        raise PipelineError(f"--device {device} is no device; write cpu, cuda, or cuda:1")
    if int(number or 0) >= count:
        raise PipelineError(
            f"there is no device {device!r} here ({count} found by torch); leave --device out"
        )


def check_images(settings: Settings, passes: Sequence[Pass]) -> None:
    """Check that passes that learn from images are given some.

    Raises:
        PipelineError: one is not.
    """
    learner = next((each for each in passes if each.needs_images), None)
    if learner is not None and settings.data is None:
        raise PipelineError(
            f"{learner.name} learns from images, and none are given: add --data with a data YAML, "
            "a COCO JSON, or a folder of images"
        )


def emitted_kinds(text: str | None) -> tuple[str, ...]:
    """Read what is to be emitted, such as `onnx,pt2`; None stands for `onnx`.

    Raises:
        PipelineError: a word is no kind of file, or `onnx` is missing.
    """
    kinds = tuple(word.strip() for word in (text or "onnx").split(","))
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise PipelineError(f"--emit knows onnx and pt2, not {unknown[0]!r}")
    if "onnx" not in kinds:
        raise PipelineError("--emit must name onnx, which all measurements are made on")
    return kinds


def open_cache(
    folder: Path,
    settings: Settings,
    passes: Sequence[Pass],
    source: Source,
    data: Data | None,
    *,
    resume: bool,
) -> FolderCache:
    """Open the cache of one compile; everything that decides its result is in its key.

    Raises:
        OutputError: it belongs to another compile, or cannot be read.
    """
    images = [] if data is None else [*data.train.images]
    key = {
        "input": source.sha256 or source.path,
        "passes": ",".join(map(str, passes)),
        "settings": {k: v for k, v in asdict(settings).items() if k not in {"passes", "emit"}},
        "images": hashlib.sha256("\n".join(map(_stamp, images)).encode()).hexdigest(),
        "versions": {"yqc": __version__, "torch": torch.__version__},
        "threads": torch.get_num_threads(),
    }
    return FolderCache(folder, key, resume=resume)


def _stamp(path: Path) -> str:
    """Tell a file from a later one of the same name."""
    try:
        status = path.stat()
    except OSError:
        return str(path)
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def find_data(settings: Settings, source: Source) -> Data | None:
    """Load the data that the settings name, if any.

    Raises:
        DataError: it cannot be read, or does not fit the model.
    """
    if settings.data is None:
        return None
    if not source.is_detector:
        raise DataError("data was given, but the model is no YOLO detector and cannot be evaluated")
    images = Path(settings.images) if settings.images else None
    data = load_data(Path(settings.data), images=images, strict=settings.strict)
    return fit_classes(data, source.names, single_class=settings.single_class)


def make_context(
    settings: Settings, source: Source, data: Data | None, progress: Progress
) -> Context:
    """Make what passes are given beside the graph."""
    ctx = Context(
        device=settings.device,
        seed=settings.seed,
        target=settings.target,
        progress=progress,
        original=source.gm,
        layout=source.layout,
    )
    ctx.costliest = lambda gm, count: worst(gm, ctx, count)
    shape = (1, source.facts.channels, *source.imgsz)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(settings.seed))
    ctx.example = noise
    if data is None:
        return ctx
    ctx.warnings.extend(data.warnings)
    if not data.train.images:
        ctx.warn(f"there are no calibration images ({data.train.absent or 'none given'})")
        return ctx

    stream = partial(CalibrationStream, data.train, source, settings, ctx)
    ctx.calibration, ctx.train = stream, data.train.images
    if source.layout is not None:
        ctx.agreement = Agreeing(source, judges(data.train, settings, source.gm), progress)
    try:
        ctx.example = next(iter(stream())).contiguous()
    except DataError as error:  # an error only if a pass really calibrates
        ctx.warn(f"outputs are compared on noise, not on an image: {error}")
    return ctx


class CalibrationStream:
    """The calibration images, read anew each time; warns in the end of what is wrong with them.

    Raises:
        DataError: there are fewer than calibration needs.
    """

    def __init__(self, split: Split, source: Source, settings: Settings, ctx: Context) -> None:
        self._images = calibration_images(
            split,
            source.imgsz,
            settings.calib_images,
            settings.seed,
            channels=source.facts.channels,
        )
        self._warn = ctx.warn

    def __len__(self) -> int:
        """How many there are if all can be read."""
        return len(self._images)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield each as float32 [1, 3, H, W] in 0..1, channels last in memory."""
        for image in self._images:
            yield torch.from_numpy(image)
        for sentence in self._images.complaints():
            self._warn(sentence)


def judges(split: Split, settings: Settings, gm: fx.GraphModule) -> Split:
    """Choose at most `JUDGES` of the calibration images, so many that judging a graph is quick."""
    quick = max(FEWEST, min(JUDGES, int(JUDGED / max(1, macs(gm)))))
    paths = list(split.images)
    random.Random(settings.seed).shuffle(paths)  # noqa: S311  # a choice of images, no secret
    return replace(split, images=tuple(paths[: min(quick, settings.calib_images)]), read=None)


class Agreeing:
    """Judges a graph by the detections of the float one on calibration images.

    Args:
        source: the float detector.
        split: the images.
        progress: shown an image at a time.
    """

    def __init__(self, source: Source, split: Split, progress: Progress) -> None:
        self._source, self._split, self._progress = source, split, progress
        self._reference: ev.Detections | None = None

    def __call__(self, gm: fx.GraphModule) -> float | None:
        """Return the AP at IoU 0.5 of a graph, the float graph's detections taken as the truth.

        None where the float graph finds nothing.
        """
        if self._reference is None:
            self._reference = self._detect(self._source.gm)
        return ev.agreement50(self._reference, self._detect(gm))

    def _detect(self, gm: fx.GraphModule) -> ev.Detections:
        device = next((p.device for p in gm.parameters()), torch.device("cpu"))
        return ev.detect(
            ev.TorchModel(fold(gm).to(memory_format=torch.channels_last), device),  # type: ignore[call-overload]
            self._split,
            imgsz=self._source.imgsz,
            layout=self._source.layout,
            batch=TOGETHER,
            channels=self._source.facts.channels,
            progress=self._progress,
        )
