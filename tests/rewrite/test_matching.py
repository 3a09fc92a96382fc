"""What patterns match, which matches are refused and why, and what rewriting leaves."""

import importlib
import operator

import pytest
import torch
from torch import Tensor, fx, nn

from yqc import Call, Context, text, trace
from yqc.graph.edit import tidy
from yqc.rewrite import Match, function, matches, method, module, rewrite_all, through, var

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


def test_functions_get_the_named_nodes_that_they_have_parameters_for() -> None:
    gm, ctx, seen = trace(Net(), X), Context(), []

    def keep_first(gm: fx.GraphModule, first: Call[nn.ReLU], x: fx.Node) -> fx.Node:  # noqa: ARG001
        seen.append((first.target, x.name))
        return first.node

    def check(gm: fx.GraphModule, second: Call[nn.ReLU]) -> str | None:  # noqa: ARG001
        return f"{second} stays" if second.target == "c" else None

    what = "{first} of {x} does it, {y} {}"
    assert rewrite_all(gm, ctx, TWICE, keep_first, check=check, what=what) == 1
    assert seen == [("a", "x")]
    assert [(r.node, r.what) for r in ctx.rewrites] == [("b", "a of x does it, {y} {}")]
    assert ctx.skips == [("c", "c stays")]


def test_a_rewrite_is_recorded_where_the_pass_made_it() -> None:
    gm, ctx = trace(Net(), X), Context()
    rewrite_all(gm, ctx, TWICE, first)
    assert {r.where.partition(":")[0] for r in ctx.rewrites} == {"test_matching.py"}


def test_all_named_nodes_go_to_keywords() -> None:
    gm, seen = trace(Net(), X), []

    def check(gm: fx.GraphModule, **nodes: object) -> str:  # noqa: ARG001
        seen.append(sorted(nodes))
        return "no"

    assert rewrite_all(gm, Context(), TWICE, first, check=check) == 0
    assert seen[0] == ["first", "second", "x"]


def test_a_parameter_that_the_pattern_does_not_name_is_an_error() -> None:
    def rewrite(gm: fx.GraphModule, first: fx.Node, third: fx.Node) -> fx.Node:  # noqa: ARG001
        return first

    with pytest.raises(TypeError, match="'third', but the pattern names only first, second, x"):
        rewrite_all(trace(Net(), X), Context(), TWICE, rewrite)


def test_a_pattern_reaches_through_a_chain_of_modules() -> None:
    conv = module(nn.Conv2d, var("x"), name="conv")
    pattern = module(nn.Conv2d, through((nn.ReLU, nn.MaxPool2d), conv, name="between"), name="end")
    layers = [nn.Conv2d(4, 4, 1) for _ in range(4)]
    net = nn.Sequential(
        *(layers[0], nn.ReLU(), nn.MaxPool2d(2), layers[1], layers[2], nn.SiLU(), layers[3])
    )
    found = [m.parts() for m in matches(trace(net, X), pattern)]
    assert [(p["conv"].target, [str(s.target) for s in p["between"]]) for p in found] == [
        ("0", ["1", "2"]),
        ("3", []),
    ]
    inner = [[n.target for n in m.inner] for m in matches(trace(net, X), pattern)]
    assert inner == [["0", "1", "2"], ["3"]]


def test_the_former_name_of_the_package_still_imports() -> None:
    former = importlib.import_module("yqc.graph.match")
    assert former.rewrite_all is rewrite_all


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
