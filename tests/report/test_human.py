"""Numbers as a person reads them, at the edges where rounding changes the unit."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yqc.report import human


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (94_321, "94.3 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (3_744_314, "3.7 MB"),
        (143_200_000, "143 MB"),
        (2 * 10**15, "2000 TB"),
    ],
)
def test_sizes(count: int | None, shown: str) -> None:
    assert human.byte_count(count) == shown


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (12_100_000, 7_900_000, "12.1 -> 7.9 MB"),
        (7_910_000, 7_900_000, "7.9 MB"),
        (1_200_000, 940_000, "1.2 -> 0.94 MB"),
        (940_000, 1_200_000, "0.94 -> 1.2 MB"),
        (7_900_000, None, "7.9 MB"),
        (None, 7_900_000, "7.9 MB"),
        (None, None, "-"),
        (5_000_000, 0, "5.0 -> 0 MB"),
    ],
)
def test_changes_of_size(before: int | None, after: int | None, shown: str) -> None:
    assert human.size_change(before, after) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "-"),
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (9_996, "10.0 k"),
        (1_872_157, "1.87 M"),
        (99_960_000, "100 M"),
        (999_600_000, "1.00 G"),
        (22_530_000_000, "22.5 G"),
    ],
)
def test_amounts(count: int | None, shown: str) -> None:
    assert human.amount(count) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0.0, "0"),
        (3e-6, "3e-06"),
        (0.414, "0.41"),
        (9.96, "10"),
        (12.4, "12"),
        (341.0, "341"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_errors(value: float | None, shown: str) -> None:
    assert human.magnitude(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.33771, "0.3377"), (-0.00252, "-0.0025"), (-1e-9, "0.0000"), (0.0, "0.0000")],
)
def test_fractions(value: float | None, shown: str) -> None:
    assert human.fraction(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (3.927, "3.93x"), (9.996, "10.0x"), (52.41, "52.4x"), (99.96, "100x")],
)
def test_ratios(value: float | None, shown: str) -> None:
    assert human.times(value) == shown


@pytest.mark.parametrize(
    ("seconds", "running", "over"),
    [
        (0.04, "0:00", "0.0 s"),
        (9.96, "0:10", "10 s"),
        (59.6, "1:00", "1 min 00 s"),
        (760.0, "12:40", "12 min 40 s"),
        (3760.0, "1:02:40", "1 h 02 min"),
    ],
)
def test_times(seconds: float, running: str, over: str) -> None:
    assert human.clock(seconds) == running
    assert human.duration(seconds) == over


@given(text=st.text())
def test_a_pipeline_is_split_without_losing_a_letter(text: str) -> None:
    assert "".join(human.pipeline_steps(text)) == text


def test_a_pipeline_is_split_between_passes_only() -> None:
    text = "prune{keep=a,b},fold-bn,int8{x=1},"
    assert human.pipeline_steps(text) == ["prune{keep=a,b},", "fold-bn,", "int8{x=1},"]
