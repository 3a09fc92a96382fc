"""What was not changed is found, computed once, and left alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

import yqc
from yqc.training import Plan, distill
from yqc.training.heads import cut_graph, head_taps
from yqc.training.session import Session
from yqc.training.student import Student
from yqc.training.teacher import Teacher
from yqc.training.untouched import find_sources, find_untouched

Graph = Callable[..., fx.GraphModule]
X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def disturb(gm: fx.GraphModule, path: str) -> None:
    """Change one weight of a module."""
    gm.get_parameter(f"{path}.weight").view(-1)[0] += 1


def test_all_before_the_first_change_is_untouched(graph: Graph) -> None:
    gm = graph()
    disturb(gm, "b")
    gm.get_buffer("bn.num_batches_tracked").add_(3)  # no part of what it computes
    assert find_untouched(gm, graph()) == {"images", "a", "bn", "relu"}
    assert find_sources(gm, {"images", "a", "bn", "relu"}, ["last"]) == ["relu"]


def test_a_statistic_is_a_change(graph: Graph) -> None:
    gm = graph()
    gm.get_buffer("bn.running_mean")[0] += 1
    assert find_untouched(gm, graph()) == {"images", "a"}


def test_an_end_that_is_shared_is_its_own_source(graph: Graph) -> None:
    gm = graph()
    assert find_sources(gm, {"images", "a", "bn"}, ["bn", "last"]) == ["bn"]
    assert find_sources(gm, set(), ["last"]) == ["images"]


class Twice(nn.Module):
    """One convolution that is called before and after another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.a(self.b(self.a(x)))
        return y


def test_a_module_that_learns_elsewhere_is_not_shared() -> None:
    gm, original = (yqc.trace(Twice(), X[:1]) for _ in range(2))
    disturb(gm, "b")
    assert find_untouched(gm, original) == {"x"}


class Writes(nn.Module):
    """What the first convolution makes is overwritten by what reads it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.act, self.b = nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.act(self.a(x)))
        return y


def test_a_tensor_that_is_overwritten_is_not_shared() -> None:
    gm, original = (yqc.trace(Writes(), X[:1]) for _ in range(2))
    gm.set_submodule("act", nn.SiLU(inplace=True))
    assert find_untouched(gm, original) == {"x"}


class Constant(nn.Module):
    """A convolution of what a constant was added to."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shift: Tensor
        self.register_buffer("shift", torch.ones(3, 1, 1))
        self.a = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.a(x + self.shift)
        return y


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_constants_are_compared(shift: float) -> None:
    gm, original = (yqc.trace(Constant(), X[:1]) for _ in range(2))
    gm.get_buffer("shift").add_(shift)
    assert ("add" in find_untouched(gm, original)) == (shift == 0)


def test_both_go_on_from_what_is_shared(graph: Graph) -> None:
    gm, original = graph(), graph()
    disturb(gm, "b")
    taps = head_taps(original)
    teacher = Teacher.of(original, taps, ["relu"], "cpu")
    student = Student(gm, taps, "cpu", ["relu"])
    given = teacher.run_front(X)
    assert set(student.parameters) == {"b.weight", "b.bias", "last.weight", "last.bias"}
    with torch.no_grad():
        torch.testing.assert_close(teacher.run_rest(given)[0], original(X))
        torch.testing.assert_close(student.module(*given)[0], gm(X))


def test_what_is_cut_off_needs_no_images(graph: Graph) -> None:
    part = cut_graph(graph(), ["last", "relu"], ["relu"])
    assert [n.name for n in part.graph.nodes if n.op == "placeholder"] == ["given_relu"]
    assert [name for name, _ in part.named_children()] == ["b", "last"]


def test_training_leaves_alone_what_was_not_changed(graph: Graph, pictures: list[Path]) -> None:
    gm = graph()
    disturb(gm, "b")
    before = {k: v.clone() for k, v in gm.state_dict().items()}
    outcome = distill(gm, graph(), pictures, Plan(steps=20, batch=4, lr=3e-3, imgsz=(16, 16)))
    assert outcome.after < 0.5 * outcome.before
    changed = {k for k, v in gm.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"b.weight", "b.bias", "last.weight", "last.bias"}


@pytest.mark.parametrize(("bn_l1", "changed"), [(0.0, False), (1e-3, False), (1e-3, True)])
def test_the_original_itself_and_sparsity_take_the_whole_graph(
    bn_l1: float,
    changed: bool,
    graph: Graph,
    pictures: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learned: list[set[str]] = []
    adapt = Session.adapt

    def spy(self: Session, *args: object) -> None:
        learned.append(set(self.parameters))
        adapt(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "adapt", spy)
    gm = graph()
    if changed:
        disturb(gm, "b")
    plan = Plan(steps=2, batch=4, imgsz=(16, 16), bn_l1=bn_l1)
    distill(gm, graph(), pictures, plan)
    assert learned == [set(dict(gm.named_parameters()))]
