"""Run a detector over a split: images are read in a thread while the model runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

from yqc.data import Placed, Placement, Split, Unreadable, read_images, to_float
from yqc.errors import CheckpointError, DataError
from yqc.evaluate.decode import Boxes, Layout, classes_of, detections, layout_of
from yqc.evaluate.nms import Floats
from yqc.evaluate.runner import OnnxModel, Runner
from yqc.progress import Progress, Silent

DEFAULT_SIDE = 640
"""Input height and width in pixels where neither the caller nor the file says."""


@dataclass(frozen=True)
class Detections:
    """What a detector found in the images of a split."""

    boxes: dict[int, Boxes] = field(repr=False)
    """Position of the image in the split -> boxes in pixels of the image file; unreadable images are not in it."""
    layout: Layout
    nc: int | None
    """How many classes the model scores, where its output or its metadata tells."""
    skipped: tuple[Unreadable, ...]
    seconds_total: float
    """Wall time from the first image asked for to the last boxes."""
    seconds_session: float
    """Wall time within the model's runs, added up."""


def detect(
    model: Path | Runner,
    split: Split,
    *,
    imgsz: tuple[int, int] | None = None,
    layout: Layout | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Detections:
    """Find objects in every image of a split: confidence above 0.001, NMS at IoU 0.65, at most 300 an image.

    Args:
        model: an ONNX file, or a `Runner`.
        split: the images.
        imgsz: height and width of the input; by default what the file fixes or records, else 640 x 640.
        layout: how the output is laid out; by default told from its shape.
        threads: for an ONNX file, threads within an operator.
        progress: shown an image at a time.

    Raises:
        CheckpointError: the model cannot be run on such images, or is no decoded YOLO detector.
        DataError: there is no readable image.
    """
    runner = OnnxModel(model, threads=threads) if isinstance(model, Path) else model
    job = _Job(runner, layout, input_size(runner, imgsz))
    with (progress or Silent()).task("evaluating", total=len(split.images)) as advance:
        start = perf_counter()
        for image in read_images(split.images, job.imgsz):
            job.take(image)
            advance(1)
        total = perf_counter() - start
    if job.layout is None:
        bad = f"; the first: {job.skipped[0]}" if job.skipped else ""
        raise DataError(split.absent or f"no image of the {split.name} split can be read{bad}.")
    return Detections(job.boxes, job.layout, job.nc, tuple(job.skipped), total, job.seconds)


def input_size(model: Runner, imgsz: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width to run a model at: as asked for, else as its file says, else 640 x 640.

    Raises:
        CheckpointError: the file is fixed to another size than the one asked for.
    """
    if not isinstance(model, OnnxModel):
        return imgsz or (DEFAULT_SIDE, DEFAULT_SIDE)
    if imgsz and model.imgsz and imgsz != model.imgsz:
        fixed, asked = ("x".join(map(str, size)) for size in (model.imgsz, imgsz))
        raise CheckpointError(f"{model.path} takes images of {fixed} only, not of {asked}.")
    return imgsz or model.imgsz or model.recorded_imgsz or (DEFAULT_SIDE, DEFAULT_SIDE)


@dataclass
class _Job:
    runner: Runner
    layout: Layout | None
    imgsz: tuple[int, int]
    nc: int | None = None
    boxes: dict[int, Boxes] = field(default_factory=dict)
    skipped: list[Unreadable] = field(default_factory=list)
    seconds: float = 0.0

    def take(self, image: Placed | Unreadable) -> None:
        if isinstance(image, Unreadable):
            self.skipped.append(image)
            return
        images = to_float(image.pixels)
        start = perf_counter()
        output = self.runner.run(images)
        self.seconds += perf_counter() - start
        one = output[0].astype(np.float32, copy=False)
        found = detections(one, self.layout or self._first(one))
        self.boxes[image.index] = unplace(found, image.placement, image.size)

    def _first(self, output: Floats) -> Layout:
        """Find out from the first output what the file did not say."""
        ...


def unplace(boxes: Boxes, placement: Placement, size: tuple[int, int]) -> Boxes:
    """Boxes in input pixels to pixels of the image file of `size` (width, height), clipped to it."""
    shift = np.array([placement.dx, placement.dy] * 2, np.float32)
    limit = np.array(size * 2, np.float32)
    return Boxes(
        np.clip((boxes.xyxy - shift) / np.float32(placement.scale), 0, limit),
        boxes.scores,
        boxes.classes,
    )
