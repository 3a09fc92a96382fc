"""Masks and keypoints of COCO annotations: checked as they are read, drawn on first use."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from yqc.data.outlines import (
    Mask,
    compress_runs,
    draw_polygons,
    draw_rectangle,
    transpose_mask,
)
from yqc.data.pixels import Frame
from yqc.data.sets import Labelling, Object
from yqc.errors import DataError

_POINT = 3
"""Numbers of a keypoint: x, y, visibility."""
_POLYGON = 6
"""Numbers of a polygon at least."""


class Shaped(NamedTuple):
    """An object, and its outline as the file has it."""

    thing: Object
    outline: "Outline | None" = None

    @property
    def same(self) -> tuple[object, ...]:
        """What two annotations of one object share."""
        return self.thing.cls, self.thing.bbox, self.thing.crowd


@dataclass(frozen=True)
class Outline:
    """Polygons, or run lengths of an image of `size` (height, width): one of both."""

    polygons: tuple[tuple[float, ...], ...] = ()
    size: tuple[int, int] = (0, 0)
    counts: Sequence[int] | bytes = b""

    def draw(self, size: tuple[int, int]) -> Mask:
        """Return the mask in an image of `size` (width, height)."""
        if self.polygons:
            return draw_polygons(self.polygons, size)
        if isinstance(self.counts, bytes):
            return {"size": list(self.size), "counts": self.counts}
        return compress_runs(self.counts, self.size)


def read_shape(where: str, entry: Mapping[str, Any], thing: Object, labelling: Labelling) -> Shaped:
    """Add to an object what the task needs of its annotation.

    Raises:
        DataError: that is malformed, or of another number of keypoints than the model's.
    """
    if labelling.task == "segment":
        return Shaped(thing, _read_outline(where, entry.get("segmentation")))
    if labelling.task == "pose" and entry.get("keypoints"):
        return Shaped(
            thing._replace(keypoints=_read_keypoints(where, entry["keypoints"], labelling))
        )
    return Shaped(thing)


def _read_outline(where: str, found: object) -> Outline | None:
    """Return what `segmentation` holds; None where it is absent or empty."""
    if found in (None, [], {}):
        return None
    if isinstance(found, list):
        parts = [part for part in found if isinstance(part, list) and len(part) >= _POLYGON]
        whole = len(parts) == len(found) and not any(len(part) % 2 for part in parts)
        if whole and all(map(is_number, chain.from_iterable(parts))):
            return Outline(tuple(tuple(map(float, part)) for part in parts))
    elif isinstance(found, dict):
        size, counts = found.get("size"), found.get("counts")
        match size:
            case [int(height), int(width)] if height > 0 and width > 0:
                if isinstance(counts, str) and counts.isascii():
                    return Outline((), (height, width), counts.encode())
                if isinstance(counts, list) and _covers(counts, height * width):
                    return Outline((), (height, width), counts)
    elif isinstance(found, str):
        raise DataError(
            f"{where}: its 'segmentation' names a file; bitmaps are not read: write polygons or "
            "run lengths in their place (pycocotools.mask.encode makes these)."
        )
    raise DataError(f"{where}: its 'segmentation' is neither polygons nor run lengths.")


def _covers(counts: list[Any], pixels: int) -> bool:
    plain = all(isinstance(count, int) and count >= 0 for count in counts)
    return plain and sum(counts) == pixels


def _read_keypoints(where: str, found: object, labelling: Labelling) -> tuple[float, ...]:
    if not isinstance(found, list) or len(found) % _POINT or not all(map(is_number, found)):
        raise DataError(f"{where}: its 'keypoints' are no list of x, y, visibility.")
    count = len(found) // _POINT
    if labelling.keypoints not in (None, count):
        raise DataError(
            f"{where}: it has {count} keypoints, and the model predicts {labelling.keypoints}; "
            "give the data that the model was trained on."
        )
    return tuple(map(float, found))


def draw_shape(
    shaped: Shaped, size: tuple[int, int], frame: Frame | None, *, masks: bool
) -> Object:
    """Return an object in pixels of the upright image, with its mask where `masks` are read.

    Args:
        shaped: the object.
        size: width and height of the image that its numbers describe.
        frame: how that image is turned, if it describes the pixels before EXIF turns them.
        masks: whether the objects of this data set get masks: without outline that of its box.
    """
    thing, outline = shaped
    if masks:
        mask = draw_rectangle(thing.bbox, size) if outline is None else outline.draw(size)
        turn = frame.transposition if frame else None
        thing = thing._replace(mask=mask if turn is None else transpose_mask(mask, turn))
    if frame is None:
        return thing
    points = zip(thing.keypoints[::3], thing.keypoints[1::3], thing.keypoints[2::3], strict=True)
    turned = chain.from_iterable(
        (*frame.turn_box((x, y, 0.0, 0.0))[:2], seen) if seen else (0.0, 0.0, 0.0)
        for x, y, seen in points
    )
    return thing._replace(bbox=frame.turn_box(thing.bbox), keypoints=tuple(turned))


def is_number(value: object) -> bool:
    """Whether a value from JSON is a finite number."""
    try:
        return not isinstance(value, bool) and math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, OverflowError):
        return False
