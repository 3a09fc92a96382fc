"""What is known about a model apart from its weights, in one record that every stage passes on."""

from dataclasses import dataclass
from typing import Literal, cast

Task = Literal["detect", "segment", "pose", "obb", "classify"]
Layout = Literal["yolov5", "yolov8", "end2end", "classes", "raw"]
"""How a model's first output is laid out; coordinates are in input pixels.

`"yolov5"`: `[N, A, 5 + nc + E]`, rows of centre x, centre y, width, height, objectness, scores.
`"yolov8"`: `[N, 4 + nc + E, A]`, the same without objectness. `"end2end"`: `[N, min(M, A), 6 + E]`,
rows of x1, y1, x2, y2, score, class by falling score, M the most detections that the head keeps;
for oriented boxes centre x, centre y, width, height in place of the corners. E are the further
numbers of a detection (`OutputForm.extra`). `"classes"`: `[N, nc]`, probabilities. `"raw"`: several
outputs, as they are before the decoding.
"""


@dataclass(frozen=True)
class OutputForm:
    """What a model's outputs are: all that is needed to read them."""

    layout: Layout
    nc: int | None = None
    """How many classes it scores; None where the shape of the output does not show it."""
    task: Task = "detect"
    coefficients: int = 0
    """Mask coefficients of a detection; the second output is the prototypes, `[N, E, h, w]`."""
    kpt_shape: tuple[int, int] | None = None
    """Keypoints of a detection and numbers of each: x, y in pixels; visibility if 3."""

    @property
    def extra(self) -> int:
        """Numbers of a detection behind its box and scores: coefficients, keypoints, an angle."""
        keypoints, numbers = self.kpt_shape or (0, 0)
        return self.coefficients + keypoints * numbers + (self.task == "obb")


@dataclass(frozen=True, kw_only=True)
class HeadFacts:
    """How a head's raw outputs are decoded, beside what `OutputForm` says; see `yqc.runtime`."""

    reg_max: int = 0
    """Bins of a distance to a side of a box; 1 where it is the number itself, 0 for anchors."""
    anchors: tuple[tuple[tuple[float, float], ...], ...] = ()
    """Width and height in pixels of the anchors of each level; empty for heads without."""
    keypoints: tuple[float, float] | None = None
    """Factor f and offset o of a raw coordinate k: it lies at (f k + cell + o) strides."""
    angle: Literal["sigmoid", "radians"] | None = None
    """Whether an angle is (sigmoid - 1/4) pi of the raw number, or that number."""


DEFAULT_SIZE = (640, 640)
"""Height and width in pixels where none is recorded: what all three projects train at."""
CLASSIFY_SIZE = (224, 224)
"""The same of classifiers (ImageNet's usual size): what YOLOv5 and Ultralytics train these at."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The facts of one model; a loaded checkpoint, a traced graph and a report all have them."""

    family: str
    """`"yolov5"`, `"yolov7"`, `"yolov9"` (its authors' project), `"ultralytics"`; `"module"` for a
    module from Python."""
    name: str = ""
    """The model's YAML by name, such as `"yolov8n"`; the family where none is recorded."""
    task: str = "detect"
    """A `Task`, or empty where a file does not say it."""
    names: tuple[str, ...] = ()
    """The class names by class number, as stored: not cleaned of control characters."""
    strides: tuple[int, ...] = ()
    """Input pixels a cell, one number a feature map."""
    imgsz: tuple[int, int] | None = None
    """Height and width: recorded by the training, or compiled for; None where not recorded."""
    channels: int = 3
    """Channels of the input image: 1 is grey, 3 is RGB."""
    layout: Layout | None = None
    """Layout of the output; None where it is not that of a YOLO model."""
    coefficients: int = 0
    """See `OutputForm.coefficients`."""
    kpt_shape: tuple[int, int] | None = None
    """See `OutputForm.kpt_shape`."""
    head: HeadFacts | None = None
    """How raw outputs are decoded; None where that is not known."""

    @property
    def form(self) -> OutputForm | None:
        """What the outputs are; None where they are not those of a YOLO model."""
        if self.layout is None:
            return None
        return OutputForm(
            self.layout, self.nc, cast(Task, self.task), self.coefficients, self.kpt_shape
        )

    @property
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input: the recorded ones, or the default."""
        return self.imgsz or (CLASSIFY_SIZE if self.task == "classify" else DEFAULT_SIZE)


@dataclass(frozen=True, kw_only=True)
class HasFacts:
    """A record with `facts`; single facts can be read from it directly."""

    facts: ModelFacts

    @property
    def family(self) -> str:
        """See `ModelFacts.family`."""
        return self.facts.family

    @property
    def name(self) -> str:
        """See `ModelFacts.name`."""
        return self.facts.name

    @property
    def task(self) -> str:
        """See `ModelFacts.task`."""
        return self.facts.task

    @property
    def nc(self) -> int:
        """See `ModelFacts.nc`."""
        return self.facts.nc

    @property
    def names(self) -> tuple[str, ...]:
        """See `ModelFacts.names`."""
        return self.facts.names

    @property
    def strides(self) -> tuple[int, ...]:
        """See `ModelFacts.strides`."""
        return self.facts.strides

    @property
    def imgsz(self) -> tuple[int, int] | None:
        """See `ModelFacts.imgsz`."""
        return self.facts.imgsz

    @property
    def channels(self) -> int:
        """See `ModelFacts.channels`."""
        return self.facts.channels

    @property
    def layout(self) -> Layout | None:
        """See `ModelFacts.layout`."""
        return self.facts.layout

    @property
    def form(self) -> OutputForm | None:
        """See `ModelFacts.form`."""
        return self.facts.form
