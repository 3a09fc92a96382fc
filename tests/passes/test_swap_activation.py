"""swap-activation: what is fitted, what stays, what it refuses, and what the emitted file holds."""

import contextlib
import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.caches import ShortMemory, keep_everything
from yqc import BatchNorm, Context, text
from yqc.emit import emit
from yqc.errors import PassError, PipelineError
from yqc.graph.compare import fingerprint
from yqc.graph.metadata import Swapped
from yqc.pipeline import Share
from yqc.pipeline.pipeline import Pipeline
from yqc.swapping.walk import SwapWalk
from yqc.testing import nets, traced
from yqc_passes.fold_bn import FoldBatchNorm
from yqc_passes.swap_activation import SwapActivation

SHAPE = (1, 3, 16, 16)


def images(count: int = 12) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(SHAPE, generator=generator) for _ in range(count)]


def context(count: int = 12) -> Context:
    def calibration() -> Iterable[Tensor]:
        return images(count)

    return Context(calibration=calibration)


class Units(nn.Module):
    """A strided unit, a residual, a concat, and a convolution without activation."""

    def __init__(self, act: nn.Module | None = None) -> None:
        super().__init__()
        self.act = act or nn.SiLU()
        self.first = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.inner, self.side, self.last = (
            nn.Conv2d(i, o, k) for i, o, k in ((8, 8, 1), (8, 4, 1), (12, 5, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn(self.first(x)))
        y = x + self.act(self.inner(x))
        z: Tensor = self.last(torch.cat([y, self.act(self.side(y))], 1))
        return z


def error(gm: torch.fx.GraphModule, wanted: torch.fx.GraphModule) -> float:
    """Return the mean squared error over the variance, on other images than those of the fit."""
    x = torch.cat(images(40)[20:])
    with torch.no_grad():
        got, want = gm(x), wanted(x)
    return float((got - want).square().mean() / (want - want.mean((0, 2, 3), True)).square().mean())


def plain(gm: torch.fx.GraphModule) -> torch.fx.GraphModule:
    """Replace every SiLU by ReLU and fit nothing."""
    for node in gm.graph.nodes:
        if node.op == "call_module" and isinstance(gm.get_submodule(node.target), nn.SiLU):
            gm.set_submodule(node.target, nn.ReLU())
    return gm


def test_a_fitted_relu_is_close_where_a_plain_one_is_far() -> None:
    gm, want = (traced(nets.seeded(Units()), SHAPE) for _ in range(2))
    SwapActivation().run(gm, context())
    assert "SiLU" not in text(gm)
    assert text(gm).count("ReLU") == 3
    assert error(gm, want) < 0.03 < 0.3 * error(plain(traced(nets.seeded(Units()), SHAPE)), want)


def test_the_constant_of_a_channel_is_taken_up_behind_concat_and_addition() -> None:
    """At a kernel of one pixel the swap is exact but for the fit: no channel is off by a mean."""
    gm, want = (traced(nets.seeded(Units()), SHAPE) for _ in range(2))
    SwapActivation().run(gm, context())
    x = torch.cat(images(12))
    with torch.no_grad():
        got, wanted = gm(x), want(x)
    off = (got - wanted).mean((0, 2, 3)).abs().max()
    assert float(off) < 0.02 * float(wanted.std())


def test_marks_and_records_say_what_was_fitted() -> None:
    gm, ctx = traced(nets.seeded(Units()), SHAPE), context()
    Pipeline.parse("swap-activation{refit=never}").run(gm, ctx)
    marks = [mark for node in gm.graph.nodes if (mark := Swapped.on(node))]
    assert [(mark.layer, mark.was, mark.now) for mark in marks] == [
        ("first", "SiLU", "relu"),
        ("inner", "SiLU", "relu"),
        ("side", "SiLU", "relu"),
    ]
    assert all(0 < mark.error < 0.2 and mark.damage > 0 for mark in marks)
    assert all(0.2 < mark.a[0] <= mark.a[1] <= mark.a[2] < 2 for mark in marks)
    assert all(-0.3 < mark.m[1] < 0 for mark in marks)
    assert not any(mark.refitted for mark in marks)
    assert [r.node for r in ctx.rewrites] == ["act", "act_1", "act_2"]
    assert "of the damage" in ctx.rewrites[0].what
    assert ctx.records.says == [
        "3 of 3 activations became relu, fitted on 12 pictures; 0 with their weights"
    ]


def test_refitted_weights_are_closer_and_are_judged_on_other_pictures() -> None:
    errors = []
    for refit in ("never", "auto", "always"):
        gm, want = (traced(nets.seeded(Units()), SHAPE) for _ in range(2))
        Pipeline.parse(f"swap-activation{{refit={refit}}}").run(gm, context(40))
        errors.append(error(gm, want))
    assert errors[1] < 0.94 * errors[0]
    assert errors[2] < 0.94 * errors[0]


@pytest.mark.parametrize("fold", [False, True])
def test_batch_norms_keep_statistics_of_what_reaches_them(*, fold: bool) -> None:
    """Folded or not the result is the same, and statistics are those of the new outputs."""
    gm, other = (traced(nets.seeded(Units()), SHAPE) for _ in range(2))
    if fold:
        FoldBatchNorm().run(gm, Context())
    SwapActivation().run(gm, context())
    SwapActivation().run(other, context())
    x = torch.cat(images(12))
    with torch.no_grad():
        torch.testing.assert_close(gm(x), other(x), rtol=1e-4, atol=1e-4)
        raw = other.get_submodule("first")(x)
        norm: Any = other.bn
    torch.testing.assert_close(norm.running_mean, raw.mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        norm.running_var, raw.var((0, 2, 3), correction=0), rtol=1e-3, atol=1e-3
    )
    if fold:
        mark = BatchNorm.on(next(n for n in gm.graph.nodes if n.name == "first"))
        assert mark is not None
        pre = gm.get_submodule("first")(x).detach()
        torch.testing.assert_close(mark.shift, pre.mean((0, 2, 3)), rtol=1e-3, atol=1e-3)


FORMS = {
    "relu6": "ReLU6",
    "leaky-relu": "LeakyReLU",
    "hardswish": "Hardswish",
    "hard-sigmoid": "Hardsigmoid",
}


@pytest.mark.parametrize("to", FORMS)
def test_other_forms(to: str) -> None:
    gm, want = (traced(nets.seeded(Units()), SHAPE) for _ in range(2))
    Pipeline.parse(f"swap-activation{{to={to}}}").run(gm, context())
    assert "SiLU" not in text(gm)
    assert text(gm).count(FORMS[to]) == 3
    assert error(gm, want) < 0.03
    emit(gm)


@pytest.mark.parametrize(
    "act", [nn.GELU(), nn.Mish(), nn.Hardswish(), nn.LeakyReLU(0.1), nn.ELU(), nn.Softplus()]
)
def test_other_activations(act: nn.Module) -> None:
    gm, want = (traced(nets.seeded(Units(act)), SHAPE) for _ in range(2))
    SwapActivation().run(gm, context())
    assert text(gm).count("ReLU") == 3
    assert "LeakyReLU" not in text(gm)
    assert error(gm, want) < 0.05


class Functions(nn.Module):
    """Activations called as functions: behind a sum of branches, and before a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.gate, self.last = (nn.Conv2d(i, 4, 1) for i in (3, 3, 4, 4))
        self.no = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.a(x) + self.no(self.b(x)))
        z = F.silu(self.gate(y))
        out: Tensor = self.last(y * torch.sigmoid(z))
        return out


def test_what_is_multiplied_is_fitted_without_a_constant() -> None:
    gm, want = (traced(nets.seeded(Functions()), SHAPE) for _ in range(2))
    SwapActivation().run(gm, context())
    assert text(gm).count("ReLU") == 2
    marks = [mark for node in gm.graph.nodes if (mark := Swapped.on(node))]
    assert [mark.m for mark in marks] == [(0.0, 0.0, 0.0), (0.0, 0.0, 0.0)]
    assert error(gm, want) < 0.1


class Stays(nn.Module):
    """Activations that cannot be swapped, one reason each."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.other, self.shared = (nn.Conv2d(i, 4, 1) for i in (3, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(x)
        x = F.silu(x) + x
        x = F.silu(F.max_pool2d(self.other(x), 2))
        out: Tensor = F.silu(self.shared(F.silu(self.shared(x))))
        return out


def test_what_stays_has_its_reason() -> None:
    gm, ctx = traced(nets.seeded(Stays()), SHAPE), context()
    before = text(gm)
    SwapActivation().run(gm, ctx)
    assert text(gm) == before
    assert [why for _, why in ctx.skips] == [
        "its input twice has other users",
        "its input max_pool2d is not computed by a convolution",
        "shared is called from more than one place",
        "shared is called from more than one place",
    ]
    assert ctx.records.says == ["there is no activation to swap"]


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"only": ("first",)}, ["ReLU", "SiLU", "SiLU"]),
        ({"keep": ("first", "si*")}, ["SiLU", "ReLU", "SiLU"]),
        ({"only": ("act",), "keep": ("inner",)}, ["ReLU", "SiLU", "ReLU"]),
    ],
)
def test_only_and_keep(options: dict[str, Any], kinds: list[str]) -> None:
    gm, want = (traced(nets.seeded(Units()), SHAPE) for _ in range(2))
    SwapActivation(**options).run(gm, context())
    found = [gm.get_submodule(n.target) for n in gm.graph.nodes if n.name.startswith("act")]
    assert [type(module).__name__ for module in found] == kinds
    assert error(gm, want) < 0.03


