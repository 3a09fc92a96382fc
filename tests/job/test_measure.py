"""What a compile says of an accuracy that means that data and model do not fit."""

import pytest

from yqc.job.measure import doubt_zero


@pytest.mark.parametrize("score", [None, 0.001, 0.5])
def test_a_plausible_accuracy_is_not_doubted(score: float | None) -> None:
    assert doubt_zero("float model", score) == ()


@pytest.mark.parametrize("score", [0.0, 0.0009])
def test_an_accuracy_of_zero_is(score: float) -> None:
    (said,) = doubt_zero("float model", score)
    assert said.startswith(f"the float model finds nothing that is labelled (mAP {score:.4f})")
    assert "--imgsz" in said
