"""A damaged graph comes back to its original; what breaks is undone; what stops goes on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

import yqc
from yqc.errors import DataError, PassError
from yqc.graph.compare import fingerprint, max_abs_error
from yqc.job.work import Work
from yqc.pipeline import base
from yqc.progress import Advance
from yqc.store import Store
from yqc.training import Plan, distill
from yqc.training.session import Session

Graph = Callable[..., fx.GraphModule]
PLAN = Plan(steps=30, batch=4, lr=3e-3, imgsz=(16, 16))
QUANTIZED = "fold-bn,observe,calibrate,quantize"


def apart(one: fx.GraphModule, other: fx.GraphModule, x: Tensor) -> float:
    with torch.no_grad():
        return max_abs_error([one(x)], [other(x)])


def test_a_damaged_graph_comes_closer_to_its_original(graph: Graph, pictures: list[Path]) -> None:
    original, gm = graph(), graph(0.1)
    kept = fingerprint(original)
    asked = {name: p.requires_grad for name, p in gm.named_parameters()}
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    far = apart(original, gm, x)
    outcome = distill(gm, original, pictures, PLAN)
    assert outcome.steps == outcome.planned == 30
    assert outcome.epochs == pytest.approx(20)
    assert outcome.parameters == sum(p.numel() for p in gm.parameters())
    assert outcome.after < 0.3 * outcome.before
    assert outcome.problem == ""
    assert apart(original, gm, x) < 0.8 * far
    assert fingerprint(original) == kept
    assert {name: p.requires_grad for name, p in gm.named_parameters()} == asked
    assert all(p.grad is None and p.is_contiguous() for p in gm.parameters())
    assert not any(module.training for module in gm.modules())


def test_the_same_plan_gives_the_same_bytes(graph: Graph, pictures: list[Path]) -> None:
    found = []
    for seed in (0, 0, 1):
        gm = graph(0.1)
        distill(gm, graph(), pictures, replace(PLAN, steps=8, seed=seed))
        found.append(fingerprint(gm))
    assert found[0] == found[1] != found[2]


def test_a_graph_that_comes_no_closer_is_left_alone(graph: Graph, pictures: list[Path]) -> None:
    gm = graph()
    before = fingerprint(gm)
    outcome = distill(gm, graph(), pictures, replace(PLAN, steps=3))
    assert fingerprint(gm) == before
    assert outcome.problem == "it did not come closer to the original and was undone"
    assert outcome.after == outcome.before


@pytest.mark.parametrize("good", [0, 7])
def test_a_loss_that_is_not_finite_ends_it_in_the_best_state(
    good: int, graph: Graph, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Session.train_step

    def break_down(self: Session, batch: object, steps: int | None) -> float:
        if self.step == good:
            with torch.no_grad():
                next(iter(self.parameters.values())).fill_(float("inf"))
        return take(self, batch, steps)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "train_step", break_down)
    gm = graph(0.1)
    before = fingerprint(gm)
    outcome = distill(gm, graph(), pictures, PLAN)
    assert outcome.steps == good
    assert outcome.problem.startswith(f"the loss was not finite after step {good}: training stop")
    assert all(torch.isfinite(p).all() for p in gm.parameters())
    assert (fingerprint(gm) == before) == (good == 0)
    assert outcome.after <= outcome.before


def test_frozen_statistics_stay(graph: Graph, pictures: list[Path]) -> None:
    gm = graph(0.1)
    kept = gm.get_buffer("bn.running_mean").clone()
    distill(gm, graph(), pictures, replace(PLAN, steps=4, freeze_bn=True))
    assert torch.equal(gm.get_buffer("bn.running_mean"), kept)
    distill(gm, graph(), pictures, replace(PLAN, steps=4, freeze_bn=False))
    assert not torch.equal(gm.get_buffer("bn.running_mean"), kept)


def test_sparsity_shrinks_the_scales_of_batch_norms(graph: Graph, pictures: list[Path]) -> None:
    gm = graph()
    before = gm.get_parameter("bn.weight").detach().abs().sum()
    distill(gm, graph(), pictures, replace(PLAN, bn_l1=1.0))
    assert gm.get_parameter("bn.weight").detach().abs().sum() < 0.99 * before


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_quantized_graph_learns_and_stays_quantized(
    optimizer: str, graph: Graph, pictures: list[Path]
) -> None:
    gm, x = graph(0.05), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images = [x.roll(i, 3) for i in range(8)]
    yqc.Pipeline.parse(QUANTIZED).run(gm, yqc.Context(example=x, calibration=lambda: images))
    nodes = yqc.text(gm)
    weight = gm.get_parameter("a.weight_q").clone()
    scale = gm.get_buffer("a.weight_scale").clone()
    plan = replace(PLAN, optimizer=optimizer, lr=3e-3)  # type: ignore[arg-type]
    outcome = distill(gm, graph(), pictures, plan)
    assert outcome.after < 0.7 * outcome.before
    assert yqc.text(gm) == nodes
    assert gm.get_parameter("a.weight_q").dtype is torch.int8
    assert not torch.equal(gm.get_parameter("a.weight_q"), weight)
    assert not torch.equal(gm.get_buffer("a.weight_scale"), scale)


class Stop(Exception):  # noqa: N818  # it stands for a kill
    """Ends a training from outside."""


class Killer:
    """A progress that stops the work after some steps."""

    def __init__(self, after: int) -> None:
        self.left, self.notes = after, list[str]()

    def task(self, label: str, total: int) -> "Killer":
        return self

    def __enter__(self) -> Advance:
        return self.advance

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, steps: int) -> None:
        self.left -= steps
        if self.left <= 0:
            raise Stop

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.parametrize("after", [1, 5, 11, 29])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_killed_training_goes_on_and_ends_in_the_same_bytes(
    after: int,
    optimizer: str,
    graph: Graph,
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(base, "PAUSE", 0.0)
    monkeypatch.setattr(base, "LONGEST", 0.0)
    plan = replace(PLAN, optimizer=optimizer)  # type: ignore[arg-type]
    whole = graph(0.1)
    want = distill(whole, graph(), pictures, plan)
    ctx = yqc.Context(cache=Work([Store(tmp_path / "x")], {}, resume=True))
    with pytest.raises(Stop):
        distill(graph(0.1), graph(), pictures, plan, ctx, progress=Killer(after))
    again, gm = Killer(1000), graph(0.1)
    outcome = distill(gm, graph(), pictures, plan, ctx, progress=again)
    assert fingerprint(gm) == fingerprint(whole)
    assert replace(outcome, seconds=0) == replace(want, seconds=0)
    resumed = [note for note in again.notes if "going on after step" in note]
    assert resumed == ([f"recovering: going on after step {after - 1}"] * (after > 1))


def test_a_checkpoint_of_another_plan_is_not_used(
    graph: Graph, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "PAUSE", 0.0)
    monkeypatch.setattr(base, "LONGEST", 0.0)
    ctx = yqc.Context(cache=Work([Store(tmp_path / "x")], {}, resume=True))
    distill(graph(0.1), graph(), pictures, replace(PLAN, steps=4), ctx)
    watching = Killer(1000)
    distill(graph(0.1), graph(), pictures, replace(PLAN, steps=6), ctx, progress=watching)
    assert not any("going on" in note for note in watching.notes)


def test_a_time_becomes_a_number_of_steps_that_does_the_same(
    graph: Graph, pictures: list[Path]
) -> None:
    timed, counted = graph(0.1), graph(0.1)
    outcome = distill(timed, graph(), pictures, replace(PLAN, steps=None, seconds=0.6))
    assert outcome.planned == outcome.steps >= 2
    distill(counted, graph(), pictures, replace(PLAN, steps=outcome.steps))
    assert fingerprint(timed) == fingerprint(counted)


def test_another_size_of_images_works_where_the_graph_takes_it(
    graph: Graph, pictures: list[Path]
) -> None:
    gm = graph(0.1)
    outcome = distill(gm, graph(), pictures, replace(PLAN, steps=2, imgsz=(24, 20)))
    assert outcome.problem == ""


class Fixed(nn.Module):
    """A net that knows its size."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        y: Tensor = self.last(images).flatten(2).unflatten(2, (16, 16))
        return y


def test_a_size_that_the_graph_cannot_take_is_an_error(pictures: list[Path]) -> None:
    gm, original = (yqc.trace(Fixed(), torch.zeros(1, 3, 16, 16)) for _ in range(2))
    with pytest.raises(PassError, match="cannot be trained on images of 24 x 24 pixels"):
        distill(gm, original, pictures, replace(PLAN, imgsz=(24, 24)))


def test_heads_of_other_shapes_are_an_error(graph: Graph, pictures: list[Path]) -> None:
    other = yqc.trace(nn.Sequential(nn.Conv2d(3, 4, 1)), torch.zeros(1, 3, 16, 16))
    with pytest.raises(PassError, match="node _0 of the original computes"):
        distill(graph(), other, pictures, PLAN)


def test_unreadable_images_are_told(graph: Graph, pictures: list[Path]) -> None:
    pictures[1].write_bytes(b"")
    ctx = yqc.Context()
    distill(graph(0.1), graph(), pictures, replace(PLAN, steps=3), ctx)
    assert len(ctx.warnings) == 1
    assert ctx.warnings[0].startswith("1 training images cannot be read: ")
    with pytest.raises(DataError, match="training needs at least 4 images"):
        distill(graph(0.1), graph(), pictures[:2], PLAN)