def test_max_drop_keeps_what_costs_most() -> None:
    """The judge here wants two of three activations to stay."""
    gm, ctx = traced(nets.seeded(Units()), SHAPE), context(40)
    judged: list[int] = []

    def agreement(graph: torch.fx.GraphModule) -> float:
        judged.append(text(graph).count("= ReLU"))
        return 1.0 - 0.02 * judged[-1]

    ctx.agreement = agreement
    Pipeline.parse("swap-activation{max_drop=2.1%}").run(gm, ctx)
    assert judged[:2] == [0, 3]
    (swapped,) = [mark for node in gm.graph.nodes if (mark := Swapped.on(node))]
    alone = traced(nets.seeded(Units()), SHAPE)
    SwapActivation().run(alone, context(40))
    damage = {m.layer: m.damage for n in alone.graph.nodes if (m := Swapped.on(n))}
    assert swapped.layer == min(damage, key=lambda layer: damage[layer])
    assert len([why for _, why in ctx.skips if why.startswith("stays: ")]) == 2
    assert ctx.records.says[-1] == "agreement with the float model 1.000 -> 0.980"


def test_what_is_lost_is_said() -> None:
    gm, ctx = traced(nets.seeded(Units()), SHAPE), context()
    ctx.agreement = lambda graph: 1.0 if "SiLU" in text(graph) else 0.1
    SwapActivation().run(gm, ctx)
    (warning,) = ctx.warnings
    assert warning.startswith("swap-activation: the agreement with the float model fell to 0.100")


