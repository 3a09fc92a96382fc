"""pad-in-conv: text, numbers for even and uneven sides, and what stays with its reason."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yqc.testing import apply, assert_same_numbers, assert_text, nets, run, traced
from yqc_passes.pad_in_conv import PadInConv

SHAPE = (1, 3, 7, 8)


class Padded(nn.Module):
    """A padding by a function, and a convolution."""

    def __init__(self, sides: tuple[int, ...], **how: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.sides, self.how = nn.Conv2d(3, 4, 3, 2, 1), sides, how

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(x, self.sides, **self.how))
        return out


def test_the_convolution_pads_by_itself() -> None:
    gm = traced(nets.chain(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3)), SHAPE)
    want = run(gm)
    done = apply(PadInConv(), gm)
    assert_text(
        gm,
        """
        %x: f32[1,3,7,8] = input
        %conv2d: f32[1,4,7,8] = Conv2d(%x)
        return %conv2d
        """,
    )
    assert_same_numbers(run(gm), want, tolerance=1e-6)
    assert done.rewrites == [("conv2d", "pads by itself, as zeropad2d did")]
    assert gm.get_submodule("conv2d").padding == (1, 1)


@pytest.mark.parametrize("sides", [(0, 1, 0, 1), (2, 0, 1, 3), (1, 1), (0, 3, 0, 0)])
def test_a_kernel_grows_by_what_the_sides_differ(sides: tuple[int, ...]) -> None:
    gm = traced(Padded(sides), SHAPE)
    want = run(gm)
    assert [name for name, _ in apply(PadInConv(), gm).rewrites] == ["conv"]
    assert_same_numbers(run(gm), want, tolerance=1e-6)
    differ = [abs(a - b) for a, b in zip(sides[::2], sides[1::2], strict=True)]
    grown = gm.get_submodule("conv").kernel_size
    assert grown == (3 + (differ[1] if len(differ) > 1 else 0), 3 + differ[0])


@pytest.mark.parametrize(
    ("net", "skip"),
    [
        (
            Padded((1, 1, 1, 1), value=0.5),
            ("conv", "pad pads with something else than zeros, or another axis"),
        ),
        (
            Padded((1, 1, 1, 1), mode="reflect"),
            ("conv", "pad pads with something else than zeros, or another axis"),
        ),
        (Padded((1, -1)), ("conv", "pad cuts off what is at the edge")),
        (
            nets.chain(nn.ZeroPad2d((0, 1, 0, 0)), nn.Conv2d(3, 4, 3, dilation=2)),
            ("conv2d", "its kernel is dilated, and the padding differs by side"),
        ),
        (
            nets.chain(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")),
            ("conv2d", "its own padding is not by a number of zeros"),
        ),
    ],
)
def test_near_misses_stay(net: nn.Module, skip: tuple[str, str]) -> None:
    gm = traced(net, SHAPE)
    done = apply(PadInConv(), gm)
    assert (done.skips, done.changed) == ([skip], False)
