"""Drawings of bytes against a value: their marks are round numbers."""

import math

import pytest

from yqc.report.scatter import Axes, Point, choose_sizes


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [
        (190_000, 6_100_000, [200_000, 500_000, 1_000_000, 2_000_000, 5_000_000]),
        (1_000, 2_000, [1_000, 2_000]),
        (300_000, 450_000, [300_000, 450_000]),  # no two round ones between
    ],
)
def test_sizes_are_round_where_two_fit(low: int, high: int, marks: list[int]) -> None:
    assert choose_sizes(math.log10(low) - 1e-9, math.log10(high) + 1e-9) == marks


def test_marks_of_values_are_round() -> None:
    points = [Point(count, value, (value, value), "point", "", "") for count, value in POINTS]
    drawn = "".join(Axes.around(points, (), lambda value: f"{value:g}").draw())
    assert [f">{mark}<" in drawn for mark in ("0", "0.01", "0.02", "0.015")] == [True] * 3 + [False]


POINTS = [(1000, -0.003), (9000, 0.027)]
