"""conv-for-focus: text, numbers in each form, and what stays with its reason."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from yqc.models.blocks.conv import Focus, ReOrg
from yqc.testing import apply, assert_same_numbers, assert_text, nets, run, traced
from yqc_passes.conv_for_focus import ConvForFocus

SHAPE = (1, 3, 8, 12)


class Sliced(nn.Module):
    """Four slices beside each other, and a convolution."""

    def __init__(self, starts: str = "00 10 01 11", tap: bool = False, **conv: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.starts = [(int(a), int(b)) for a, b in map(tuple, starts.split())]
        self.conv, self.tap = nn.Conv2d(12, 4, 3, padding=1, **conv), tap

    def forward(self, x: Tensor) -> Tensor:
        moved = torch.cat([x[:, :, a::2, b::2] for a, b in self.starts], 1)
        out: Tensor = self.conv(moved)
        return torch.cat([out, moved], 1) if self.tap else out


def test_becomes_one_convolution() -> None:
    gm = traced(nets.seeded(Focus(3, 4, 3)), SHAPE)
    want = run(gm)
    done = apply(ConvForFocus(), gm)
    assert_text(
        gm,
        """
        %x: f32[1,3,8,12] = input
        %conv_conv: f32[1,4,4,6] = Conv2d(%x)
        %conv_bn: f32[1,4,4,6] = BatchNorm2d(%conv_conv)
        %conv_act: f32[1,4,4,6] = SiLU(%conv_bn)
        return %conv_act
        """,
    )
    assert_same_numbers(run(gm), want, tolerance=1e-5)
    assert done.rewrites == [("conv_conv", "took in the space-to-depth cat")]
    conv = gm.get_submodule("conv.conv")
    found: tuple[object, ...] = (conv.kernel_size, conv.stride, conv.padding)
    assert found == ((6, 6), (2, 2), (2, 2))


@pytest.mark.parametrize(
    "net",
    [
        nets.chain(ReOrg(), nn.Conv2d(12, 4, 3, 2, 1)),
        Sliced("11 00 01 10", stride=(1, 2)),
        nets.chain(nn.PixelUnshuffle(4), nn.Conv2d(48, 4, (1, 3), 1, (0, 1), bias=False)),
    ],
)
def test_any_order_and_size_of_squares(net: nn.Module) -> None:
    gm = traced(net, SHAPE)
    want = run(gm)
    assert len(apply(ConvForFocus(), gm).rewrites) == 1
    assert_same_numbers(run(gm), want, tolerance=1e-5)
    assert len(gm.graph.nodes) == 3


@pytest.mark.parametrize(
    ("net", "skip"),
    [
        (Sliced(tap=True), ("cat", "cat has other users")),
        (Sliced(groups=4), ("cat", "its convolution has groups or is dilated")),
        (
            nets.chain(nn.PixelUnshuffle(2), nn.ReLU()),
            ("pixelunshuffle", "no convolution reads it"),
        ),
    ],
)
def test_near_misses_stay(net: nn.Module, skip: tuple[str, str]) -> None:
    gm = traced(net, SHAPE)
    done = apply(ConvForFocus(), gm)
    assert (done.skips, done.changed) == ([skip], False)


def test_slices_that_leave_pixels_out_are_no_space_to_depth() -> None:
    done = apply(ConvForFocus(), traced(Sliced("00 10 01 00"), SHAPE))
    assert (done.skips, done.changed) == ([], False)
