"""Outlines of objects: masks in COCO's run-length form, and the rectangles around corners."""

import re
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

_MORE, _SIGN = 32, 16
"""Bits of a group of a compressed run length: another group follows, and the sign."""
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
    """Return the mask of a box, left, top, width, height, in an image of `size` (width, height)."""
    (left, top), (right, below) = (
        np.clip(corner, 0, size).tolist() for corner in (box[:2], np.add(box[:2], box[2:]))
    )
    return draw_polygons([(left, top, right, top, right, below, left, below)], size)


def compress_runs(counts: Sequence[int], size: Sequence[int]) -> Mask:
    """Return a mask of plain run lengths; `size` is height and width."""
    height, width = size
    mask: Mask = rle.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
    return mask


def mask_area(mask: Mask) -> float:
    """Count the pixels of a mask."""
    return float(rle.area(mask))


def read_runs(counts: bytes) -> NDArray[np.int64] | None:
    """Return the run lengths of a compressed text; None if it is damaged.

    Each number is written in groups of five bits, the lowest first, in the characters 0 to o; bit 5
    says that another group follows, bit 4 of the last group is the sign. From the fourth on they
    are differences to the one before the last (COCO's maskApi.c, `rleToString`).
    """
    if not re.fullmatch(rb"([P-o]{0,6}[0-O])+", counts):
        return None
    groups = np.frombuffer(counts, np.uint8).astype(np.int64) - ord("0")
    last = np.flatnonzero(groups < _MORE)
    first = np.concatenate([[0], last[:-1] + 1])
    shifts = 5 * (np.arange(len(groups)) - np.repeat(first, last - first + 1))
    runs = np.add.reduceat((groups % _MORE) << shifts, first)
    runs -= (groups[last] & _SIGN) << (shifts[last] + 1)
    for start in (1, 2):
        runs[start::2] = np.cumsum(runs[start::2])
    return runs


def mask_pixels(mask: Mask) -> NDArray[np.uint8]:
    """Return the pixels of a mask, 0 and 1, [height, width].

    Raises:
        ValueError: its run lengths are damaged, or do not cover that size.
    """
    (height, width), runs = mask["size"], read_runs(mask["counts"])
    if runs is None or runs.min() < 0 or runs.sum() != height * width:
        raise ValueError("the run lengths of a mask are damaged")
    inside = (np.arange(len(runs)) % 2).astype(np.uint8)
    return np.repeat(inside, runs).reshape(width, height).T


def transpose_mask(mask: Mask, turn: Image.Transpose) -> Mask:
    """Turn or mirror a mask as an image is turned."""
    pixels = Image.fromarray(mask_pixels(mask)).transpose(turn)
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
