"""Small pictures of distributions: where bars, ends and numbers are."""

from dataclasses import replace

import pytest

from yqc.report.histogram import HEIGHT, LEFT, RIGHT, TOP, lay_out_histogram, short
from yqc.report.page import ValueHistogram

SPREAD = ValueHistogram(
    layer="a",
    what="weights",
    bits=8,
    edges=(-2.0, -1.0, 0.0, 1.0, 2.0),
    counts=(9, 0, 99, 1),
    low=-2.0,
    high=1.0,
)


def test_bars_rise_with_the_logarithm_of_their_counts() -> None:
    made = lay_out_histogram(SPREAD)
    assert made.title == "a, weights, 8 bits"
    assert [bar.tip for bar in made.bars] == [
        "-2 to -1: 9 values",
        "0 to 1: 99 values",
        "1 to 2: 1 values",
    ]
    quarter = (RIGHT - LEFT) / 4
    assert [bar.x for bar in made.bars] == [LEFT, LEFT + 2 * quarter, LEFT + 3 * quarter]
    assert {bar.width for bar in made.bars} == {quarter}
    heights = [bar.height for bar in made.bars]
    assert heights[1] == made.floor - TOP == pytest.approx(2 * heights[0])
    assert all(bar.y + bar.height == pytest.approx(made.floor) for bar in made.bars)
    assert made.floor < HEIGHT


def test_the_range_and_the_numbers_are_where_they_belong() -> None:
    made = lay_out_histogram(SPREAD)
    assert made.range == (LEFT, LEFT + (RIGHT - LEFT) * 3 / 4)
    assert [(m.text, m.at) for m in made.values] == [
        ("-2", LEFT),
        ("0", (LEFT + RIGHT) / 2),
        ("2", RIGHT),
    ]
    assert [m.text for m in made.counts] == ["1", "10"]
    assert made.counts[0].at > made.counts[1].at
    wide = lay_out_histogram(replace(SPREAD, low=-6.0, high=0.1))
    assert wide.range[0] == LEFT
    assert [
        m.text for m in lay_out_histogram(replace(SPREAD, edges=(0.0, 1.0, 2.0, 3.0, 4.0))).values
    ] == [
        "-2",
        "0",
        "4",
    ]


def test_nothing_and_one_value_can_be_drawn() -> None:
    assert lay_out_histogram(replace(SPREAD, counts=(0, 0, 0, 0))).bars == ()
    assert [short(10**i) for i in (2, 3, 5, 6)] == ["100", "1k", "100k", "1M"]
    flat = replace(SPREAD, edges=(0.0, 0.0), counts=(3,), low=0.0, high=0.0)
    assert [bar.x for bar in lay_out_histogram(flat).bars] == [LEFT]
