"""Block-wise suppression against the plain greedy algorithm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from yqc.runtime import falling, nms

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]


def plain(
    boxes: Floats, scores: Floats, classes: Indices, iou: float, top: int, candidates: int
) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i))[:candidates]:
        if not any(classes[k] == classes[i] and overlap(boxes[k], boxes[i], iou) for k in kept):
            kept.append(i)
        if len(kept) == top:
            break
    return kept


def overlap(a: Floats, b: Floats, iou: float) -> np.bool_:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return np.False_
    shared = width * height
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return np.bool_(shared > np.float32(iou) * both)


def draw(seed: int, n: int, nc: int, spread: int) -> tuple[Floats, Floats, Indices]:
    """Boxes on a coarse grid and few different scores, so that there are ties of every kind."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, spread, (n, 2))
    boxes = np.concatenate([corner, corner + rng.integers(0, 12, (n, 2))], 1).astype(np.float32)
    boxes += rng.choice([0, 0.37], (n, 4)).astype(np.float32)
    scores = (rng.integers(1, 60, n) / 64).astype(np.float32)
    return boxes, scores, rng.integers(0, nc, n)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 700),
    nc=st.sampled_from([1, 2, 20]),
    spread=st.sampled_from([1, 9, 60]),
    iou=st.sampled_from([0.0, 0.3, 0.65, 1.0]),
    top=st.sampled_from([1, 30, 300]),
    candidates=st.sampled_from([1, 100, 30000]),
)
def test_chooses_what_the_plain_algorithm_chooses(
    seed: int, n: int, nc: int, spread: int, iou: float, top: int, candidates: int
) -> None:
    boxes, scores, classes = draw(seed, n, nc, spread)
    got = nms(boxes, scores, classes, iou=iou, top=top, candidates=candidates)
    assert got.tolist() == plain(boxes, scores, classes, iou, top, candidates)


@pytest.mark.parametrize("iou", [0.3, 0.65])
def test_chains_settle_as_in_the_plain_algorithm(iou: float) -> None:
    """Each box overlaps the next: one goes, so the one after it stays, and so on."""
    left = np.arange(600, dtype=np.float32) * 2
    boxes = np.stack([left, left * 0, left + 10, left * 0 + 10], 1)
    scores = np.linspace(1, 0.1, 600, dtype=np.float32)
    classes = np.zeros(600, np.intp)
    want = plain(boxes, scores, classes, iou, 300, 600)
    assert 100 < len(want) < 400
    assert nms(boxes, scores, classes, iou=iou).tolist() == want


def test_an_overlap_of_exactly_the_limit_stays() -> None:
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 2]], np.float32)
    scores, classes = np.array([0.9, 0.8], np.float32), np.zeros(2, np.intp)
    assert nms(boxes, scores, classes, iou=0.5).tolist() == [0, 1]
    assert nms(boxes, scores, classes, iou=0.499).tolist() == [0]


def test_falling_takes_ties_by_index() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.9, 0.5, 0.1], np.float32)
    assert falling(scores, 9).tolist() == [1, 3, 0, 2, 4, 5]
    assert falling(scores, 3).tolist() == [1, 3, 0]
