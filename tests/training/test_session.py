"""Arithmetic and learning rate follow from the processor, and from how much there is to learn."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

from yqc.training.heads import head_taps
from yqc.training.plan import RATE, STEADY, Plan
from yqc.training.session import ROUNDING, Arithmetic, Session, learning_rate_share, make_optimizer
from yqc.training.student import Student
from yqc.training.teacher import Teacher

Graph = Callable[..., fx.GraphModule]


@pytest.mark.parametrize(
    ("device", "amx", "far", "quantized", "half"),
    [
        ("cpu", True, 1.0, False, True),
        ("cpu", False, 1.0, False, False),
        ("cpu", True, 1.0, True, False),
        ("cpu", True, ROUNDING / 2, False, False),
        ("cuda:0", False, 1.0, False, True),
        ("cuda:0", False, ROUNDING / 2, False, False),
    ],
)
def test_bfloat16_where_it_is_fast_and_its_rounding_small(
    device: str, amx: bool, far: float, quantized: bool, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert Arithmetic.choose(device, far, quantized=quantized) == Arithmetic(device, half)


def session(graph: Graph, **options: Any) -> Session:
    taps = head_taps(graph())
    student = Student(graph(0.1), taps, "cpu")
    return Session(student, Teacher.of(graph(), taps, ["images"], "cpu"), taps, Plan(**options))


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), np.uint8)


def test_the_rate_is_where_a_step_moves_the_outputs_as_far(graph: Graph) -> None:
    train = session(graph)
    before = {k: v.clone() for k, v in train.student.state.items()}
    rates = [train.find_moving_rate(far, IMAGES) for far in (1e-10, 1e-8, 1e-7, 1e6)]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]
    assert rates[-1] == RATE / STEADY
    assert all(torch.equal(before[k], v) for k, v in train.student.state.items())
    assert all(p.grad is None for p in train.parameters.values())


def test_a_rate_that_is_asked_is_kept_and_nothing_tried(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Session, "find_moving_rate")
    for options in ({"lr": 0.5}, {"optimizer": "sgd"}, {"bn_l1": 0.1}):
        train = session(graph, **options)
        train.adapt(0.2, IMAGES)
        assert train.plan.lr == options.get("lr", train.plan.choose_rate(0.2))


def test_wide_layers_get_less_of_the_rate_with_adamw() -> None:
    wide, narrow, scale = torch.zeros(4, 64, 4, 4), torch.zeros(64, 4, 4, 4), torch.zeros(999)
    assert [learning_rate_share(w, Plan()) for w in (wide, narrow, scale)] == [0.25, 1, 1]
    assert learning_rate_share(wide, Plan(optimizer="sgd")) == 1
    optimizer = make_optimizer({"a": nn.Parameter(wide), "b": nn.Parameter(scale)}, Plan())
    assert [(g["share"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (0.25, Plan().decay),
        (1, 0),
    ]
