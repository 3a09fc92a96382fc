"""dce: what nothing reads goes, and so do calls that do nothing."""

import pytest
import torch
from torch import Tensor, fx, nn

from yqc import Context, text, trace
from yqc.graph.edit import tidy
from yqc_passes.dce import DeadCodeElimination

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 4, 3)
        self.drop, self.same = nn.Dropout(0.5), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.same(self.drop(self.conv(x)))  # type: ignore[no-any-return]


def dead(gm: fx.GraphModule) -> None:
    """Put in what nothing reads: tracing itself drops such nodes."""
    gm.add_module("spare", nn.Conv2d(3, 4, 3))
    gm.register_buffer("table", torch.ones(5))
    first = next(iter(gm.graph.nodes))
    with gm.graph.inserting_after(first):
        unread = gm.graph.call_module("spare", (first,))
    with gm.graph.inserting_after(unread):
        gm.graph.call_function(torch.sigmoid, (unread,))


def test_drops_what_nothing_reads_and_what_does_nothing() -> None:
    gm, ctx = trace(Idle(), X), Context()
    want = gm(X)
    dead(gm)
    DeadCodeElimination().run(gm, ctx)
    tidy(gm)
    assert text(gm).splitlines() == [
        "%x: f32[2,3,8,8] = input",
        "%conv: f32[2,4,6,6] = Conv2d(%x)",
        "return %conv",
    ]
    assert torch.equal(gm(X), want)
    assert [(r.node, r.what) for r in ctx.rewrites] == [
        ("drop", "replaced by its input conv"),
        ("same", "replaced by its input conv"),
        ("sigmoid", "dropped: nothing reads it"),
        ("spare", "dropped: nothing reads it"),
    ]


def test_modules_and_tensors_that_nothing_reads_leave_the_graph_module() -> None:
    gm = trace(Idle(), X)
    dead(gm)
    assert {"spare.weight", "table"} <= set(gm.state_dict())
    DeadCodeElimination().run(gm, Context())
    tidy(gm)
    assert sorted(gm.state_dict()) == ["conv.bias", "conv.weight"]


def test_leaves_a_graph_without_dead_code_alone() -> None:
    gm, ctx = trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU()), X), Context()
    before = text(gm)
    DeadCodeElimination().run(gm, ctx)
    assert (text(gm), ctx.rewrites, ctx.skips) == (before, [], [])


def test_keeps_what_has_side_effects_and_says_why() -> None:
    gm, ctx = trace(nn.Sequential(nn.Conv2d(3, 4, 1)), X), Context()
    images = next(iter(gm.graph.nodes))
    with gm.graph.inserting_after(images):
        gm.graph.call_function(torch._assert, (images, "the input is there"))
    before = text(gm)
    DeadCodeElimination().run(gm, ctx)
    assert text(gm) == before
    assert ctx.skips == [("_assert", "it has side effects")]


@pytest.mark.parametrize("inputs", [2, 1])
def test_keeps_inputs_that_nothing_reads(inputs: int) -> None:
    class First(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b if inputs == 2 else a + 1

    gm = trace(First(), (X, X))
    DeadCodeElimination().run(gm, Context())
    tidy(gm)
    assert [n.name for n in gm.graph.nodes if n.op == "placeholder"] == ["a", "b"]
