"""dce: nodes that nothing reads are erased, and so are calls that do nothing."""

import pytest
import torch
from torch import Tensor, fx, nn

from yqc import Context, trace
from yqc.testing import apply, assert_same_numbers, assert_text, nets, run, traced
from yqc_passes.dce import DeadCodeElimination

SHAPE = (2, 3, 8, 8)


def idle() -> fx.GraphModule:
    return traced(nets.chain(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Identity()), SHAPE)


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
    gm = idle()
    want = run(gm)
    dead(gm)
    done = apply(DeadCodeElimination(), gm)
    assert_text(
        gm,
        """
        %x: f32[2,3,8,8] = input
        %conv2d: f32[2,4,6,6] = Conv2d(%x)
        return %conv2d
        """,
    )
    assert_same_numbers(run(gm), want, tolerance=0)
    assert done.rewrites == [
        ("dropout", "replaced by its input conv2d"),
        ("identity", "replaced by its input conv2d"),
        ("sigmoid", "dropped: nothing reads it"),
        ("spare", "dropped: nothing reads it"),
    ]


def test_modules_and_tensors_that_nothing_reads_leave_the_graph_module() -> None:
    gm = idle()
    dead(gm)
    assert {"spare.weight", "table"} <= set(gm.state_dict())
    apply(DeadCodeElimination(), gm)
    assert sorted(gm.state_dict()) == ["conv2d.bias", "conv2d.weight"]


def test_leaves_a_graph_without_dead_code_alone() -> None:
    done = apply(DeadCodeElimination(), traced(nets.chain(nn.Conv2d(3, 4, 1), nn.SiLU()), SHAPE))
    assert (done.changed, done.rewrites, done.skips) == (False, [], [])


def test_keeps_what_has_side_effects_and_says_why() -> None:
    gm = traced(nets.chain(nn.Conv2d(3, 4, 1)), SHAPE)
    images = next(iter(gm.graph.nodes))
    with gm.graph.inserting_after(images):
        gm.graph.call_function(torch._assert, (True, "it holds"))
    assert apply(DeadCodeElimination(), gm).skips == [("_assert", "it has side effects")]
    assert any(n.target is torch._assert for n in gm.graph.nodes)


@pytest.mark.parametrize("inputs", [2, 1])
def test_keeps_inputs_that_nothing_reads(inputs: int) -> None:
    class First(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b if inputs == 2 else a + 1

    gm = trace(First(), (torch.ones(SHAPE), torch.ones(SHAPE)))
    DeadCodeElimination().run(gm, Context())
    assert [n.name for n in gm.graph.nodes if n.op == "placeholder"] == ["a", "b"]
