"""Running a part of a graph: what is computed, what is kept, and what stands in for nodes."""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from tests.modules import conv
from yqc import trace
from yqc.graph import compute_node, last_uses, run_graph

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b, self.side = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.register_buffer("shift", torch.ones(1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.a(x)
        side = self.side(y)
        z = self.b(y).flatten(2) + self.shift
        return {"z": z, "side": side}


@pytest.fixture
def gm() -> fx.GraphModule:
    return trace(Net(), X)


def nodes(gm: fx.GraphModule) -> dict[str, fx.Node]:
    return {n.name: n for n in gm.graph.nodes}


def count_calls(gm: fx.GraphModule) -> list[str]:
    called: list[str] = []
    for name, module in gm.named_children():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    return called


def test_the_output_is_what_the_graph_returns(gm: fx.GraphModule) -> None:
    output = gm.graph.output_node()
    got, want = run_graph(gm, [X], [output])[output], gm(X)
    assert got.keys() == want.keys()
    assert all(torch.equal(got[k], want[k]) for k in want)


def test_only_what_the_kept_nodes_need_is_computed(gm: fx.GraphModule) -> None:
    called, by_name = count_calls(gm), nodes(gm)
    found = run_graph(gm, [X], [by_name["b"], by_name["x"]])
    assert called == ["a", "b"]
    assert list(found) == [by_name["b"], by_name["x"]]
    assert torch.equal(found[by_name["b"]], conv(gm, "b")(conv(gm, "a")(X)))


def test_functions_stand_in_for_nodes_and_see_their_inputs(gm: fx.GraphModule) -> None:
    called, by_name = count_calls(gm), nodes(gm)

    def doubled(node: fx.Node, values: Any) -> Tensor:
        assert torch.equal(values[by_name["x"]], X)
        y: Tensor = compute_node(gm, node, values)
        return 2 * y

    a, b = by_name["a"], by_name["b"]
    found = run_graph(gm, [X], [b], replace={a: doubled})
    assert torch.equal(found[b], conv(gm, "b")(2 * conv(gm, "a")(X)))
    called.clear()
    assert run_graph(gm, [X], replace={a: doubled}) == {}
    assert called == ["a"]


def test_known_values_are_not_computed_again(gm: fx.GraphModule) -> None:
    called, by_name = count_calls(gm), nodes(gm)
    a, b = by_name["a"], by_name["b"]
    known = {a: torch.zeros_like(X)}
    found = run_graph(gm, [], [b], known=known)
    assert called == ["b"]
    assert torch.equal(found[b], conv(gm, "b")(known[a]))
    assert list(known) == [a]


def test_what_writes_in_place_is_run_even_if_nothing_reads_it() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = x + 1
            y.mul_(2)
            return y * 3

    gm = trace(InPlace(), X)
    last = gm.graph.output_node()
    assert torch.equal(run_graph(gm, [X], [last])[last], (X + 1) * 6)


def test_values_are_freed_after_their_last_use(gm: fx.GraphModule) -> None:
    by_name, alive = nodes(gm), []

    def watch(node: fx.Node, values: Any) -> Tensor:
        y: Tensor = compute_node(gm, node, values)
        alive.append(weakref.ref(y))
        return y

    def check(node: fx.Node, values: Any) -> Tensor:
        gc.collect()
        assert alive[0]() is None
        y: Tensor = compute_node(gm, node, values)
        return y

    with torch.no_grad():
        run_graph(gm, [X], replace={by_name["a"]: watch, by_name["add"]: check})
    assert len(alive) == 1


def test_gradients_reach_kept_values(gm: fx.GraphModule) -> None:
    by_name = nodes(gm)
    found = run_graph(gm, [X.clone().requires_grad_()], [by_name["a"], by_name["add"]])
    (slope,) = torch.autograd.grad(found[by_name["add"]].sum(), found[by_name["a"]])
    assert slope.shape == X.shape


def test_a_missing_input_is_an_error(gm: fx.GraphModule) -> None:
    with pytest.raises(ValueError, match="zip"):
        run_graph(gm, [X, X], [gm.graph.output_node()])


def test_last_uses(gm: fx.GraphModule) -> None:
    names = {n.name: [s.name for s in gone] for n, gone in last_uses(gm.graph.nodes).items()}
    assert names["a"] == ["x"]
    assert names["side"] == []
    assert names["b"] == ["a"]
    assert sorted(names["output"]) == ["add", "side"]
