"""Training behind swapped activations: what is compared, held out, frozen, and when rates fall."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx

from yqc.graph.compare import fingerprint
from yqc.graph.metadata import Swapped
from yqc.training import Plan, distill
from yqc.training.distill import _hold_out, _plan_swapped
from yqc.training.heads import Tap, head_taps, hint_taps
from yqc.training.losses import distance, feature_loss
from yqc.training.plan import SWAPPED
from yqc.training.rate_check import RateCheck
from yqc.training.session import Session
from yqc.training.student import Student
from yqc.training.teacher import Teacher

Make = Callable[[float], fx.GraphModule]
MARK = Swapped("a", "SiLU", "relu", 0.1, 0.1, False, (1, 1, 1), (0, 0, 0), (0, 0, 0))


def swapped(gm: fx.GraphModule) -> fx.GraphModule:
    """Mark both activations, the first as one of block `a`."""
    for node in gm.graph.nodes:
        if node.name in {"relu", "relu_1"}:
            replace(MARK, layer="a" if node.name == "relu" else "b.1.conv").put(node)
    return gm


def test_a_feature_may_be_off_by_a_constant_per_channel() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(2, 3, 4, 4, generator=generator)
    constant = torch.tensor([0.5, -1.0, 2.0]).view(1, 3, 1, 1)
    assert float(feature_loss(teacher + constant, teacher)) > 0.5
    assert float(feature_loss(teacher + constant, teacher, centered=True)) < 1e-6
    uneven = teacher + constant * teacher.sign()
    assert float(feature_loss(uneven, teacher, centered=True)) > 0.5


def test_features_have_weights() -> None:
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    whole, part = (
        float(distance([Tap("x", "feature", weight=weight)], [x + x], [x], 1.0))
        for weight in (1.0, 0.25)
    )
    assert part == pytest.approx(0.25 * whole)


def test_hints_are_the_last_activation_of_each_block(graph: Make) -> None:
    assert hint_taps(graph(0.0), graph(0.0)) == []
    taps = hint_taps(swapped(graph(0.0)), graph(0.0))
    assert [tap.name for tap in taps] == ["relu", "relu_1"]
    assert all(tap.centered and tap.weight == 1.5 for tap in taps)
    gm = swapped(graph(0.0))
    for node in gm.graph.nodes:
        if node.name == "relu":
            replace(MARK, layer="b.1.cv2").put(node)
    assert [tap.name for tap in hint_taps(gm, graph(0.0))] == ["relu_1"]


def test_a_swapped_graph_keeps_its_statistics_and_starts_low(graph: Make) -> None:
    plan, hints = _plan_swapped(Plan(steps=9), swapped(graph(0.0)), graph(0.0))
    assert (plan.lr, plan.freeze_bn, plan.checked, len(hints)) == (SWAPPED, True, True, 2)
    given, _ = _plan_swapped(
        Plan(steps=9, lr=0.5, freeze_bn=False), swapped(graph(0.0)), graph(0.0)
    )
    assert (given.lr, given.freeze_bn, given.checked) == (0.5, False, False)
    plain = Plan(steps=9)
    assert _plan_swapped(plain, graph(0.0), graph(0.0)) == (plain, [])


def test_images_are_held_out_where_there_are_enough() -> None:
    paths = [Path(f"{i}.jpg") for i in range(70)]
    learned, held = _hold_out(paths, Plan(checked=True))
    assert len(held) == 16
    assert sorted((*learned, *held)) == sorted(paths)
    assert not set(learned) & set(held)
    assert _hold_out(paths, Plan()) == (tuple(paths), tuple(paths))
    assert _hold_out(paths[:20], Plan(checked=True)) == (tuple(paths[:20]), tuple(paths[:20]))


@pytest.mark.parametrize(("rate", "lowered"), [(1e-3, False), (0.3, True)])
def test_a_rate_that_takes_it_off_course_is_lowered(
    graph: Make,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    rate: float,
    *,
    lowered: bool,
) -> None:
    rates: list[float] = []
    step = Session.train_step

    def watched(self: Session, *args: object) -> float:
        rates.append(self.plan.lr or 0.0)
        return step(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "train_step", watched)
    monkeypatch.setattr(sys.modules["yqc.training.distill"], "SWAPPED", rate)
    gm, original = swapped(graph(0.02)), graph(0.0)
    before = fingerprint(gm)
    done = distill(gm, original, pictures, Plan(steps=160, batch=2))
    assert rates[0] == rate
    assert (min(rates) < rate) == lowered
    assert done.after <= done.before
    assert (fingerprint(gm) == before) == (done.after == done.before)


@pytest.mark.parametrize(("loss", "restarts"), [(0.9, False), (1.05, False), (1.2, True)])
def test_a_first_rise_of_the_loss_is_let_pass(
    graph: Make, monkeypatch: pytest.MonkeyPatch, loss: float, *, restarts: bool
) -> None:
    gm, original = swapped(graph(0.02)), graph(0.0)
    taps = head_taps(original)
    student = Student(gm, taps, "cpu")
    session = Session(student, Teacher.of(original, taps, [], "cpu"), taps, Plan(lr=1e-3))
    session.step = 40
    monkeypatch.setattr(session, "evaluate_loss", lambda _: loss)
    start = {k: v.clone() for k, v in student.state.items()}
    said = RateCheck(np.zeros((1, 3, 8, 8), np.uint8), start, 1.0).check(session, 160)
    student.close()
    assert bool(said) == restarts
    assert session.plan.lr == pytest.approx(1e-3 / 3 if restarts else 1e-3)
