"""Overlap of oriented boxes, against values computed by hand and what must hold for any."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yqc.evaluation.rotated import corners_of, overlaps

Box = tuple[float, float, float, float, float]

sides = st.floats(1, 200)
places = st.floats(-500, 500)
angles = st.floats(-math.pi, math.pi)
boxes = st.tuples(places, places, sides, sides, angles)


def overlap(a: Box, b: Box) -> float:
    return float(overlaps(np.array([a]), np.array([b]))[0, 0])


def by_matrices(a: Box, b: Box) -> float:
    """The same by the formula of the paper, matrix by matrix."""

    def gaussian(box: Box) -> tuple[Any, Any]:
        x, y, w, h, angle = box
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        return np.array([x, y]), turn @ np.diag([w * w / 12, h * h / 12]) @ turn.T

    (p, first), (q, second) = gaussian(a), gaussian(b)
    mean, d = (first + second) / 2, p - q
    det = np.linalg.det
    distance = d @ np.linalg.inv(mean) @ d / 8
    distance += math.log(det(mean) / math.sqrt(det(first) * det(second))) / 2
    return 1 - math.sqrt(1 - math.exp(-max(distance, 0.0)))


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        # The same box: distance 0.
        ((5, 5, 4, 2, 0.3), (5, 5, 4, 2, 0.3), 1.0),
        # Squares of side s, shifted by s: d^2 / (8 s^2 / 12) = 1.5.
        ((0, 0, 6, 6, 0), (6, 0, 6, 6, 0), 1 - math.sqrt(1 - math.exp(-1.5))),
        # Squares of sides 1 and 2, variances v and 4 v: ln(2.5^2 / 4) / 2, and exp(-that) is 0.8.
        ((0, 0, 1, 1, 0), (0, 0, 2, 2, 0), 1 - math.sqrt(0.2)),
        # 4 x 2 and 2 x 4: variances (4 v, v) and (v, 4 v), so the same.
        ((0, 0, 4, 2, 0), (0, 0, 2, 4, 0), 1 - math.sqrt(0.2)),
        # Nothing in common.
        ((0, 0, 2, 2, 0), (1000, 0, 2, 2, 0), 0.0),
    ],
)
def test_values_by_hand(a: Box, b: Box, want: float) -> None:
    assert overlap(a, b) == pytest.approx(want, abs=1e-6)


@given(boxes, boxes)
def test_it_is_the_formula_of_the_paper_and_symmetric(a: Box, b: Box) -> None:
    assert overlap(a, b) == pytest.approx(by_matrices(a, b), abs=1e-5)
    assert overlap(a, b) == pytest.approx(overlap(b, a), abs=1e-9)
    assert 0 <= overlap(a, b) <= 1


@given(boxes)
def test_a_box_is_the_same_turned_by_half_or_with_its_sides_exchanged(a: Box) -> None:
    x, y, w, h, angle = a
    assert overlap(a, (x, y, w, h, angle + math.pi)) == pytest.approx(1, abs=1e-5)
    assert overlap(a, (x, y, h, w, angle + math.pi / 2)) == pytest.approx(1, abs=1e-5)


@given(boxes, boxes, angles, places, st.floats(0.5, 4))
def test_moving_turning_and_scaling_both_changes_nothing(
    a: Box, b: Box, turn: float, shift: float, scale: float
) -> None:
    cos, sin = math.cos(turn), math.sin(turn)

    def move(box: Box) -> Box:
        x, y, w, h, angle = box
        at = (x * cos - y * sin) * scale + shift, (x * sin + y * cos) * scale - shift
        return (*at, w * scale, h * scale, angle + turn)

    assert overlap(move(a), move(b)) == pytest.approx(overlap(a, b), abs=1e-5)


@given(st.lists(boxes, max_size=4), st.lists(boxes, max_size=3))
def test_every_box_is_compared_with_every_other(first: list[Box], second: list[Box]) -> None:
    found = overlaps(*(np.array(one).reshape(-1, 5) for one in (first, second)))
    assert found.shape == (len(first), len(second))
    want = [[overlap(a, b) for b in second] for a in first]
    np.testing.assert_allclose(found, np.reshape(want, found.shape), atol=1e-12)


@given(boxes)
def test_corners_lie_at_half_the_sides(a: Box) -> None:
    x, y, w, h, angle = a
    corners = corners_of(np.array([a]))[0]
    np.testing.assert_allclose(corners.mean(0), (x, y), atol=1e-9)
    edges = np.roll(corners, -1, 0) - corners
    np.testing.assert_allclose(np.hypot(*edges.T), [w, h, w, h], atol=1e-9)
    assert math.sin(math.atan2(edges[0, 1], edges[0, 0]) - angle) == pytest.approx(0, abs=1e-9)


def test_boxes_without_area_overlap_nothing_but_stay_numbers() -> None:
    flat = np.array([[0.0, 0, 0, 0, 0], [0, 0, 10, 0, 0.5]])
    assert np.isfinite(overlaps(flat, flat)).all()
