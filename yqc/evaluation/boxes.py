"""What a model found in one image, and what keeps such findings as plain arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yqc.runtime import rotated_boxes

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
Booleans = NDArray[np.bool_]
Texts = NDArray[np.object_]

FIELDS = ("xyxy", "scores", "classes", "extra")
"""The fields of `Boxes` that hold numbers, one row a detection."""
_BETWEEN = b"\n"
"""Stands between masks in one text: run lengths are written in the characters 0 to o."""


def _nothing() -> Floats:
    return np.zeros((0, 0), np.float32)


def _no_masks() -> Texts:
    return np.zeros(0, np.object_)


@dataclass(frozen=True)
class Boxes:
    """Detections in one image by falling score; of a classifier, its likeliest classes."""

    xyxy: Floats
    """float32 [n, 4], left, top, right, bottom in pixels. Of oriented boxes before they are turned
    around their centre by the angle in `extra`; of classes zeros."""
    scores: Floats
    """float32 [n]."""
    classes: Indices
    """[n], from 0."""
    extra: Floats = field(default_factory=_nothing)
    """float32 [n, E]: x, y (and visibility) of each keypoint in pixels, the angle in radians, or
    the mask coefficients, which are gone once `masks` are drawn. [0, 0] where there are none."""
    masks: Texts = field(default_factory=_no_masks)
    """[n], of each object the run lengths (bytes) in COCO's compressed form; [0] where none are
    drawn."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the image in pixels; known once `masks` are drawn."""

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> "Boxes":
        """Return the boxes with at least this score."""
        return self.select(self.scores >= score)

    def select(self, which: Booleans | Indices) -> "Boxes":
        """Return the boxes that a mask or a list of indices selects."""
        return Boxes(
            self.xyxy[which],
            self.scores[which],
            self.classes[which],
            self.extra[which] if self.extra.size else self.extra,
            self.masks[which] if len(self.masks) else self.masks,
            self.size,
        )

    @property
    def rotated(self) -> NDArray[np.float64]:
        """Oriented boxes as float64 [n, 5]: centre x, centre y, width, height, angle in radians."""
        return rotated_boxes(self.xyxy, self.extra)


def stack_boxes(boxes: Sequence[Boxes]) -> dict[str, NDArray[Any]]:
    """Join the detections of several images into arrays that can be stored; none is an object."""
    arrays: dict[str, NDArray[Any]] = {
        "count": np.asarray([len(each) for each in boxes], np.int64),
        "drawn": np.asarray([len(each.masks) for each in boxes], np.int64),
        "size": np.asarray([each.size for each in boxes], np.int64).reshape(-1, 2),
    }
    for name in FIELDS:
        parts = [part for each in boxes if (part := getattr(each, name)).size]
        arrays[name] = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    masks = [mask for each in boxes for mask in each.masks]
    arrays["masks"] = np.frombuffer(_BETWEEN.join(masks), np.uint8)
    return arrays


def unstack_boxes(arrays: Mapping[str, NDArray[Any]]) -> list[Boxes]:
    """Undo `stack_boxes`.

    Raises:
        ValueError, KeyError: the arrays do not belong together.
    """
    counts, drawn = arrays["count"], arrays["drawn"]
    total, width = int(counts.sum()), arrays["extra"].size
    wide = {
        "xyxy": arrays["xyxy"].reshape(total, 4),
        "scores": arrays["scores"].reshape(total),
        "classes": arrays["classes"].astype(np.intp).reshape(total),
        "extra": arrays["extra"].reshape(total, -1) if width else np.zeros((total, 0), np.float32),
    }
    texts = arrays["masks"].tobytes().split(_BETWEEN) if drawn.sum() else []
    masks = np.array([None, *texts], np.object_)[1:]  # an array of bytes would cut them
    ends = np.cumsum(counts)[:-1]
    parts = [np.split(wide[name], ends) for name in FIELDS]
    own = np.split(masks, np.cumsum(drawn)[:-1])
    sizes = [(int(w), int(h)) for w, h in arrays["size"]]
    return [Boxes(*one) for one in zip(*parts, own, sizes, strict=True)] if len(counts) else []
