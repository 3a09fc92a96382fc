"""Shapes and dtypes: told without computing anything, and kept by edits."""

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from yqc import TensorSpec, shape, text, trace
from yqc.errors import TraceError
from yqc.graph import propagate, spec
from yqc.graph.edit import tidy
from yqc.graph.values import show_value

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 4, 3), nn.SiLU()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.act(self.conv(x)).chunk(2, 1)
        return a, b.argmax(1)


def test_values_of_tensors_tuples_and_numbers() -> None:
    half = torch.zeros(2, 3, dtype=torch.float16)
    value = spec([half, (X, 3), None])
    assert value == (
        TensorSpec((2, 3), torch.float16),
        (TensorSpec((1, 3, 8, 8), torch.float32), 3),
        None,
    )
    assert show_value(value) == "(f16[2,3], (f32[1,3,8,8], 3), None)"


def test_propagates_through_a_graph_of_other_tracers() -> None:
    gm = fx.symbolic_trace(Net())
    propagate(gm, (torch.zeros(2, 3, 6, 7),))
    assert text(gm).splitlines() == [
        "%x: f32[2,3,6,7] = input",
        "%conv: f32[2,4,4,5] = Conv2d(%x)",
        "%act: f32[2,4,4,5] = SiLU(%conv)",
        "%chunk: (f32[2,2,4,5], f32[2,2,4,5]) = chunk(%act, 2, 1)",
        "%getitem: f32[2,2,4,5] = getitem(%chunk, 0)",
        "%getitem_1: f32[2,2,4,5] = getitem(%chunk, 1)",
        "%argmax: i64[2,4,5] = argmax(%getitem_1, 1)",
        "return (%getitem, %argmax)",
    ]


def test_propagates_what_an_edit_changed() -> None:
    gm = trace(Net(), X)
    gm.set_submodule("conv", nn.Conv2d(3, 6, 1, stride=2))
    propagate(gm)
    nodes = {n.name: n for n in gm.graph.nodes}
    assert shape(nodes["conv"]) == (1, 6, 4, 4)
    assert shape(nodes["getitem"]) == (1, 3, 4, 4)


def test_names_the_node_that_does_not_fit() -> None:
    gm = trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)), X)
    gm.set_submodule("0", nn.Conv2d(3, 6, 1))
    with pytest.raises(TraceError, match=r"node _1 does not fit its inputs: .* 4 channels"):
        propagate(gm)


def test_a_batch_norm_must_fit_its_input() -> None:
    gm = trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), X)
    gm.set_submodule("1", nn.BatchNorm2d(5))
    with pytest.raises(TraceError, match="node _1 does not fit its inputs"):
        propagate(gm)


def test_shape_of_what_is_no_tensor() -> None:
    nodes = {n.name: n for n in trace(Net(), X).graph.nodes}
    with pytest.raises(TraceError, match="node chunk has no tensor shape"):
        shape(nodes["chunk"])


def test_an_input_without_a_known_shape() -> None:
    with pytest.raises(TraceError, match="input x has no known shape; trace with an example"):
        propagate(fx.symbolic_trace(Net()))


def test_nothing_is_computed() -> None:
    """A graph of a hundred times the memory of this machine has shapes all the same."""

    class Huge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.repeat(1, 1 << 14, 1 << 7, 1 << 7).sum(1)

    assert shape(trace(Huge(), X).graph.output_node().all_input_nodes[0]) == (1, 1024, 1024)


def test_tidy_fills_in_what_new_nodes_lack_and_drops_what_nothing_reads() -> None:
    gm = trace(Net(), X)
    gm.register_buffer("spare", torch.ones(3))
    gm.add_module("unused", nn.Conv2d(3, 3, 1))
    act = next(n for n in gm.graph.nodes if n.name == "act")
    with gm.graph.inserting_after(act):
        new = gm.graph.call_function(torch.cat, ([act, act], 1))
    act.replace_all_uses_with(new, lambda user: user is not new)
    tidy(gm)
    assert shape(new) == (1, 8, 6, 6)
    assert sorted(gm.state_dict()) == ["conv.bias", "conv.weight"]
    assert gm(X)[0].shape == (1, 4, 6, 6), "it was recompiled"


def test_tidy_refuses_an_illegal_graph() -> None:
    gm = trace(Net(), X)
    nodes = {n.name: n for n in gm.graph.nodes}
    nodes["conv"].args = (nodes["act"],)
    with pytest.raises(RuntimeError, match="before it has been defined"):
        tidy(gm)


SIDE = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), st.integers(1, 2))
"""Kernel, stride, padding and dilation of one side."""
