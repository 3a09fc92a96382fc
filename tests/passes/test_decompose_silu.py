"""decompose-silu: text, numbers, near-misses with their reasons."""

import torch
from torch import Tensor, nn

from yqc.testing import apply, assert_same_numbers, assert_text, run, traced
from yqc_passes.decompose_silu import DecomposeSilu
from yqc_passes.fold_bn import FoldBatchNorm
from yqc_passes.pack_int4 import PackInt4


class Units(nn.Module):
    """A convolution of an image, a wide one, and one whose result is read twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.wide, self.twice = (nn.Conv2d(i, 4, 1) for i in (3, 4, 4))
        self.act, self.leaky = nn.SiLU(), nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.wide(self.act(self.image(x))))
        y = self.twice(x)
        out: Tensor = self.leaky(self.act(y) + y)
        return out


def test_decomposes_what_a_wide_convolution_computes_and_nothing_else() -> None:
    gm = traced(Units(), (1, 3, 4, 4))
    want = run(gm)
    done = apply(DecomposeSilu(), gm)
    assert_text(
        gm,
        """
        %x: f32[1,3,4,4] = input
        %image: f32[1,4,4,4] = Conv2d(%x)
        %act: f32[1,4,4,4] = SiLU(%image)
        %wide: f32[1,4,4,4] = Conv2d(%act)
        %act_1_sigmoid: f32[1,4,4,4] = sigmoid(%wide)
        %act_1: f32[1,4,4,4] = mul(%wide, %act_1_sigmoid)
        %twice: f32[1,4,4,4] = Conv2d(%act_1)
        %act_2: f32[1,4,4,4] = SiLU(%twice)
        %add: f32[1,4,4,4] = add(%act_2, %twice)
        %leaky: f32[1,4,4,4] = LeakyReLU(%add)
        return %leaky
        """,
    )
    assert_same_numbers(run(gm), want, tolerance=1e-6)
    assert done.rewrites == [("act_1", "became x * sigmoid(x)")]
    assert done.skips == [
        ("act", "its convolution reads at most 3 channels and stays in float"),
        ("act_2", "twice has other users"),
    ]


def test_decomposes_behind_packed_weights() -> None:
    gm = traced(Units(), (1, 3, 4, 4))
    for action in (FoldBatchNorm(), PackInt4(rounding="nearest")):
        apply(action, gm)
    assert apply(DecomposeSilu(), gm).rewrites == [("act_1", "became x * sigmoid(x)")]
