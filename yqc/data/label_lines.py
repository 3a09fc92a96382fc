"""Read a line of a YOLO label file: a class, then a box, an outline, keypoints or four corners."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from yqc.data.files import shorten
from yqc.data.outlines import is_quadrilateral
from yqc.errors import DataError
from yqc.facts import Task

_BOX = 5
"""A label line of a box: class, centre x, centre y, width, height, the last four in 0..1."""
_POLYGON = 7
"""A label line of an outline has at least three points after the class."""
_CORNERS = 9
"""A label line of an oriented box: class and four corners."""
_SLACK = 0.01
"""How far outside 0..1 a coordinate may lie: Ultralytics takes values up to 1.01, YOLOv5 and YOLOv7
up to 1. Half of it refuses labels that Ultralytics trains on; double takes what none of them does.
"""


class Label(NamedTuple):
    """One object, relative to its image."""

    cls: int
    box: tuple[float, ...]
    """Centre x, centre y, width, height."""
    outline: tuple[float, ...] = ()
    """x and y of each point of a polygon, or of four corners."""
    keypoints: tuple[float, ...] = ()
    """x, y and visibility of each keypoint: 0 is not labelled, 1 hidden, 2 seen. Keypoints of two
    numbers are seen, but for those at 0 0, which are not labelled."""


@dataclass(frozen=True)
class LabelKind:
    """What the lines of a data set hold."""

    nc: int
    """Classes are 0 to nc - 1."""
    task: Task = "detect"
    kpt_shape: tuple[int, int] | None = None
    """Keypoints of a line and numbers of each, as the data YAML says; None without any."""

    def parse(self, where: str, words: list[str]) -> Label:
        """Read the words of one line; `where` begins the message of an error.

        Raises:
            DataError: they are no label.
        """
        try:
            cls, *values = map(float, words)
        except ValueError as e:
            raise DataError(f"{where} is no label: {shorten(' '.join(words))}.") from e
        if not cls.is_integer() or not 0 <= cls < self.nc:
            most = self.nc - 1
            raise DataError(f"{where} names class {words[0]:.20}, and the classes are 0 to {most}.")
        if self.task == "obb":
            return _parse_corners(where, int(cls), values)
        if self.kpt_shape is not None:
            return self._parse_keypoints(where, int(cls), values, self.kpt_shape)
        _check_range(where, values)
        if len(words) >= _POLYGON and len(words) % 2:
            outline = tuple(values) if self.task == "segment" else ()
            return Label(int(cls), _box_around(values), outline)
        if len(words) != _BOX:
            form = "class and outline, x1 y1 x2 y2 x3 y3 ..., or " * (self.task == "segment")
            raise DataError(
                f"{where} has {len(words)} numbers; a label is {form}class, x, y, width, height."
            )
        return Label(int(cls), _check_size(where, values))

    def _parse_keypoints(
        self, where: str, cls: int, values: list[float], kpt_shape: tuple[int, int]
    ) -> Label:
        count, numbers = kpt_shape
        if len(values) != _BOX - 1 + count * numbers:
            raise DataError(
                f"{where} has {len(values) + 1} numbers; a label here is class, x, y, width, "
                f"height and {count} keypoints of {numbers} numbers, as kpt_shape says."
            )
        if not all(map(math.isfinite, values)):
            raise DataError(f"{where} has a number that is not finite.")
        box, rest = values[: _BOX - 1], np.reshape(values[_BOX - 1 :], kpt_shape)
        seen = rest[:, 2] > 0 if numbers > 2 else (rest != 0).any(axis=1)  # noqa: PLR2004
        _check_range(where, [*box, *rest[seen, :2].ravel().tolist()])
        if self.task != "pose":
            return Label(cls, _check_size(where, box))
        flags = rest[:, 2:] if numbers > 2 else 2.0 * seen[:, None]  # noqa: PLR2004
        points = np.concatenate([rest[:, :2] * seen[:, None], flags * seen[:, None]], 1)
        return Label(cls, _check_size(where, box), (), tuple(points.ravel().tolist()))


def _check_range(where: str, values: list[float]) -> None:
    if not all(-_SLACK <= v <= 1 + _SLACK for v in values):
        raise DataError(
            f"{where} has a coordinate outside 0..1; YOLO labels are relative to the image."
        )


def _check_size(where: str, values: list[float]) -> tuple[float, ...]:
    if min(values[2:]) < 0:
        raise DataError(f"{where} has a negative width or height.")
    return tuple(values)


def _parse_corners(where: str, cls: int, values: list[float]) -> Label:
    if len(values) != _CORNERS - 1:
        raise DataError(
            f"{where} has {len(values) + 1} numbers; a label of an oriented box is class and four "
            "corners, x1 y1 x2 y2 x3 y3 x4 y4."
        )
    _check_range(where, values)
    if not is_quadrilateral(np.reshape(values, (4, 2))):
        raise DataError(
            f"{where} has four corners that are no quadrilateral: in their order they go around no "
            "area, cross each other, or turn inwards."
        )
    return Label(cls, _box_around(values), tuple(values))


def _box_around(outline: list[float]) -> tuple[float, ...]:
    """Return the box around an outline x1 y1 x2 y2 ... as centre and size."""
    xs, ys = outline[0::2], outline[1::2]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
