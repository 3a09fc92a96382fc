"""Outlines of objects: masks in COCO's run-length form, and the rectangles around corners."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

Polygon = Sequence[float]
"""x1, y1, x2, y2, ... in pixels, at least three points."""


class Mask(TypedDict):
    """The pixels of an object as COCO keeps them."""

    size: list[int]
    """Height and width of the image."""
    counts: bytes
    """Lengths of runs down the columns, outside and inside in turn, compressed."""


def draw_polygons(polygons: Sequence[Polygon], size: tuple[int, int]) -> Mask:
    """Return the mask of an object of one or more parts in an image of `size` (width, height)."""
    width, height = size
    parts = rle.frPyObjects([list(one) for one in polygons], height, width)
    mask: Mask = rle.merge(parts)
    return mask


def draw_rectangle(box: Sequence[float], size: tuple[int, int]) -> Mask:
    """Return the mask of a box: left, top, width, height."""
    left, top, width, height = box
    right, below = left + width, top + height
    return draw_polygons([(left, top, right, top, right, below, left, below)], size)


def compress_runs(counts: Sequence[int], size: Sequence[int]) -> Mask:
    """Return a mask of plain run lengths; `size` is height and width."""
    height, width = size
    mask: Mask = rle.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
    return mask


def mask_area(mask: Mask) -> float:
    """Count the pixels of a mask."""
    return float(rle.area(mask))


def transpose_mask(mask: Mask, turn: Image.Transpose) -> Mask:
    """Turn or mirror a mask as an image is turned."""
    pixels = Image.fromarray(rle.decode(mask)).transpose(turn)
    turned: Mask = rle.encode(np.asfortranarray(pixels))
    return turned


def smallest_rectangle(points: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the smallest rectangle around points [k, 2]: centre x, centre y, width, height, angle.

    One of its sides lies along an edge of the points' convex hull, so only directions from one
    point to another are tried.
    """
    first, second = np.triu_indices(len(points), 1)
    steps = points[second] - points[first]
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    along = steps[lengths > 0] / lengths[lengths > 0, None]
    if not len(along):
        return (*map(float, points[0]), 0.0, 0.0, 0.0)
    axes = np.stack([along, np.stack([-along[:, 1], along[:, 0]], 1)], 1)  # [directions, 2, 2]
    placed = np.einsum("dax,kx->dak", axes, points)
    low, high = placed.min(2), placed.max(2)
    best = int((high - low).prod(1).argmin())
    centre = axes[best].T @ (low[best] + high[best]) / 2
    width, height = high[best] - low[best]
    angle = np.arctan2(along[best, 1], along[best, 0])
    return (*map(float, centre), float(width), float(height), float(angle))


def is_quadrilateral(points: NDArray[np.float64]) -> bool:
    """Whether four corners [4, 2] go around an area without crossing it."""
    sides = np.roll(points, -1, 0) - points
    following = np.roll(sides, -1, 0)
    turns = sides[:, 0] * following[:, 1] - sides[:, 1] * following[:, 0]
    return bool((turns > 0).all() or (turns < 0).all())


def say_boxes_only(labels: str, count: int, outlined: int) -> list[str]:
    """Say what becomes of `labels` of which only some are `outlined`, where masks are compared."""
    if outlined == count:
        return []
    if outlined:
        some = f"{count - outlined} of the {count} {labels} are boxes without outlines"
        return [f"{some}: each counts as a mask of its whole box"]
    used = "the boxes of this model are measured on them, and its masks are not"
    return [f"the {labels} are boxes without outlines: {used}"]