def test_refusals() -> None:
    net = traced(nets.seeded(Units()), SHAPE)
    with pytest.raises(PassError, match=r"only=nothing\* matches no activation"):
        SwapActivation(only=("nothing*",)).run(net, context())
    with pytest.raises(PassError, match="there are no images to fit activations on"):
        SwapActivation().run(net, Context())
    with pytest.raises(PassError, match="max_drop needs a detector"):
        SwapActivation(max_drop=Share(0.01)).run(net, context())
    with torch.no_grad():
        net.get_parameter("inner.weight")[0, 0] = torch.nan
    with pytest.raises(PassError, match="node inner computes values that are not finite"):
        SwapActivation().run(net, context())
    quantized = traced(nets.seeded(Units()), SHAPE)
    Pipeline.parse("fold-bn,observe,calibrate,quantize").run(quantized, context())
    with pytest.raises(PassError, match="put swap-activation before int8 and the like"):
        SwapActivation().run(quantized, context())
    with pytest.raises(PipelineError, match=r"to must be one of relu, relu6, leaky-relu"):
        Pipeline.parse("swap-activation{to=tanhshrink}")
    with pytest.raises(PipelineError, match=r"max_drop must be a share such as 1% or 0\.01"):
        Pipeline.parse("swap-activation{max_drop=much}")
    with pytest.raises(PipelineError, match="max_drop must be 0 or above and below 1, not 100%"):
        Pipeline.parse("swap-activation{max_drop=100%}")


def test_few_pictures_are_warned_of() -> None:
    ctx = context(4)
    SwapActivation().run(traced(nets.seeded(Units()), SHAPE), ctx)
    (warning,) = ctx.warnings
    assert warning.startswith("activations were fitted on 4 pictures; give 8 or more")


def test_the_result_is_determined() -> None:
    graphs = [traced(nets.seeded(Units()), SHAPE) for _ in range(2)]
    for gm in graphs:
        Pipeline.parse("swap-activation").run(gm, context())
    assert fingerprint(graphs[0]) == fingerprint(graphs[1])


@pytest.mark.parametrize("options", [{"refit": "always"}, {"max_drop": Share(0.02)}])
def test_an_interrupted_swap_goes_on_and_ends_in_the_same(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is computed twice but the one step that was interrupted."""
    keep_everything(monkeypatch)
    original = traced(nets.seeded(Units()), SHAPE)
    find, steps = SwapWalk._find_step, list[str]()  # once a step
    monkeypatch.setattr(
        SwapWalk,
        "_find_step",
        lambda walk, unit: [steps.append(unit.node), find(walk, unit)][1],  # type: ignore[func-returns-value]
    )

    def swapped(memory: ShortMemory | None = None) -> str:
        gm, ctx = copy.deepcopy(original), context(4)
        ctx.agreement, ctx.cache = (lambda graph: 1 - error(graph, original)), memory
        SwapActivation(**options).run(gm, ctx)
        return fingerprint(gm)

    whole = swapped()
    wanted, attempts, memory, done = len(steps), 0, ShortMemory(0), ""
    steps.clear()
    while not done:
        attempts, memory.most = attempts + 1, 2
        with contextlib.suppress(KeyboardInterrupt):
            done = swapped(memory)
    assert done == whole
    assert attempts > wanted // 2
    assert len(steps) <= wanted + attempts
