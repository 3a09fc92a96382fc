"""What a compile says of an accuracy that means that data and model do not fit."""

from types import SimpleNamespace
from typing import Any

import pytest

from yqc.job.measure import doubt_zero


def scored(score: float | None, main: str = "map") -> Any:
    return SimpleNamespace(main_figure=score, main=main)


def test_no_accuracy_has_its_reason() -> None:
    (said,) = doubt_zero("float model", scored(None))
    assert said.startswith("nothing that this model finds is labelled in the images")


@pytest.mark.parametrize("score", [0.001, 0.5])
def test_a_plausible_accuracy_is_not_doubted(score: float) -> None:
    assert doubt_zero("float model", scored(score)) == ()


@pytest.mark.parametrize("score", [0.0, 0.0009])
def test_an_accuracy_of_zero_is(score: float) -> None:
    (said,) = doubt_zero("float model", scored(score))
    assert said.startswith(f"the float model finds nothing that is labelled (mAP {score:.4f})")
    assert "--imgsz" in said


def test_a_classifier_that_hits_nothing_is_doubted_too() -> None:
    (said,) = doubt_zero("float model", scored(0.0, "top1"))
    assert "finds the labelled class of no image" in said
