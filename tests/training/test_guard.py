"""Training of packed weights: it ends nearer to the original on held-out images, or soon."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx

from yqc import Context, Pipeline
from yqc.graph.compare import fingerprint
from yqc.training import Plan, distill, guard
from yqc.training.distill import _hold_out
from yqc.training.guard import FIRST, LOWER, HeldOutGuard, guard_packed
from yqc.training.heads import head_taps
from yqc.training.plan import WARMUP
from yqc.training.session import Session
from yqc.training.state import Checkpoints
from yqc.training.student import Student
from yqc.training.teacher import Teacher

Make = Callable[[float], fx.GraphModule]


def packed(gm: fx.GraphModule, how: str = "pack-int4{bits=3 rounding=nearest}") -> fx.GraphModule:
    Pipeline.parse(f"fold-bn,{how}").run(gm, Context(target="portable"))
    return gm


class Losses:
    """A training whose guard finds given losses at its checks."""

    def __init__(self, session: Session, one: HeldOutGuard, patch: pytest.MonkeyPatch) -> None:
        self.session, self.guard, self.patch = session, one, patch

    def check(self, *losses: float) -> list[str]:
        """Return what the guard says at checks with these losses on held-out images."""
        said = []
        for number, loss in enumerate(losses):
            self.patch.setattr(self.session, "evaluate_loss", lambda _, loss=loss: loss)
            self.session.step = guard.TRIAL * (number + 1)
            for value in self.session.student.state.values():
                value.add_(0.01)
            self.session._update_average()
            said.append(self.guard.check(self.session, None))
        return said


@pytest.fixture
def losses(graph: Make, monkeypatch: pytest.MonkeyPatch) -> Iterator[Losses]:
    """A training at the loss 1."""
    original = graph(0.0)
    taps = head_taps(original)
    student = Student(packed(graph(0.0)), taps, "cpu")
    session = Session(student, Teacher.of(original, taps, [], "cpu"), taps, Plan(lr=FIRST))
    start = {k: v.clone() for k, v in student.state.items()}
    held = np.zeros((1, 3, 8, 8), np.uint8)
    one = HeldOutGuard(held, start, FIRST, Checkpoints(None, "", before=1.0))
    yield Losses(session, one, monkeypatch)
    student.close()


def test_it_ends_behind_the_lowest_rate_where_nothing_helps(losses: Losses) -> None:
    first, _, third = losses.check(1.2, 1.0, 1.1)
    assert "back to the best state at a rate of 2.5e-05" in first
    assert "it ends here" in third
    assert losses.session.plan.lr == pytest.approx(FIRST / LOWER**2)
    assert losses.guard.stopped
    problem = losses.guard.finish(losses.session)
    assert "came no nearer to the original at rates of 0.0001, 2.5e-05, 6.3e-06" in problem


def test_the_best_state_is_kept_and_taken_up_at_a_lower_rate(losses: Losses) -> None:
    assert losses.check(0.9) == [""]
    session = losses.session
    best = {k: v.clone() for k, v in session.average.items()}
    (said,) = losses.check(0.95)
    assert "back to the best state" in said
    for state in (session.average, session.student.state):
        assert all(torch.equal(state[k], v) for k, v in best.items())
    session.average[next(iter(best))] += 1
    assert losses.guard.finish(session) == ""
    assert all(torch.equal(session.average[k], v) for k, v in best.items())


def test_checks_are_rarer_once_one_has_helped(
    losses: Losses, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses.check(0.9)
    calls: list[int] = []

    def kept(session: Session) -> bool:
        calls.append(session.step)
        return True

    monkeypatch.setattr(losses.guard, "keep_if_better", kept)
    for losses.session.step in range(1, 161):
        losses.guard.check(losses.session, 640)
    assert calls == [8, 16, *range(40, 161, 40)]
    assert calls[1] <= WARMUP


@pytest.mark.parametrize("how", ["pack-int4{bits=3}", "cluster{spare=0}", "pack-rice{bits=4}"])
def test_packed_graphs_are_guarded(graph: Make, how: str) -> None:
    plan = guard_packed(Plan(steps=9), packed(graph(0.0), how))
    assert (plan.lr, plan.guarded) == (FIRST, True)
    assert guard_packed(Plan(steps=9, lr=0.5), packed(graph(0.0), how)).lr == 0.5
    assert guard_packed(Plan(steps=9), graph(0.0)) == Plan(steps=9)


def test_a_quarter_of_few_images_is_held_out() -> None:
    for count, held in ((3, 0), (15, 0), (16, 4), (64, 16), (400, 16)):
        images = [Path(str(i)) for i in range(count)]
        learned, judged = _hold_out(images, Plan(guarded=True))
        if held:
            assert not {*learned} & {*judged}
            assert (len(learned), len(judged)) == (count - held, held)
        else:
            assert learned == judged


@pytest.mark.parametrize("rate", [1e-3, 10.0])
def test_it_never_ends_worse(
    graph: Make, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    monkeypatch.setattr(guard, "FIRST", rate)
    gm, original = packed(graph(0.02)), graph(0.02)
    before = fingerprint(gm)
    done = distill(gm, original, pictures, Plan(steps=60, batch=2))
    if rate > 1:
        assert done.steps == 3 * guard.TRIAL
        assert "held-out images came no nearer" in done.problem
        assert done.after == done.before
        assert fingerprint(gm) == before
    else:
        assert done.problem == ""
        assert done.after < done.before
        assert fingerprint(gm) != before
