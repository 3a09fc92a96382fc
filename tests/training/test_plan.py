"""How long training takes, and how fast it learns."""

import pytest

from yqc.errors import PipelineError
from yqc.training.plan import MOVED, STEADY, WARMUP, Plan


def test_steps_go_before_epochs_and_a_time_is_not_counted() -> None:
    assert Plan(steps=7, epochs=3).count_steps(100) == 7
    assert Plan(epochs=1.5, batch=10).count_steps(95) == 15
    assert Plan(epochs=0.001).count_steps(4) == 1
    assert Plan(seconds=60).count_steps(100) is None


def test_the_rate_rises_and_falls_along_a_cosine() -> None:
    plan = Plan(lr=0.1)
    rates = [plan.rate_at(step, 220) for step in range(221)]
    assert rates[0] == pytest.approx(0.1 / WARMUP)
    assert max(rates) == rates[WARMUP] == pytest.approx(0.1)
    assert rates[WARMUP + 100] == pytest.approx(0.1 * 0.505)
    assert rates[220] == pytest.approx(0.001)
    assert rates[WARMUP:] == sorted(rates[WARMUP:], reverse=True)


def test_the_rate_of_the_timed_steps_does_not_depend_on_how_many_follow() -> None:
    plan = Plan()
    for step in range(WARMUP):
        assert plan.rate_at(step, None) == plan.rate_at(step, 30) == plan.rate_at(step, 3000)


def test_the_rate_follows_from_what_a_step_does() -> None:
    plan = Plan()
    assert plan.choose_rate(MOVED, 1e-5) == pytest.approx(STEADY * 1e-5)
    assert plan.choose_rate(0.01, 1e-5) == pytest.approx(STEADY * 1e-5)
    assert plan.choose_rate(9 * MOVED, 1e-5) == pytest.approx(3 * STEADY * 1e-5)
    assert plan.choose_rate(0.1, 1.0) == plan.choose_rate(float("nan")) == 1e-3
    assert plan.choose_rate(0.1, 0.0) == pytest.approx(5e-6)
    assert Plan(lr=0.2).choose_rate(0.0, 1e-5) == 0.2
    assert Plan(bn_l1=0.1).choose_rate(0.0, 1e-5) == 1e-3


def test_without_a_step_the_rate_follows_the_damage() -> None:
    plan = Plan(optimizer="sgd")
    assert plan.choose_rate(4.0) == plan.choose_rate(400.0) == 1e-3
    assert plan.choose_rate(1.0) == pytest.approx(0.5e-3)


def test_statistics_freeze_in_the_second_half_or_where_little_is_damaged() -> None:
    far, close = Plan().adapted(3.0), Plan().adapted(1.0)
    assert [far.freezes_bn_at(step, 100) for step in (0, 49, 50, 99)] == [False, False, True, True]
    assert [far.freezes_bn_at(step, 10) for step in (0, 9)] == [False, False]
    assert not far.freezes_bn_at(0, None)
    assert close.freezes_bn_at(0, None)
    assert not Plan(bn_l1=0.1).adapted(0.0).freezes_bn_at(0, 100)
    assert not Plan(freeze_bn=False).adapted(0.0).freezes_bn_at(99, 100)
    assert Plan(freeze_bn=True).adapted(9.0).freezes_bn_at(0, 100)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": 0.0}, "lr must be above 0, not 0"),
        ({"lr": float("nan")}, "lr must be above 0, not nan"),
        ({"batch": -1}, "batch must be above 0, not -1"),
        ({"seconds": 0.0}, "seconds must be above 0, not 0"),
        ({"bn_l1": -1.0}, "bn_l1 must be 0 or above, not -1"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        Plan(**wrong)  # type: ignore[arg-type]
