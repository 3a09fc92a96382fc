"""Stages of a graph compared: by outputs, by identity, by counts."""

import copy
import math

import pytest
import torch
from torch import Tensor, fx, nn

from yqc import trace
from yqc.graph.compare import (
    fingerprint,
    graph_bytes,
    head_outputs,
    macs,
    max_abs_error,
    parameter_count,
    sqnr_db,
)

X = torch.randn(1, 3, 8, 10, generator=torch.Generator().manual_seed(0))


def node(gm: fx.GraphModule, name: str) -> fx.Node:
    return next(n for n in gm.graph.nodes if n.name == name)  # type: ignore[no-any-return]


# What the head says


def test_head_outputs_are_those_of_the_last_convolutions(
    v8: fx.GraphModule, images: Tensor
) -> None:
    shapes = [tuple(t.shape) for t in head_outputs(v8, images)]
    assert shapes == [(1, 16, 4, 6), (1, 16, 2, 3), (1, 3, 4, 6), (1, 3, 2, 3)]


def test_head_outputs_are_values_before_any_decoding(v5: fx.GraphModule, images: Tensor) -> None:
    first, second = head_outputs(v5, images)
    kept: dict[str, Tensor] = {}
    for name in ("m.0", "m.1"):
        v5.get_submodule(name).register_forward_hook(
            lambda _, __, y, name=name: kept.update({name: y})
        )
    v5(images)
    assert torch.equal(first, kept["m.0"])
    assert torch.equal(second, kept["m.1"])


def test_head_outputs_of_a_graph_without_a_head_are_its_outputs() -> None:
    class Many(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
            return {"a": x + 1, "b": (x * 2, x.mean())}

    found = head_outputs(trace(Many(), X), X)
    for tensor, want in zip(found, (X + 1, X * 2, X.mean()), strict=True):
        assert torch.equal(tensor, want)


# Errors


def test_max_abs_error_by_hand() -> None:
    before = [torch.tensor([1.0, -2.0]), torch.tensor([[5.0]])]
    after = [torch.tensor([1.5, -2.0]), torch.tensor([[4.25]])]
    assert max_abs_error(before, after) == 0.75
    assert max_abs_error(before, before) == 0.0
    assert max_abs_error([], []) == 0.0
    with pytest.raises(ValueError, match="zip"):
        max_abs_error(before, after[:1])


def test_sqnr_by_hand() -> None:
    before = [torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.0])]
    after = [torch.tensor([3.0, 4.5]), torch.tensor([0.0, 0.0])]
    assert sqnr_db(before, after) == pytest.approx(20.0), "energy 25 against 0.25"
    assert sqnr_db(before, before) == math.inf
    assert sqnr_db([torch.zeros(2)], [torch.ones(2)]) == -math.inf


# Identity


