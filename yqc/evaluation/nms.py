"""Suppress overlapping boxes of a class, block by block, with the greedy algorithm's result.

Plain: take the boxes by falling score; keep one unless a kept one of its class overlaps it by more
than the limit. Here a block of candidates is thinned by the boxes kept so far, then by itself:

    keep = all;  repeat  keep[j] = not any(keep[i] and clash[i, j] for i < j)  until nothing changes

The value at j depends on smaller i only, so this has one fixed point, the greedy choice. It ends at
the block in which enough boxes are kept, mostly long before the last candidate.
"""

import numpy as np
from numpy.typing import NDArray

from yqc.evaluation.boxes import Booleans, Floats, Indices

CANDIDATES = 30000
"""Most candidates, the best by score, that enter suppression.

The limit that the YOLO projects use; at 0.001 confidence crowded images come near it, so half of
it would change their mAP, and double costs time only where all are used.
"""
_BLOCK = 256
"""Candidates compared at a time: a matrix of this size squared, 64 kB, fits a core's cache."""


def nms(
    boxes: Floats,
    scores: Floats,
    classes: Indices,
    *,
    iou: float = 0.65,
    top: int = 300,
    candidates: int = CANDIDATES,
) -> Indices:
    """Choose boxes greedily by score, and return their indices by falling score.

    Args:
        boxes: float32 [n, 4], x1 y1 x2 y2.
        scores: float32 [n]; equal ones are taken by rising index.
        classes: [n]; boxes of different classes never suppress each other.
        iou: overlap (intersection over union) above which the lower score goes.
        top: most boxes to keep.
        candidates: most candidates to consider, the best by score.
    """
    labels = classes.astype(np.int32)
    order = falling(scores, candidates)
    kept = order[:0]
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        block = block[~_clash(boxes, labels, kept, block, iou).any(0)]
        within = np.triu(_clash(boxes, labels, block, block, iou), 1)
        kept = np.concatenate([kept, block[_settle(within)]])
        if len(kept) >= top:
            break
    return kept[:top]


def falling(scores: Floats, limit: int) -> Indices:
    """Return the indices of the `limit` highest scores, highest first, ties by rising index."""
    if len(scores) > limit:
        least = np.partition(scores, -limit)[-limit]
        chosen = np.flatnonzero(scores >= least)
        return chosen[np.argsort(-scores[chosen], kind="stable")][:limit]
    return np.argsort(-scores, kind="stable")


def _clash(
    boxes: Floats, classes: NDArray[np.int32], first: Indices, second: Indices, iou: float
) -> Booleans:
    """Return [first, second]: whether two boxes share a class and overlap by more than `iou`."""
    clash: Booleans = classes[first][:, None] == classes[second][None, :]
    pairs = np.flatnonzero(clash)  # Few share a class: only their overlap is computed.
    i, j = np.divmod(pairs.astype(np.int32), max(len(second), 1))
    a, b = boxes.take(first.take(i), 0), boxes.take(second.take(j), 0)
    clash.ravel()[pairs] = _overlap(a, b, iou)  # A view: the comparison above made it contiguous.
    return clash


def _overlap(a: Floats, b: Floats, iou: float) -> Booleans:
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    clash: Booleans = shared > np.maximum(iou * (_area(a) + _area(b) - shared), 0)
    return clash


def _area(boxes: Floats) -> Floats:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _settle(clash: Booleans) -> Booleans:
    keep: Booleans = np.ones(len(clash), np.bool_)
    while True:
        after: Booleans = np.logical_not(clash[keep].any(0))
        if np.array_equal(after, keep):
            return keep
        keep = after
