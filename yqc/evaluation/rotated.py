"""Overlap and suppression of oriented boxes: centre x, centre y, width, height, angle in radians.

The overlap is ProbIoU (Llerena et al. 2021, arXiv 2106.06072): a box stands for the Gaussian with
its mean and covariance, and two boxes overlap by one minus the Hellinger distance of theirs,

    B = d^T S^-1 d / 8 + ln(det S / sqrt(det A det B)) / 2,   S = (A + B) / 2
    overlap = 1 - sqrt(1 - exp(-B))

where A and B are the covariances and d is the difference of the means.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yqc.evaluation.boxes import Floats, Indices
from yqc.evaluation.nms import CANDIDATES, falling

Doubles = NDArray[np.float64]

_BLOCK = 256
"""Candidates that are compared with all better ones at a time: 30000 by 256 pairs take 60 MB an
array; half of it takes more steps, double more memory."""
_LEAST = 1e-9
"""Smallest determinant, so that a box without area does not divide by zero."""
_FARTHEST = 100.0
"""Largest Bhattacharyya distance: exp(-100) is 0 beside 1."""


class Gaussians(NamedTuple):
    """The Gaussians of boxes: their means, covariances and determinants, [n] each."""

    x: Doubles
    y: Doubles
    xx: Doubles
    yy: Doubles
    xy: Doubles
    determinant: Doubles

    @classmethod
    def of(cls, boxes: Doubles) -> "Gaussians":
        """Take those of boxes [n, 5]; the variance of a uniform side of length s is s^2 / 12."""
        x, y, width, height, angle = boxes.T
        along, across = width**2 / 12, height**2 / 12
        cos, sin = np.cos(angle), np.sin(angle)
        return cls(
            x,
            y,
            along * cos**2 + across * sin**2,
            along * sin**2 + across * cos**2,
            (along - across) * cos * sin,
            along * across,
        )

    def at(self, index: Indices | tuple[slice | None, ...]) -> "Gaussians":
        """Return those at some indices."""
        return Gaussians(*(values[index] for values in self))


def overlap(a: Gaussians, b: Gaussians) -> Doubles:
    """Return the overlap of two arrays of boxes, 0 to 1, broadcast against each other."""
    xx, yy, xy = ((p + q) / 2 for p, q in ((a.xx, b.xx), (a.yy, b.yy), (a.xy, b.xy)))
    dx, dy = a.x - b.x, a.y - b.y
    determinant = np.maximum(xx * yy - xy**2, _LEAST)
    shift = (yy * dx**2 + xx * dy**2 - 2 * xy * dx * dy) / determinant / 8
    own = np.sqrt(np.maximum(a.determinant * b.determinant, _LEAST**2))
    distance = np.clip(shift + np.log(determinant / own) / 2, 0, _FARTHEST)
    return np.asarray(1 - np.sqrt(1 - np.exp(-distance)))


def overlaps(first: Doubles, second: Doubles) -> Doubles:
    """Return the overlap of each box of [n, 5] with each of [m, 5], as [n, m]."""
    rows, columns = (slice(None), None), (None, slice(None))
    return overlap(Gaussians.of(first).at(rows), Gaussians.of(second).at(columns))


def fast_nms(
    boxes: Doubles,
    scores: Floats,
    classes: Indices,
    *,
    iou: float = 0.7,
    top: int = 300,
    candidates: int = CANDIDATES,
) -> Indices:
    """Choose oriented boxes by score, and return their indices by falling score.

    A box goes if a better one of its class overlaps it by more than `iou`, also if that one goes
    itself (Fast NMS, Bolya et al. 2019), as YOLO's own tools do with oriented boxes.

    Args:
        boxes: float64 [n, 5].
        scores: float32 [n]; equal ones are taken by rising index.
        classes: [n]; boxes of different classes never suppress each other.
        iou: overlap above which the lower score goes.
        top: most boxes to keep.
        candidates: most candidates to consider, the best by score.
    """
    order = falling(scores, candidates)
    gaussians, labels, place = Gaussians.of(boxes[order]), classes[order], np.arange(len(order))
    kept = order[:0]
    for start in range(0, len(order), _BLOCK):
        block = place[start : start + _BLOCK]
        better = place[: start + len(block)]
        rival = (labels[better, None] == labels[block]) & (better[:, None] < block)
        i, j = np.nonzero(rival)
        clash = overlap(gaussians.at(better[i]), gaussians.at(block[j])) > iou
        gone = np.bincount(j[clash], minlength=len(block)) > 0
        kept = np.concatenate([kept, order[block[~gone]]])
        if len(kept) >= top:
            break
    return kept[:top]


def corners_of(boxes: Doubles) -> Doubles:
    """Return the corners of boxes [n, 5] in turn: [n, 4, 2]."""
    x, y, width, height, angle = (column[:, None] for column in boxes.T)
    u = width / 2 * np.array([-1, 1, 1, -1])
    v = height / 2 * np.array([-1, -1, 1, 1])
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([x + u * cos - v * sin, y + u * sin + v * cos], -1)
