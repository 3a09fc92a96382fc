"""Masks of objects at the size of their image, from prototypes and coefficients.

An object's mask is where the sum of prototypes times its coefficients is above zero (its sigmoid
above one half; Bolya et al. 2019, YOLACT), inside its box only. The sums are computed at the size
of the prototypes and sampled bilinearly at the centres of the image's pixels.
"""

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from yqc.data import Letterboxed
from yqc.evaluation.boxes import Boxes, Floats, Indices


def draw_masks(
    boxes: Boxes,
    coefficients: Floats,
    prototypes: Floats,
    place: Letterboxed,
    imgsz: tuple[int, int],
) -> Boxes:
    """Return boxes with their masks.

    Args:
        boxes: in pixels of an image of `boxes.size`.
        coefficients: float32 [n, C] of each box.
        prototypes: float32 [C, h, w], over the whole input of the model.
        place: the place of the image in the input.
        imgsz: height and width of the input in pixels.
    """
    width, height = boxes.size
    rows = Sampling.of(height, place.scale, place.dy, prototypes.shape[1], imgsz[0])
    columns = Sampling.of(width, place.scale, place.dx, prototypes.shape[2], imgsz[1])
    sums = np.tensordot(coefficients, prototypes, 1)
    masks = np.empty(len(boxes), np.object_)
    edges = np.ceil(boxes.xyxy).astype(int)  # pixel u is inside if left <= u < right
    for i, (left, top, right, bottom) in enumerate(edges.tolist()):
        canvas = np.zeros((height, width), np.uint8, order="F")
        inside = rows.blend(sums[i], top, bottom)
        canvas[top:bottom, left:right] = columns.blend(inside.T, left, right).T > 0
        masks[i] = rle.encode(canvas)["counts"]
    return Boxes(boxes.xyxy, boxes.scores, boxes.classes, boxes.extra[:0], masks, boxes.size)


class Sampling:
    """Where the pixels of an image lie between cells along one axis."""

    def __init__(self, low: Indices, high: Indices, share: Floats) -> None:
        self.low, self.high, self.share = low, high, share

    @classmethod
    def of(cls, size: int, scale: float, shift: int, cells: int, side: float) -> "Sampling":
        """Place the centres of `size` pixels on `cells` that cover an input of `side` pixels."""
        centres = (np.arange(size) + 0.5) * scale + shift
        at = np.clip(centres * (cells / side) - 0.5, 0, cells - 1)
        low = np.floor(at).astype(np.intp)
        return cls(low, np.minimum(low + 1, cells - 1), (at - low).astype(np.float32))

    def blend(self, values: Floats, start: int, end: int) -> Floats:
        """Sample values [cells, ...] at the pixels from `start` to `end`."""
        share = self.share[start:end, None]
        low, high = values[self.low[start:end]], values[self.high[start:end]]
        blended: NDArray[np.float32] = low + (high - low) * share
        return blended
