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
    read_runs,
    transpose_mask,
)
from yqc.data.pixels import Frame
from yqc.data.sets import Labelling, Object
from yqc.errors import DataError

_POINT = 3
"""Numbers of a keypoint: x, y, visibility."""
_POLYGON = 6
"""Numbers of a polygon at least."""
_FARTHEST = 200_000.0
"""Largest coordinate of a polygon, in pixels. pycocotools goes along its edges in steps of a fifth
of a pixel, 8 bytes each: 16 MB for an edge of this length. Half of it suits all but the widest
images that are read; double takes twice the memory."""


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
    """Polygons, or run lengths of an image of `size` (width, height): one of both."""

    polygons: tuple[tuple[float, ...], ...] = ()
    size: tuple[int, int] = (0, 0)
    counts: Sequence[int] | bytes = b""

    def check_size(self, where: str, size: tuple[int, int] | None) -> None:
        """Raise a DataError if run lengths are of another size than an image, where it is known."""
        if not self.polygons and size not in (None, self.size):
            (width, height), (own_width, own_height) = size or (0, 0), self.size
            raise DataError(
                f"{where}: the run lengths of its 'segmentation' are of {own_width} x {own_height} "
                f"pixels, and its image has {width} x {height}."
            )

    def draw(self, size: tuple[int, int]) -> Mask:
        """Return the mask in an image of `size` (width, height).

        Raises:
            DataError: run lengths are of another size.
        """
        if self.polygons:
            return draw_polygons(self.polygons, size)
        self.check_size("an annotation", size)
        lines = self.size[::-1]
        if isinstance(self.counts, bytes):
            return {"size": list(lines), "counts": self.counts}
        return compress_runs(self.counts, lines)


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
        return Outline(_read_polygons(where, found))
    if isinstance(found, dict):
        return _read_counts(where, found)
    if isinstance(found, str):
        raise DataError(
            f"{where}: its 'segmentation' names a file; bitmaps are not read: write polygons or "
            "run lengths in their place (pycocotools.mask.encode makes these)."
        )
    raise DataError(f"{where}: its 'segmentation' is neither polygons nor run lengths.")


def _read_polygons(where: str, found: list[Any]) -> tuple[tuple[float, ...], ...]:
    for part in found:
        if not isinstance(part, list) or not all(map(is_number, part)):
            raise DataError(f"{where}: its 'segmentation' is no list of polygons x1, y1, x2, y2...")
        if len(part) < _POLYGON or len(part) % 2:
            raise DataError(
                f"{where}: a polygon of its 'segmentation' has {len(part)} numbers; it has x and y "
                "of three points or more."
            )
        if max(map(abs, part)) > _FARTHEST:
            raise DataError(
                f"{where}: a polygon of its 'segmentation' reaches {max(map(abs, part)):g} pixels "
                "far; coordinates are pixels of the image."
            )
    return tuple(tuple(map(float, part)) for part in found)


def _read_counts(where: str, found: dict[str, Any]) -> Outline:
    counts = found.get("counts")
    match found.get("size"):
        case [int(height), int(width)] if height > 0 and width > 0:
            if isinstance(counts, str) and counts.isascii():
                counts = counts.encode()
                runs = read_runs(counts)
                fits = runs is not None and _covers(runs.tolist(), height * width)
            else:
                fits = isinstance(counts, list) and _covers(counts, height * width)
            if fits:
                return Outline((), (width, height), counts)  # type: ignore[arg-type]  # it fits
    raise DataError(
        f"{where}: the run lengths of its 'segmentation' are damaged: 'counts' must cover all "
        "pixels of 'size', [height, width]."
    )


def _covers(counts: list[Any], pixels: int) -> bool:
    plain = all(type(count) is int and count >= 0 for count in counts)
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
