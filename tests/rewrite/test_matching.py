"""The matcher: what patterns find, what is refused and why, and what rewriting leaves."""

import operator

import pytest
import torch
from torch import Tensor, fx, nn

from yqc import Context, text, trace
from yqc.graph.edit import tidy
from yqc.rewrite import Match, function, matches, method, module, rewrite_all, var

X = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, *, tap: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.c, self.tap = nn.ReLU(), nn.ReLU(), nn.ReLU(), tap

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z = self.c(self.b(y))
        out: Tensor = z + y if self.tap else z + 1
        return out


TWICE = module(nn.ReLU, module(nn.ReLU, var("x"), name="first"), name="second")


def first(gm: fx.GraphModule, m: Match) -> fx.Node:  # noqa: ARG001
    return m["first"]


def test_rewrites_a_chain_down_to_one() -> None:
    gm, ctx = trace(Net(), X), Context()
    want = gm(X)
    assert rewrite_all(gm, ctx, TWICE, first, what="dropped") == 2
    tidy(gm)
    assert text(gm).splitlines() == [
        "%x: f32[1,4,8,8] = input",
        "%a: f32[1,4,8,8] = ReLU(%x)",
        "%add: f32[1,4,8,8] = add(%a, 1)",
        "return %add",
    ]
    assert torch.equal(gm(X), want)
    assert [(r.node, r.what) for r in ctx.rewrites] == [("b", "dropped"), ("c", "dropped")]


def test_what_something_else_reads_is_refused_with_the_reason() -> None:
    gm, ctx = trace(Net(tap=True), X), Context()
    assert rewrite_all(gm, ctx, TWICE, first) == 1
    assert ctx.skips == [("b", "a has other users")]


def test_a_check_refuses_with_its_reason() -> None:
    gm, ctx = trace(Net(), X), Context()
    before = text(gm)
    assert rewrite_all(gm, ctx, TWICE, first, check=lambda _, m: f"not {m.root}") == 0
    assert (text(gm), ctx.skips) == (before, [("b", "not b"), ("c", "not c")])


def test_new_nodes_get_shape_and_role_of_what_they_replace() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat((x + x, x), 1)

    def double(gm: fx.GraphModule, m: Match) -> fx.Node:
        return gm.graph.call_function(operator.mul, (m["x"], 2.0))

    gm = trace(Doubled(), X)
    want = gm(X)
    assert rewrite_all(gm, Context(), function(operator.add, var("x"), var("x")), double) == 1
    mul = next(n for n in gm.graph.nodes if n.target is operator.mul)
    assert mul.meta["yqc.role"] == "backbone"
    tidy(gm)
    assert "add" not in text(gm)
    assert torch.equal(gm(X), want)


def count(net: nn.Module, pattern: object) -> int:
    return len(list(matches(trace(net, X), pattern)))  # type: ignore[arg-type]


class Arguments(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat((x, 2 * x), dim=1)
        return y.flatten(2).softmax(dim=-1) * 0.5


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        (function(operator.mul, 2, var("x")), 1),
        (function(operator.mul, var("x"), 2), 0),
        (function(operator.mul, var("x"), 2, commutative=True), 1),
        (function(operator.mul, var("x"), 2.0, commutative=True), 0),
        (function((operator.add, operator.mul), var("x"), var("y")), 2),
        (function(torch.cat, [var("x"), var("y")], dim=1), 1),
        (function(torch.cat, [var("x"), var("y")], dim=0), 0),
        (function(torch.cat, [var("x"), var("y")]), 0),
        (function(torch.cat, ...), 1),
        (function(torch.cat, [var("x"), function(operator.mul, 2, var("x"))], ...), 1),
        (function(torch.cat, [var("x"), var("x")], ...), 0),
        (method("softmax", method("flatten", var("x"), 2), dim=var("dim")), 1),
        (method(("softmax", "view"), var("x"), ...), 1),
        (module(nn.Module, var("x")), 0),
    ],
)
def test_patterns(pattern: object, found: int) -> None:
    assert count(Arguments(), pattern) == found


def test_a_match_tells_nodes_values_and_modules() -> None:
    found = next(matches(trace(Net(), X), TWICE))
    assert found.call("first").target == "a"
    assert found["x"].op == "placeholder"
    pattern = function(operator.add, var("x"), var("number"))
    added = next(matches(trace(Net(), X), pattern))
    assert added.value("number") == 1
    with pytest.raises(TypeError, match="'number' matched the value 1, which is no node"):
        added["number"]
    with pytest.raises(TypeError, match="which calls no module"):
        found.call("x")
    with pytest.raises(KeyError):
        found["y"]
