"""The time left: from what stages should take, from what they took, and from the one that runs."""

import pytest

from yqc.progress import Stage
from yqc.report.estimate import Estimate


class Clock:
    """A clock that a test moves."""

    time = 50.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def estimate(clock: Clock) -> Estimate:
    return Estimate(clock)


def test_nothing_is_known_before_work_begins(estimate: Estimate) -> None:
    assert estimate.left() is None
    assert estimate.running is None
    assert estimate.share() == 0


def test_a_task_alone_is_extrapolated(estimate: Estimate, clock: Clock) -> None:
    with estimate.task("evaluating", 10) as advance:
        assert estimate.left() is None
        clock.time += 6
        advance(3)
        assert estimate.left() == pytest.approx(14)
        assert estimate.share() == pytest.approx(0.3)
        with estimate.task("within", 0):
            assert estimate.left() is None, "tasks within it may be of any length"


def test_a_slower_machine_is_slower_at_all_that_comes(estimate: Estimate, clock: Clock) -> None:
    with estimate.task("compiling", 0):
        estimate.expect([Stage("a", 99), Stage("b", 50), Stage("rest", 10, fixed=True)])
        assert estimate.left() == pytest.approx(159)
        with estimate.task("a", 0):
            clock.time += 299  # three times as long as foreseen
        assert estimate.left() == pytest.approx(3 * 50 + 10)


def test_what_was_done_before_counts_for_the_pace(estimate: Estimate, clock: Clock) -> None:
    clock.time += 9
    with estimate.task("compiling", 0):
        estimate.expect([Stage("a", 20)], past=4)
        assert estimate.left() == pytest.approx(20 * 2)


def test_the_stage_that_runs_is_measured(estimate: Estimate, clock: Clock) -> None:
    with estimate.task("compiling", 0):
        estimate.expect([Stage("a", 10), Stage("b", 10)])
        with estimate.task("a", 100) as advance:
            clock.time += 20
            advance(50)
            left = estimate.left()
            assert left is not None
            assert left > 20 + 30, "another 20 s of it, and the next one is slow, too"
            assert left < 20 + 40
        with estimate.task("b", 0):
            clock.time += 100
            assert estimate.left() == 0, "it takes longer than foreseen, and that is all there is"


def test_a_stage_that_does_not_come_is_passed_over(estimate: Estimate, clock: Clock) -> None:
    with estimate.task("compiling", 0):
        estimate.expect([Stage("a", 10), Stage("kept", 1000), Stage("b", 10), Stage("c", 5)])
        with estimate.task("a", 0):
            clock.time += 10
        with estimate.task("b", 0):
            assert estimate.left() == pytest.approx(15)


def test_work_within_a_foreseen_stage_foresees_nothing_else(
    estimate: Estimate, clock: Clock
) -> None:
    with estimate.task("searching", 0):
        estimate.expect([Stage("trials", 60, fixed=True), Stage("front", 20, fixed=True)])
        with estimate.task("trials", 0):
            clock.time += 12
            estimate.expect([Stage("calibrate", 1)])
            assert estimate.left() == pytest.approx(48 + 20)


def test_a_time_that_was_asked_for_is_no_measure_of_the_machine(
    estimate: Estimate, clock: Clock
) -> None:
    with estimate.task("compiling", 0):
        estimate.expect([Stage("train", 300, fixed=True), Stage("b", 10)])
        with estimate.task("train", 100) as advance:
            clock.time += 60
            assert estimate.left() == pytest.approx(240 + 10)
            advance(40)
            assert estimate.left() == pytest.approx(90 + 10), "it goes faster than that"
        assert estimate.left() == pytest.approx(10)


def test_tasks_of_the_same_name_elsewhere_are_other_ones(estimate: Estimate, clock: Clock) -> None:
    with estimate.task("compiling", 0), estimate.task("passes", 2):
        estimate.expect([Stage("prune", 0), Stage("prune/fit", 8), Stage("fit", 100)])
        with estimate.task("prune", 0), estimate.task("fit", 0):
            clock.time += 8
        assert estimate.left() == pytest.approx(100)


def test_amounts_of_work_are_shown_as_a_share(estimate: Estimate) -> None:
    with estimate.task("rounding", 40_000) as advance:
        advance(10_000)
        assert estimate.running is not None
        assert estimate.running.describe() == "rounding 25%"
