"""A head of a user's own: any traceable module whose output is decoded detections."""

# ruff: noqa: D102 - what `DetectionHead` says of a method holds for its subclasses

from collections.abc import Sequence
from typing import cast, get_args

import torch
from torch import Tensor, nn

from yqc.errors import CheckpointError, first_line
from yqc.facts import Layout
from yqc.models.bounded import Bounded
from yqc.models.heads.base import DetectionHead

BOX, WITH_OBJECTNESS, ROW = 4, 5, 6
"""Numbers of a box, of a box with its objectness, of a row of an end-to-end output."""
MOST_VALUES = 1 << 26
"""Values that its forward on the probe may compute, as `yqc.models.detector.MOST_VALUES`."""


class RegisteredHead(DetectionHead):
    """A registered twin in the place of a head; how its output is laid out is seen from its shape.

    The twin may state `layout` and `nc` (the number of classes), which then hold.
    """

    def __init__(self, twin: nn.Module, maps: int, many: bool, names: int) -> None:
        """Wrap a twin.

        Args:
            twin: takes a list of maps, or one map, and returns detections, or a tuple of which
                they are the first.
            maps: how many maps the model sends to it.
            many: whether it takes a list.
            names: how many classes the checkpoint names; 0 if none.
        """
        super().__init__()
        self.twin, self.nl, self.many = twin, maps, many
        stated = getattr(twin, "nc", 0)
        self.nc = stated if type(stated) is int and stated > 0 else names
        self.found: Layout | None = None
        stated = getattr(twin, "layout", None)
        if stated is not None and stated not in get_args(Layout):
            raise CheckpointError(
                f"the head {type(twin).__name__} states layout {stated!r:.40}; the layouts are"
                f" {', '.join(get_args(Layout))}"
            )
        self.stated = cast(Layout | None, stated)

    @property
    def layout(self) -> Layout:
        if self.found is None:
            raise CheckpointError("the head's output was not looked at")
        return self.found

    def check(self) -> None:
        """Accept what the user registered; `recognise` looks at its output."""

    def forward(self, xs: Sequence[Tensor]) -> Tensor:
        found = self.twin(list(xs) if self.many else xs[0])
        y: Tensor = found[0] if isinstance(found, (tuple, list)) else found
        return y

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
        cells = sum(x.shape[-1] * x.shape[-2] for x in maps)
        shape = tuple(y.shape) if isinstance(y, Tensor) else ()
        self.found = self.stated or _layout_of(shape, cells, self.nc)
        classes = _classes_of(shape, self.found) if self.found else 0
        if self.found is None or classes < 0:
            raise CheckpointError(
                f"the head {name} gives {list(shape)} for {cells} cells: decode it to [N, 4 +"
                ' classes, cells], or state layout = "yolov8", "yolov5" or "end2end"'
            )
        self.nc = classes or self.nc


def _layout_of(shape: tuple[int, ...], cells: int, classes: int) -> Layout | None:
    """Return the layout of an output `[1, ...]`; `classes` is 0 where they are not known."""
    if len(shape) != 3 or shape[0] != 1:  # noqa: PLR2004  # [N, rows, columns]
        return None
    rows, columns = shape[1:]
    if columns == cells and rows > BOX and classes in {0, rows - BOX}:
        return "yolov8"
    if columns > WITH_OBJECTNESS and rows % cells == 0 and classes in {0, columns - 5}:
        return "yolov5"
    return "end2end" if columns == ROW else None


def _classes_of(shape: tuple[int, ...], layout: Layout) -> int:
    """Return the number of classes in an output, 0 where it does not show, -1 if it is wrong."""
    if len(shape) != 3:  # noqa: PLR2004
        return -1
    if layout == "yolov8":
        return shape[1] - BOX if shape[1] > BOX else -1
    if layout == "yolov5":
        return shape[2] - WITH_OBJECTNESS if shape[2] > WITH_OBJECTNESS else -1
    return 0 if shape[2] == ROW else -1
