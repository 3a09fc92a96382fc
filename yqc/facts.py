"""What is known about a model apart from its weights, in one record that every stage passes on."""

from dataclasses import dataclass
from typing import Literal

Layout = Literal["yolov5", "yolov8", "end2end"]
"""How a detector's output is laid out; coordinates are in input pixels.

`"yolov5"`: `[N, A, 5 + nc]`, rows of centre x, centre y, width, height, objectness, scores.
`"yolov8"`: `[N, 4 + nc, A]`, the same without objectness. `"end2end"`: `[N, min(M, A), 6]`, rows
of x1, y1, x2, y2, score, class by falling score, M the most detections that the head keeps.
"""

DEFAULT_SIZE = (640, 640)
"""Height and width in pixels where none is recorded: what all three projects train at."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The facts of one model; a loaded checkpoint, a traced graph and a report all have them."""

    family: str
    """`"yolov5"`, `"yolov7"`, `"yolov9"` (its authors' project), `"ultralytics"`; `"module"` for a
    module from Python."""
    name: str = ""
    """The model's YAML by name, such as `"yolov8n"`; the family where none is recorded."""
    task: str = "detect"
    names: tuple[str, ...] = ()
    """The class names by class number, as stored: not cleaned of control characters."""
    strides: tuple[int, ...] = ()
    """Input pixels a cell, one number a feature map."""
    imgsz: tuple[int, int] | None = None
    """Height and width: recorded by the training, or compiled for; None where not recorded."""
    channels: int = 3
    """Channels of the input image: 1 is grey, 3 is RGB."""
    layout: Layout | None = None
    """Layout of the output; None where it is not a decoded detector's."""

    @property
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input: the recorded ones, or the default."""
        return self.imgsz or DEFAULT_SIZE


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
