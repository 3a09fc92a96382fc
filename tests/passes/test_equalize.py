"""equalize: which pairs it rescales, that the numbers stay, and which it leaves alone."""

import pytest
import torch
from torch import Tensor, nn

from yqc import calls, text
from yqc.testing import apply, assert_same_numbers, nets, run, traced
from yqc_passes.equalize import Equalize

SHAPE = (2, 3, 8, 8)


class Pair(nn.Module):
    def __init__(self, act: nn.Module, *, depthwise: bool = False, tap: bool = False) -> None:
        super().__init__()
        self.a, self.act, self.tap = nn.Conv2d(3, 6, 3), act, tap
        self.b = nn.Conv2d(6, 6, 3, groups=6 if depthwise else 1)
        nets.seeded(self)
        self.a.weight.data *= torch.logspace(-2, 2, 6).view(-1, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.a(x))
        z: Tensor = self.b(y)
        return z + y[:, :, 1:-1, 1:-1] if self.tap else z


@pytest.mark.parametrize("act", [nn.ReLU(), nn.LeakyReLU(0.1), nn.Identity()])
@pytest.mark.parametrize("depthwise", [False, True])
def test_equalizes_both_sides_and_keeps_the_numbers(act: nn.Module, depthwise: bool) -> None:
    gm = traced(Pair(act, depthwise=depthwise), SHAPE)
    want, before = run(gm), text(gm)
    done = apply(Equalize(limit=1e4), gm)
    assert_same_numbers(run(gm), want, tolerance=1e-5)
    assert text(gm) == before
    assert done.rewrites == [("b", "equalized with a")]
    first, second = (c.module for c in calls(gm, nn.Conv2d))
    outgoing = first.weight.flatten(1).abs().amax(1)
    by_input = second.weight.transpose(0, 1) if depthwise else second.weight
    torch.testing.assert_close(outgoing, by_input.abs().amax((0, 2, 3)))


def test_equalizes_through_several_modules() -> None:
    layers = (
        nn.Conv2d(3, 4, 1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 1),
    )
    gm = traced(nets.chain(*layers), SHAPE)
    want = run(gm)
    assert apply(Equalize(), gm).rewrites == [
        ("conv2d_1", "equalized with conv2d"),
        ("conv2d_2", "equalized with conv2d_1"),
    ]
    assert_same_numbers(run(gm), want, tolerance=1e-5)


@pytest.mark.parametrize(
    ("net", "skip"),
    [
        (Pair(nn.SiLU()), ("b", "act is a SiLU, which does not scale")),
        (Pair(nn.ReLU(), tap=True), ("b", "act has other users")),
        (
            nets.chain(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1, groups=4)),
            ("conv2d_1", "conv2d_1 is a grouped convolution"),
        ),
    ],
    ids=["does not scale", "other user", "grouped"],
)
def test_leaves_a_near_miss_alone_and_says_why(net: nn.Module, skip: tuple[str, str]) -> None:
    done = apply(Equalize(), traced(net, SHAPE))
    assert not done.changed
    assert (done.rewrites, done.skips) == ([], [skip])
