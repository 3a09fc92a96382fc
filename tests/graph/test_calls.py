"""Calls, chains of calls, and who else calls a module."""

import operator

import torch
from torch import Tensor, nn

from yqc import call, callers, calls, chains, is_function, trace

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.bn, self.act = nn.BatchNorm2d(3), nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn(self.a(x)))
        z = self.act(self.bn(self.b(y) + y))
        return self.act(self.a(z)) * self.a.weight.mean()  # type: ignore[no-any-return]


def test_lists_the_calls_of_a_class_in_graph_order() -> None:
    gm = trace(Net(), X)
    assert [(c.node.name, c.target) for c in calls(gm, nn.Conv2d)] == [
        ("a", "a"),
        ("b", "b"),
        ("a_1", "a"),
    ]
    found = calls(gm, (nn.SiLU, nn.BatchNorm2d))
    assert [str(c) for c in found] == ["bn", "act", "bn_1", "act_1", "act_2"]
    assert found[0].module is gm.get_submodule("bn")
    assert calls(gm, nn.Linear) == []


def test_call_refuses_what_is_none() -> None:
    gm = trace(Net(), X)
    nodes = {n.name: n for n in gm.graph.nodes}
    conv = call(gm, nodes["a"], nn.Conv2d)
    assert conv is not None
    assert conv.module is gm.get_submodule("a")
    assert call(gm, nodes["a"], nn.SiLU) is None
    assert call(gm, nodes["x"], nn.Conv2d) is None
    assert call(gm, 3, nn.Conv2d) is None


def test_chains_follow_the_first_input() -> None:
    gm = trace(Net(), X)
    pairs = [tuple(map(str, chain)) for chain in chains(gm, nn.Conv2d, nn.BatchNorm2d)]
    assert pairs == [("a", "bn")], "a sum stands between b and its norm"
    triples = [tuple(map(str, c)) for c in chains(gm, nn.Conv2d, nn.BatchNorm2d, nn.SiLU)]
    assert triples == [("a", "bn", "act")]
    assert [tuple(map(str, c)) for c in chains(gm, nn.SiLU, nn.Conv2d)] == [
        ("act", "b"),
        ("act_1", "a_1"),
    ]


def test_the_graph_may_be_edited_while_chains_are_read() -> None:
    norms = (nn.BatchNorm2d(3) for _ in range(3))
    gm = trace(nn.Sequential(nn.Conv2d(3, 3, 1), *norms), X)
    seen = []
    for conv, bn in chains(gm, nn.Conv2d, nn.BatchNorm2d):
        seen.append((str(conv), str(bn)))
        bn.node.replace_all_uses_with(conv.node)
        gm.graph.erase_node(bn.node)
    assert seen == [("_0", "_1"), ("_0", "_2"), ("_0", "_3")]


def test_callers_count_calls_and_readings() -> None:
    gm = trace(Net(), X)
    assert callers(gm, "a") == 3, "two calls, and its weight is read"
    assert callers(gm, "b") == 1
    assert callers(gm, "act") == 3
    assert callers(gm, "absent") == 0


def test_is_function() -> None:
    gm = trace(Net(), X)
    nodes = {n.name: n for n in gm.graph.nodes}
    assert is_function(nodes["add"], torch.add, operator.add)
    assert not is_function(nodes["add"], operator.mul)
    assert not is_function(nodes["a"], operator.add)
    assert not is_function(None, operator.add)
