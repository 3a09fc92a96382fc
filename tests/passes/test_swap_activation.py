"""swap-activation: what is fitted, what stays, what it refuses, and what the emitted file holds."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from yqc import Context, text
from yqc.errors import PassError
from yqc.graph.metadata import Swapped
from yqc.pipeline.pipeline import Pipeline
from yqc.testing import nets, run, traced
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
