"""A head of a user's own: any traceable module whose output is decoded detections."""

# ruff: noqa: D102 - what `DetectionHead` says of a method holds for its subclasses

from collections.abc import Sequence
from typing import cast, get_args

import torch
from torch import Tensor, nn

from yqc.errors import CheckpointError, first_line
from yqc.facts import Layout, OutputForm, Task
from yqc.models.bounded import Bounded
from yqc.models.heads.base import DetectionHead

BOX, WITH_OBJECTNESS, ROW = 4, 5, 6
"""Numbers of a box, of a box with its objectness, of a row of an end-to-end output."""
MOST_VALUES = 1 << 26
"""Values that its forward on the probe may compute, as `yqc.models.detector.MOST_VALUES`."""


class RegisteredHead(DetectionHead):
    """A registered twin in the place of a head; how its output is laid out is seen from its shape.

    The twin may state `layout` and `nc` (the number of classes), which then hold; of another task
    than detection it states `task`, and for keypoints `kpt_shape`.
    """

    def __init__(self, twin: nn.Module, maps: int, many: bool, names: int) -> None:
        """Wrap a twin.

        Args:
            twin: takes a list of maps, or one map, and returns detections, or a tuple of which
                they are the first; the prototypes of masks are its second. A classifier's returns
                probabilities.
            maps: how many maps the model sends to it.
            many: whether it takes a list.
            names: how many classes the checkpoint names; 0 if none.
        """
        super().__init__()
        self.twin, self.nl, self.many = twin, maps, many
        stated = getattr(twin, "nc", 0)
        self.nc = stated if type(stated) is int and stated > 0 else names
        self.found: Layout | None = None
        self.prototypes = 0
        self.task = cast(Task, self._stated("task", Task) or "detect")
        default = "classes" if self.task == "classify" else None
        self.stated = cast(Layout | None, self._stated("layout", Layout) or default)
        shape = getattr(twin, "kpt_shape", None) if self.task == "pose" else None
        match shape:
            case [int(count), int(numbers)] if count > 0 and numbers in {2, 3}:
                self.shape: tuple[int, int] | None = count, numbers
            case None if self.task != "pose":
                self.shape = None
            case _:
                raise CheckpointError(
                    f"the head {type(twin).__name__} states kpt_shape {shape!r:.40}: state how many"
                    " keypoints a detection has, and how many numbers each, [17, 3]"
                )

    def _stated(self, name: str, allowed: object) -> object:
        """Return what the twin states under a name, if it is one of a `Literal`, or None.

        Raises:
            CheckpointError: it is none of these.
        """
        stated = getattr(self.twin, name, None)
        if stated is not None and stated not in get_args(allowed):
            plural = {"layout": "layouts", "task": "tasks"}[name]
            raise CheckpointError(
                f"the head {type(self.twin).__name__} states {name} {stated!r:.40}; the {plural}"
                f" are {', '.join(get_args(allowed))}"
            )
        return stated

    @property
    def layout(self) -> Layout:
        if self.found is None:
            raise CheckpointError("the head's output was not looked at")
        return self.found

    @property
    def coefficients(self) -> int:
        return self.prototypes

    @property
    def keypoints(self) -> tuple[int, int] | None:
        return self.shape

    def check(self) -> None:
        """Accept what the user registered; `recognise` looks at its output."""

    def strides_of(self, maps: Sequence[Tensor], side: int) -> tuple[float, ...]:
        return (1.0,) if self.task == "classify" else super().strides_of(maps, side)

    def forward(self, xs: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        found = self.twin(list(xs) if self.many else xs[0])
        outputs = tuple(found) if isinstance(found, (tuple, list)) else (found,)
        y: Tensor = outputs[0]
        return outputs[:2] if self.task == "segment" else y

    def raw(self, xs: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        raise NotImplementedError("a registered head shows its decoded output only")

    @torch.no_grad()
    def recognise(self, maps: Sequence[Tensor]) -> None:
        """Run the twin on maps of a small image, and see the layout and the number of classes.

        Raises:
            CheckpointError: it cannot be run, or its output is laid out in no known way.
        """
        name = type(self.twin).__name__
        try:
            with Bounded(MOST_VALUES):
                y = self.eval()(maps)
        except Exception as error:
            raise CheckpointError(
                f"the head {name} does not work on its {len(maps)} maps: {first_line(error)}"
            ) from error
        if self.task == "segment":
            if len(y) != 2 or y[1].ndim != 4:  # noqa: PLR2004  # [N, E, h, w]
                raise CheckpointError(
                    f"the head {name} states task 'segment': return detections and prototypes"
                )
            self.prototypes, y = y[1].shape[1], y[0]
        cells = sum(x.shape[-1] * x.shape[-2] for x in maps)
        shape = tuple(y.shape) if isinstance(y, Tensor) else ()
        extra = OutputForm("yolov8", None, self.task, self.prototypes, self.shape).extra
        self.found = self.stated or _layout_of(shape, cells, self.nc, extra)
        classes = _classes_of(shape, self.found, extra) if self.found else 0
        if self.found is None or classes < 0:
            numbers = f"4 + classes{f' + {extra}' if extra else ''}"
            raise CheckpointError(
                f"the head {name} gives {list(shape)} for {cells} cells: decode it to [N, {numbers}"
                ', cells], or state layout = "yolov8", "yolov5" or "end2end"'
            )
        self.nc = classes or self.nc


def _layout_of(shape: tuple[int, ...], cells: int, classes: int, extra: int) -> Layout | None:
    """Return the layout of an output `[1, ...]`; `classes` is 0 where they are not known."""
    if len(shape) != 3 or shape[0] != 1:  # noqa: PLR2004  # [N, rows, columns]
        return None
    rows, columns = shape[1] - extra, shape[2] - extra
    if shape[2] == cells and rows > BOX and classes in {0, rows - BOX}:
        return "yolov8"
    if columns > WITH_OBJECTNESS and shape[1] % cells == 0 and classes in {0, columns - 5}:
        return "yolov5"
    return "end2end" if columns == ROW else None


def _classes_of(shape: tuple[int, ...], layout: Layout, extra: int) -> int:
    """Return the number of classes in an output, 0 where it does not show, -1 if it is wrong."""
    if len(shape) != (2 if layout == "classes" else 3):
        return -1
    if layout == "classes":
        return shape[1]
    if layout == "yolov8":
        return shape[1] - BOX - extra if shape[1] > BOX + extra else -1
    if layout == "yolov5":
        return shape[2] - WITH_OBJECTNESS - extra if shape[2] > WITH_OBJECTNESS + extra else -1
    return 0 if shape[2] == ROW + extra else -1
