"""Small passes and recipes for the tests of what runs them."""

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import pytest
import torch
from torch import fx, nn

from yqc import Context, Given, Pass, Pipeline, Recipe, Registry, Watcher, calls, trace
from yqc.errors import PassError
from yqc.pipeline.registry import Found

X = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))

Words: TypeAlias = frozenset[str]


@dataclass(frozen=True)
class Fold(Pass):
    name: ClassVar[str] = "fold"
    provides: ClassVar[Words] = frozenset({"folded"})
    removes: ClassVar[Words] = frozenset({"batch-norm"})

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Collect(Fold):
    name: ClassVar[str] = "collect"
    requires: ClassVar[Words] = frozenset({"batch-norm"})
    provides: ClassVar[Words] = frozenset({"collected"})
    removes: ClassVar[Words] = frozenset()


@dataclass(frozen=True)
class Calibrate(Fold):
    name: ClassVar[str] = "calibrate"
    requires: ClassVar[Words] = frozenset({"folded"})
    provides: ClassVar[Words] = frozenset({"calibrated"})
    removes: ClassVar[Words] = frozenset()


@dataclass(frozen=True)
class Quantize(Fold):
    name: ClassVar[str] = "quantize"
    provides: ClassVar[Words] = frozenset({"quantized"})
    removes: ClassVar[Words] = frozenset()

    weights_only: bool = False

    def needs(self) -> frozenset[str]:
        return frozenset() if self.weights_only else frozenset({"calibrated"})


@dataclass(frozen=True)
class Pack(Fold):
    name: ClassVar[str] = "pack"
    requires: ClassVar[Words] = frozenset({"magic"})
    provides: ClassVar[Words] = frozenset()


@dataclass(frozen=True)
class Eight(Recipe):
    name: ClassVar[str] = "eight"

    weights_only: bool = False

    def expand(self, given: Given) -> str:
        return f"fold,calibrate,quantize{{weights-only={str(self.weights_only).lower()}}}"


@dataclass(frozen=True)
class Both(Recipe):
    name: ClassVar[str] = "both"

    def expand(self, given: Given) -> str:
        return "collect,eight,idle"


@dataclass(frozen=True)
class Loop(Recipe):
    name: ClassVar[str] = "loop"

    def expand(self) -> str:  # type: ignore[override]  # as written for earlier versions
        return "fold,loop"


@dataclass(frozen=True)
class Idle(Pass):
    name: ClassVar[str] = "idle"
    keeps_numbers: ClassVar[bool] = True

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for each in calls(gm, nn.Conv2d):
            ctx.skipped(each.node, "there is nothing to do")


@dataclass(frozen=True)
class Scale(Pass):
    """Multiply the weights of every convolution."""

    name: ClassVar[str] = "scale"

    by: float = 2.0

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for each in calls(gm, nn.Conv2d):
            with torch.no_grad():
                each.module.weight *= self.by
            ctx.rewrote(each.node, f"times {self.by:g}")


@dataclass(frozen=True)
class Liar(Scale):
    name: ClassVar[str] = "liar"
    keeps_numbers: ClassVar[bool] = True


@dataclass(frozen=True)
class Crash(Pass):
    name: ClassVar[str] = "crash"

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        Scale().run(gm, ctx)
        raise ZeroDivisionError("a channel without weights")


@dataclass(frozen=True)
class Widen(Pass):
    name: ClassVar[str] = "widen"

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        gm.set_submodule(calls(gm, nn.Conv2d)[-1].target, nn.Conv2d(4, 5, 1))


@dataclass(frozen=True)
class Misfit(Pass):
    name: ClassVar[str] = "misfit"

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        gm.set_submodule(calls(gm, nn.Conv2d)[0].target, nn.Conv2d(3, 7, 1))


@dataclass(frozen=True)
class Break(Pass):
    name: ClassVar[str] = "break"

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        first, second = calls(gm, nn.Conv2d)
        first.node.args = (second.node,)


def registry(*kinds: type[Pass] | type[Recipe]) -> Registry:
    """Return what finds these passes, and no others."""
    made = Registry()
    for kind in kinds:
        made.add(Found(kind.name, f"{__name__}:{kind.__name__}", "tests"))
        made.loaded[kind.name] = kind
    return made


ALL = registry(
    *(Fold, Collect, Calibrate, Quantize, Pack, Eight, Both, Loop),
    *(Idle, Scale, Liar, Crash, Widen, Misfit, Break),
)


def net() -> fx.GraphModule:
    """Trace two convolutions with a SiLU between them."""
    torch.manual_seed(1)
    return trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 1)), X)


def failure(passes: str, gm: fx.GraphModule, *watchers: Watcher) -> PassError:
    """Run a pipeline that must fail; return how it did."""
    with pytest.raises(PassError) as caught:
        Pipeline.parse(passes, ALL).run(gm, Context(example=X), watchers)
    return caught.value
