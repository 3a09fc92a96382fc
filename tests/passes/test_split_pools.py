"""split-pools: text, numbers for many windows, and what stays with its reason."""

import pytest
import torch
from torch import Tensor, nn

from yqc.testing import apply, assert_same_numbers, assert_text, nets, run, traced
from yqc_passes.split_pools import SplitPools

SHAPE = (1, 2, 16, 16)


class Pyramid(nn.Module):
    """Three windows of one input beside each other, as in YOLOv7's SPPCSPC."""

    def __init__(self) -> None:
        super().__init__()
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, *(pool(x) for pool in self.pools)], 1)


def test_chains_of_one_input_share_their_beginnings() -> None:
    gm = traced(Pyramid(), SHAPE)
    want = run(gm)
    done = apply(SplitPools(), gm)
    assert_text(
        gm,
        """
        %x: f32[1,2,16,16] = input
        %pools_0_0: f32[1,2,16,16] = MaxPool2d(%x)
        %pools_0: f32[1,2,16,16] = MaxPool2d(%pools_0_0)
        %pools_1_2: f32[1,2,16,16] = MaxPool2d(%pools_0)
        %pools_1: f32[1,2,16,16] = MaxPool2d(%pools_1_2)
        %pools_2_4: f32[1,2,16,16] = MaxPool2d(%pools_1)
        %pools_2: f32[1,2,16,16] = MaxPool2d(%pools_2_4)
        %cat: f32[1,8,16,16] = cat([%x, %pools_0, %pools_1, %pools_2], 1)
        return %cat
        """,
    )
    assert_same_numbers(run(gm), want, tolerance=0)
    assert done.rewrites == [
        ("pools_0", "became a chain of 2 pools"),
        ("pools_1", "became a chain of 4 pools"),
        ("pools_2", "became a chain of 6 pools"),
    ]


@pytest.mark.parametrize("most", [2, 3, 4])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        (5, 1, 2),
        (5, 2, 1),
        (4, 4, 2),
        (7, 3, 0),
        (6, 2, 3),
        ((5, 3), (1, 2), (2, 0)),
        ((2, 9), 2, 1),
    ],
)
def test_any_window_stride_and_padding(
    kernel: int | tuple[int, int], stride: int, padding: int, most: int
) -> None:
    gm = traced(nets.chain(nn.MaxPool2d(kernel, stride, padding)), SHAPE)
    want = run(gm)
    apply(SplitPools(kernel=most), gm)
    assert_same_numbers(run(gm), want, tolerance=0)
    sizes = [m.kernel_size for m in gm.modules() if isinstance(m, nn.MaxPool2d)]
    assert all(max(size) <= most for size in sizes if isinstance(size, tuple))


@pytest.mark.parametrize(
    ("pool", "why"),
    [
        (nn.MaxPool2d(5, 1, 2, dilation=2), "its window is dilated"),
        (nn.MaxPool2d(5, 2, ceil_mode=True), "it rounds its size up"),
    ],
)
def test_what_is_no_chain_stays(pool: nn.MaxPool2d, why: str) -> None:
    gm = traced(nets.chain(pool), SHAPE)
    done = apply(SplitPools(), gm)
    assert (done.skips, done.changed) == ([("maxpool2d", why)], False)


def test_small_windows_are_none_of_its_business() -> None:
    done = apply(SplitPools(), traced(nets.chain(nn.MaxPool2d(3)), SHAPE))
    assert (done.skips, done.rewrites) == ([], [])
