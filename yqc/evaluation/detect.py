"""Run a detector over a split; reading, running and suppression go on at the same time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np

from yqc.data import Placed, Split, Unreadable, advise, prefetch, read_images, to_float
from yqc.errors import CheckpointError, DataError
from yqc.evaluation.boxes import Boxes, Floats
from yqc.evaluation.find import Place, find_objects
from yqc.evaluation.forms import Hints, find_form, sort_outputs
from yqc.evaluation.runner import FileModel, OnnxModel, Runner, input_size
from yqc.facts import OutputForm
from yqc.progress import Advance, Progress, Silent


@dataclass(frozen=True)
class Detections:
    """What a detector found in the images of a split."""

    boxes: dict[int, Boxes] = field(repr=False)
    """Position in the split of each image that was read -> boxes in pixels of the image file."""
    head: OutputForm
    skipped: tuple[Unreadable, ...]
    seconds_total: float
    """Wall time from reading the first image to the last boxes."""
    seconds_session: float
    """Wall time within the model's runs, added up."""


Answer = tuple[Placed, OutputForm, list[Floats]]
"""An image, what the outputs are, and the outputs for it without their batch dimension."""
KeepDetections = Callable[[Callable[[], Detections]], None]
"""Takes a function that returns what was found so far, and may keep it."""


def detect(
    model: Path | Runner,
    split: Split,
    *,
    imgsz: tuple[int, int] | None = None,
    form: OutputForm | None = None,
    nc: int | None = None,
    threads: int | None = None,
    batch: int = 1,
    channels: int = 3,
    progress: Progress | None = None,
    label: str = "evaluating",
    known: Detections | None = None,
    keep: KeepDetections | None = None,
) -> Detections:
    """Find objects in the images of a split, at most 300 an image, or the class of each.

    Scores and overlaps count as `LIMITS` of the task says: of a detector, scores above 0.001, and
    NMS at an IoU of 0.65.

    Args:
        model: an ONNX file, or a `Runner`.
        split: the images.
        imgsz: height and width of the input; by default what the file fixes or records, else 640.
        form: how the outputs are laid out; by default found from its shape.
        nc: how many classes the model must score, if that is known; checked at the first image.
        threads: for an ONNX file, threads within an operator.
        batch: images to run at a time; above 1 for a `Runner` that takes several.
        channels: channels of a `Runner`'s input, such as 3 for RGB; an ONNX file states its own.
        progress: shown an image at a time.
        label: name of the work there.
        known: what an interrupted run has found in the first images; it goes on behind them.
        keep: called behind every image, with a function that returns what was found until then.

    Raises:
        CheckpointError: the model cannot be run on such images, or is no decoded YOLO detector.
        DataError: there is no readable image, or the model scores another number of classes.
    """
    runner = OnnxModel(model, threads=threads) if isinstance(model, Path) else model
    channels = runner.channels if isinstance(runner, FileModel) else channels
    job = _Job(runner, split, input_size(runner, imgsz), form, nc, batch, channels)
    boxes = dict[int, Boxes]() if known is None else job.go_on(known)
    with (progress or Silent()).task(label, total=len(split.images)) as advance:
        begin = perf_counter()
        if job.first:
            advance(job.first)
        for index, found in prefetch(job.finish, job.outputs(advance), ahead=batch):
            boxes[index] = found
            if keep is not None:
                keep(partial(job.found, boxes, index + 1))
        total = perf_counter() - begin
    if job.head is None:
        bad = f"; the first: {job.skipped[0]}" if job.skipped else ""
        raise DataError(split.absent or f"no image of the {split.name} split can be read{bad}.")
    return Detections(boxes, job.head, tuple(job.skipped), total, job.seconds)


@dataclass
class _Job:
    """Three stages at once: one thread reads images, this one runs the model, one finishes."""

    runner: Runner
    split: Split
    imgsz: tuple[int, int]
    form: OutputForm | None
    nc: int | None
    batch: int
    channels: int
    head: OutputForm | None = None
    skipped: list[Unreadable] = field(default_factory=list)
    seconds: float = 0.0
    first: int = 0
    """Position of the first image to read."""

    @property
    def task(self) -> str | None:
        """The task of the model, where it is known before it runs."""
        if self.form is None and isinstance(self.runner, FileModel):
            return self.runner.hints.task
        return self.form.task if self.form else None

    def go_on(self, known: Detections) -> dict[int, Boxes]:
        """Begin behind the images in which something is known; return what is."""
        self.head, self.skipped = known.head, [*known.skipped]
        self.seconds = known.seconds_session
        self.first = 1 + max((*known.boxes, *(one.index for one in known.skipped)), default=-1)
        return dict(known.boxes)

    def found(self, boxes: dict[int, Boxes], end: int) -> Detections:
        """Return what was found in the images before the position `end`."""
        skipped = tuple(one for one in self.skipped if one.index < end)
        if self.head is None:
            raise DataError("nothing was found yet")
        return Detections(boxes, self.head, skipped, 0.0, self.seconds)

    def outputs(self, advance: Advance) -> Iterator[Answer]:
        """Yield each readable image with the model's outputs for it."""
        images = self.readable(advance)
        while some := list(islice(images, self.batch)):
            pixels = np.concatenate([to_float(image.pixels) for image in some])
            start = perf_counter()
            found = self.runner.run(pixels)
            self.seconds += perf_counter() - start
            outputs = sort_outputs([one.astype(np.float32, copy=False) for one in found])
            self.head = self.head or self._head(outputs)
            for image, *own in zip(some, *outputs, strict=True):
                yield image, self.head, own
                advance(1)

    def readable(self, advance: Advance) -> Iterator[Placed]:
        """Read the images, and note those that cannot be read."""
        paths = self.split.images[self.first :]
        crop = self.task == "classify"
        for image in read_images(paths, self.imgsz, channels=self.channels, crop=crop):
            image = replace(image, index=image.index + self.first)  # noqa: PLW2901  # in the split
            if isinstance(image, Unreadable):
                self.skipped.append(image)
                advance(1)
            else:
                yield image

    def finish(self, item: Answer) -> tuple[int, Boxes]:
        """Return the position of the image and its boxes, in pixels of the image file."""
        image, head, outputs = item
        place = Place(image.placement, image.size, self.imgsz)
        return image.index, find_objects(outputs, head, place)

    def _head(self, outputs: Sequence[Floats]) -> OutputForm:
        path = getattr(self.runner, "path", "the model")
        hints = self.runner.hints if isinstance(self.runner, FileModel) else Hints()
        try:
            head = find_form(outputs, self.form, hints)
        except CheckpointError as e:
            raise CheckpointError(f"{path} cannot be evaluated: {e}") from e
        if self.nc is not None and head.nc is not None and head.nc != self.nc:
            raise DataError(
                f"{path} predicts {head.nc} classes but the data has {self.nc}; {advise(head.nc)}."
            )
        return head
