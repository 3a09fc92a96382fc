"""Label the objects of drawn pictures for every task, from the pixels that each of them covers.

Points are on the grid of pixel corners: a pixel at column x and row y reaches from (x, y) to
(x + 1, y + 1).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from yqc.data.scenes import SIZE, Scene

KEYPOINTS = 4
"""The uppermost, rightmost, lowest and leftmost point of an object, in this order."""
MIRRORED = [0, 3, 2, 1]
"""Which keypoint each becomes in a picture that is mirrored left to right."""
MARGIN = 8
"""A crop is the square around an object whose side is an eighth longer than that of its box: half
of it cuts tips off where the box is square, double shows more of the neighbours."""

ROUNDING = 1e-9
"""Pixels by which a corner on the edge of the picture may lie outside it, by rounding alone."""

Points = NDArray[np.float64]
Pixels = NDArray[np.bool_]


def trace_outline(mask: Pixels) -> Points:
    """Return the outline [k, 2] of the pixels of a mask [h, w], from corner to corner.

    Holes and further parts are joined to the outline by lines that are walked in both directions,
    so that a fill by the even-odd rule gives the mask.
    """
    whole, *others = sorted(_find_loops(mask), key=len, reverse=True)
    while others:
        apart = [np.abs(whole[:, None] - loop[None]).sum(-1) for loop in others]
        nearest = int(np.argmin([distances.min() for distances in apart]))
        i, j = np.unravel_index(apart[nearest].argmin(), apart[nearest].shape)
        loop = others.pop(nearest)
        detour = np.concatenate((loop[j:], loop[: j + 1]))
        whole = np.concatenate((whole[: i + 1], detour, whole[i:]))
    return whole


def _find_loops(mask: Pixels) -> list[Points]:
    """Return the closed lines between the mask and the rest, as corners [k, 2], inside at right."""
    inside = np.pad(mask, 1)
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # The sides of a pixel, clockwise: the neighbour behind the side, where it begins, where to.
    for side, start, step in (
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (0, 1)),
        ((1, 0), (1, 1), (-1, 0)),
        ((0, -1), (0, 1), (0, -1)),
    ):
        edge = mask & ~np.roll(inside, (-side[0], -side[1]), (0, 1))[1:-1, 1:-1]
        for y, x in np.argwhere(edge).tolist():
            steps.setdefault((x + start[0], y + start[1]), []).append(step)
    loops = []
    while steps:
        place, step, corners = next(iter(steps)), (0, 0), list[tuple[int, int]]()
        while place in steps:
            ways = steps[place]
            way = ways.pop()
            if not ways:
                del steps[place]
            if way != step:
                corners.append(place)
            place, step = (place[0] + way[0], place[1] + way[1]), way
        loops.append(np.array(corners, np.float64))
    return loops


def extreme_points(mask: Pixels) -> Points:
    """Return the points [4, 2] at the ends of a mask: top, right, bottom, left.

    Where several pixels of a row or column are at an end it is the middle one.
    """
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1], columns[0], columns[-1]
    upper, lower = (_middle(mask[row]) for row in (top, bottom))
    first, last = (_middle(mask[:, column]) for column in (left, right))
    return np.array([(upper, top), (right + 1, last), (lower, bottom + 1), (left, first)], float)


def _middle(line: Pixels) -> float:
    found = np.flatnonzero(line)
    return float(found[len(found) // 2]) + 0.5


def tight_corners(mask: Pixels) -> Points:
    """Return the corners [4, 2] of the smallest rectangle around a mask that lies in the picture.

    It has a side along an edge of the mask's convex hull, or is upright.
    """
    hull = _hull(_row_ends(mask))
    edges = np.concatenate((np.roll(hull, -1, 0) - hull, [(1.0, 0.0)]))
    along = edges / np.hypot(edges[:, 0], edges[:, 1])[:, None]
    axes = np.stack((along, np.stack((-along[:, 1], along[:, 0]), 1)), 1)  # [edges, 2, 2]
    placed = np.einsum("eax,kx->eak", axes, hull)
    low, high = placed.min(2), placed.max(2)
    ends = np.stack((low, np.stack((high[:, 0], low[:, 1]), 1), high), 1)
    ends = np.concatenate((ends, np.stack((low[:, 0], high[:, 1]), 1)[:, None]), 1)
    corners = np.einsum("eax,eka->ekx", axes, ends)
    limit = np.array(mask.shape[::-1]) + ROUNDING
    inside = np.logical_and(corners >= -ROUNDING, corners <= limit).all((1, 2))
    found: Points = corners[np.where(inside, (high - low).prod(1), np.inf).argmin()]
    return found


def _row_ends(mask: Pixels) -> Points:
    """Return the outer corners of the first and last pixel of each row, [k, 2]."""
    rows = np.flatnonzero(mask.any(1))
    first = mask[rows].argmax(1)
    last = mask.shape[1] - mask[rows, ::-1].argmax(1)
    return np.concatenate(
        [np.stack((ends, rows + down), 1) for ends in (first, last) for down in (0, 1)]
    ).astype(np.float64)


def _hull(points: Points) -> Points:
    """Return the corners of the convex hull of points [k, 2] (Andrew 1979, monotone chain)."""
    order = sorted(set(map(tuple, points.tolist())))
    chains = []
    for run in (order, order[::-1]):
        chain: list[tuple[float, ...]] = []
        for point in run:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
                chain.pop()
            chain.append(point)
        chains += chain[:-1]
    return np.array(chains)


def _turn(a: tuple[float, ...], b: tuple[float, ...], c: tuple[float, ...]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def write_boxes(scene: Scene) -> str:
    """Return the YOLO label lines of a scene: class, centre and size relative to the picture."""
    return "".join(
        f"{kind} {(x0 + x1) / (2 * SIZE):.6f} {(y0 + y1) / (2 * SIZE):.6f} "
        f"{(x1 - x0) / SIZE:.6f} {(y1 - y0) / SIZE:.6f}\n"
        for kind, (x0, y0, x1, y1) in zip(scene.classes, scene.boxes, strict=True)
    )


def write_outlines(scene: Scene) -> str:
    """Return label lines of class and outline, which gives exactly the pixels of the object."""
    return _write_points(scene, trace_outline)


def write_corners(scene: Scene) -> str:
    """Return label lines of class and four corners of a turned rectangle."""
    return _write_points(scene, tight_corners)


def _write_points(scene: Scene, points_of: Callable[[Pixels], Points]) -> str:
    lines = []
    for number, kind in enumerate(scene.classes):
        points = points_of(scene.owner == number) / SIZE
        lines.append(f"{kind} {' '.join(f'{v:.6g}' for v in points.ravel().tolist())}\n")
    return "".join(lines)


def write_keypoints(scene: Scene) -> str:
    """Return the lines of `write_boxes`, each followed by x and y of the extreme points."""
    lines = []
    for number, line in enumerate(write_boxes(scene).splitlines()):
        points = extreme_points(scene.owner == number) / SIZE
        lines.append(f"{line} {' '.join(f'{v:.6f}' for v in points.ravel().tolist())}\n")
    return "".join(lines)


def cut_crops(scene: Scene) -> list[NDArray[np.uint8]]:
    """Return the square part of the picture around each object, uint8 [side, side, 3], RGB.

    It is moved into the picture where it would reach beyond the edge.
    """
    crops = []
    for x0, y0, x1, y1 in scene.boxes.tolist():
        longest = max(x1 - x0, y1 - y0)
        side = min(longest + longest // MARGIN, SIZE)
        left, top = (min(max((a + b - side) // 2, 0), SIZE - side) for a, b in ((x0, x1), (y0, y1)))
        crops.append(scene.pixels[top : top + side, left : left + side])
    return crops