class Net(nn.Module):
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.register_buffer("table", torch.rand(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.a(x) - self.b(x)) * self.table + 1.0  # type: ignore[no-any-return]


def change_weight(gm: fx.GraphModule) -> None:
    weight = gm.get_submodule("a").weight
    assert isinstance(weight, Tensor)
    with torch.no_grad():
        weight[0, 0, 0, 0] += 1e-6


def change_buffer(gm: fx.GraphModule) -> None:
    table = gm.table
    assert isinstance(table, Tensor)
    table[3] += 1


def change_statistics(gm: fx.GraphModule) -> None:
    variance = gm.get_submodule("bn").running_var
    assert isinstance(variance, Tensor)
    variance *= 2


def change_setting(gm: fx.GraphModule) -> None:
    gm.get_submodule("a").padding_mode = "reflect"  # type: ignore[assignment]


def change_argument(gm: fx.GraphModule) -> None:
    add = node(gm, "add")
    add.args = (add.args[0], 2.0)


def change_order(gm: fx.GraphModule) -> None:
    sub = node(gm, "sub")
    sub.args = (sub.args[1], sub.args[0])


def change_callees(gm: fx.GraphModule) -> None:
    """The same text and the same weights, and yet the difference has the other sign."""
    node(gm, "a").target, node(gm, "b").target = "b", "a"


def change_module(gm: fx.GraphModule) -> None:
    gm.set_submodule("bn", nn.Identity())


CHANGES = [
    change_weight,
    change_buffer,
    change_statistics,
    change_setting,
    change_argument,
    change_order,
    change_callees,
    change_module,
]


@pytest.mark.parametrize("change", CHANGES)
def test_fingerprint_sees_every_change_of_what_is_computed(change: object) -> None:
    gm = trace(Net(), X)
    before, want = fingerprint(gm), gm(X)
    change(gm)  # type: ignore[operator]
    gm.recompile()
    assert not torch.equal(gm(X), want)
    assert fingerprint(gm) != before


def test_fingerprint_is_of_contents_only() -> None:
    gm = trace(Net(), X)
    before = fingerprint(gm)
    assert fingerprint(copy.deepcopy(gm)) == before
    assert fingerprint(trace(Net(), X + 1)) == before
    for n in gm.graph.nodes:
        n.meta["yqc.history"] = "noted"
    gm.recompile()
    assert fingerprint(gm) == before


# Counts


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1, groups=3)
        self.bn = nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.linear = nn.Linear(10, 7)
        self.scale = nn.Parameter(torch.rand(7))
        self.spare = nn.Linear(100, 100)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(self.up(self.bn(self.conv(x))))
        y = self.linear(y.transpose(2, 3).flatten(2)[..., :10]) * self.scale
        return torch.matmul(y, y.transpose(1, 2)) + torch.bmm(y, y.mT)


def test_macs_by_hand() -> None:
    gm = trace(Counted(), X)
    conv = 6 * 4 * 5 * (1 * 3 * 3)
    up = 6 * 4 * 5 * (4 * 2 * 2)
    first_linear, second_linear = 4 * 8 * 7 * 10, 4 * 7 * 10
    products = 2 * 4 * 4 * 7
    assert macs(gm) == conv + up + first_linear + second_linear + products


def test_macs_are_for_one_image() -> None:
    assert macs(trace(Counted(), X.repeat(5, 1, 1, 1))) == macs(trace(Counted(), X))


def test_parameters_by_hand() -> None:
    gm = trace(Counted(), X)
    conv, norm, up = 6 * 9 + 6, 2 * 6, 6 * 4 * 4 + 4
    linear, scale = 10 * 7 + 7, 7
    assert parameter_count(gm) == conv + norm + up + linear + scale, "called twice, counted once"
    statistics = 2 * 6
    assert graph_bytes(gm) == 4 * (parameter_count(gm) + statistics) + 8, "a counter is i64"


# Taken for their inputs


class Passing(nn.Module):
    """Two convolutions; what is between them may pass its input on, once or twice."""

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d, between: int) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.between = nn.ModuleList(nn.BatchNorm2d(3, affine=False) for _ in range(between))

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        for each in self.between:
            y = each(y)
        out: Tensor = self.second(y)
        return out


def passing(between: int) -> fx.GraphModule:
    torch.manual_seed(0)
    return trace(Passing(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), between).eval(), X)


@pytest.mark.parametrize("between", [0, 1, 2])
def test_what_passes_its_input_on_can_be_left_out_of_a_fingerprint(between: int) -> None:
    gm = passing(between)
    left_out = [n for n in gm.graph.nodes if str(n.target).startswith("between")]
    assert len(left_out) == between
    assert fingerprint(gm, left_out) == fingerprint(passing(0))
    assert (fingerprint(gm) == fingerprint(passing(0))) == (between == 0)


def test_a_fingerprint_without_some_nodes_sees_all_others() -> None:
    gm, other = passing(1), passing(1)
    other.get_parameter("second.weight").data += 1e-6
    left_out = [[node(g, "between_0")] for g in (gm, other)]
    assert fingerprint(gm, left_out[0]) != fingerprint(other, left_out[1])
