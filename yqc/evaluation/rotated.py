"""Overlap and corners of oriented boxes: centre x and y, width, height, angle in radians."""

import numpy as np

from yqc.runtime import Doubles, Gaussians, overlap


def overlaps(first: Doubles, second: Doubles) -> Doubles:
    """Return the overlap of each box of [n, 5] with each of [m, 5], as [n, m]."""
    rows, columns = (slice(None), None), (None, slice(None))
    return overlap(Gaussians.of(first).at(rows), Gaussians.of(second).at(columns))


def corners_of(boxes: Doubles) -> Doubles:
    """Return the corners of boxes [n, 5] in turn: [n, 4, 2]."""
    x, y, width, height, angle = (column[:, None] for column in boxes.T)
    u = width / 2 * np.array([-1, 1, 1, -1])
    v = height / 2 * np.array([-1, -1, 1, 1])
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([x + u * cos - v * sin, y + u * sin + v * cos], -1)
