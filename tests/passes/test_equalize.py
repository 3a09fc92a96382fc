import pytest
import torch
from torch import Tensor, nn

from yqc import Context, calls, text, trace
from yqc_passes.equalize import Equalize

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Pair(nn.Module):
    def __init__(self, act: nn.Module, *, depthwise: bool = False, tap: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.a, self.act, self.tap = nn.Conv2d(3, 6, 3), act, tap
        self.b = nn.Conv2d(6, 6, 3, groups=6 if depthwise else 1)
        self.a.weight.data *= torch.logspace(-2, 2, 6).view(-1, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.a(x))
        z: Tensor = self.b(y)
        return z + y[:, :, 1:-1, 1:-1] if self.tap else z


@pytest.mark.parametrize("act", [nn.ReLU(), nn.LeakyReLU(0.1), nn.Identity()])
@pytest.mark.parametrize("depthwise", [False, True])
def test_equalizes_both_sides_and_keeps_the_numbers(act: nn.Module, depthwise: bool) -> None:
    module = Pair(act, depthwise=depthwise)
    gm, ctx = trace(module, X), Context()
    want, before = gm(X), text(gm)
    Equalize(limit=1e4).run(gm, ctx)
    torch.testing.assert_close(gm(X), want, rtol=1e-4, atol=1e-4)
    assert text(gm) == before
    assert [(r.node, r.what) for r in ctx.rewrites] == [("b", "equalized with a")]
    first, second = (c.module for c in calls(gm, nn.Conv2d))
    outgoing = first.weight.flatten(1).abs().amax(1)
    by_input = second.weight.transpose(0, 1) if depthwise else second.weight
    torch.testing.assert_close(outgoing, by_input.abs().amax((0, 2, 3)))


def test_leaves_what_does_not_scale_alone_and_says_why() -> None:
    gm, ctx = trace(Pair(nn.SiLU()), X), Context()
    want = gm(X)
    Equalize().run(gm, ctx)
    assert ctx.skips == [("b", "act is a SiLU, which does not scale")]
    assert torch.equal(gm(X), want)


def test_leaves_a_pair_that_something_else_reads_alone() -> None:
    gm, ctx = trace(Pair(nn.ReLU(), tap=True), X), Context()
    Equalize().run(gm, ctx)
    assert ctx.skips == [("b", "act has other users")]


def test_leaves_grouped_convolutions_alone() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1, groups=4))
    gm, ctx = trace(net, X), Context()
    Equalize().run(gm, ctx)
    assert ctx.skips == [("_2", "_2 is a grouped convolution")]
