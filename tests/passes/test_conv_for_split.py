"""conv-for-split: text, numbers, near-misses with their reasons, and the passes around it."""

import copy
import operator
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import yqc
from yqc.testing import apply, assert_same_numbers, assert_text, calibrated, nets, run, traced
from yqc_passes.conv_for_split import ConvForSplit

SHAPE = (1, 4, 8, 8)


class Split(nn.Module):
    """A convolution, its norm and activation, and something that splits what they compute."""

    def __init__(self, split: Any, **conv: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn = nn.Conv2d(4, 6, 3, padding=1, **conv), nn.BatchNorm2d(6)
        self.act, self.split = nn.SiLU(), split
        assert self.bn.running_mean is not None
        assert self.bn.running_var is not None
        nn.init.uniform_(self.bn.running_mean)
        nn.init.uniform_(self.bn.running_var, 0.5, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.split(self.act(self.bn(self.conv(x))))
        return out


def join(parts: Any) -> Tensor:
    """Concatenate the second half and the doubled first one."""
    return torch.cat([parts[1], parts[0] * 2], 1)


@pytest.mark.parametrize("bias", [False, True])
def test_parts_are_convolutions_of_their_own(bias: bool) -> None:
    gm = traced(Split(lambda y: join(y.chunk(2, 1)), bias=bias), SHAPE)
    want = run(gm)
    done = apply(ConvForSplit(), gm)
    assert_text(
        gm,
        """
        %x: f32[1,4,8,8] = input
        %conv_0: f32[1,3,8,8] = Conv2d(%x)
        %bn_0: f32[1,3,8,8] = BatchNorm2d(%conv_0)
        %act_0: f32[1,3,8,8] = SiLU(%bn_0)
        %conv_1: f32[1,3,8,8] = Conv2d(%x)
        %bn_1: f32[1,3,8,8] = BatchNorm2d(%conv_1)
        %act_1: f32[1,3,8,8] = SiLU(%bn_1)
        %mul: f32[1,3,8,8] = mul(%act_0, 2)
        %cat: f32[1,6,8,8] = cat([%act_1, %mul], 1)
        return %cat
        """,
    )
    assert_same_numbers(run(gm), want, tolerance=1e-5)
    assert done.rewrites == [("chunk", "conv became a convolution for each part")]
    assert done.skips == []


@pytest.mark.parametrize(
    "split",
    [
        lambda y: join(torch.split(y, [5, 1], dim=1)),
        lambda y: y.split((2, 4), 1)[-1],
        lambda y: torch.chunk(y, 4, 1)[2],
    ],
)
def test_any_sizes_and_only_the_parts_that_are_read(split: Any) -> None:
    gm = traced(Split(split), SHAPE)
    want = run(gm)
    assert apply("fold-bn,conv-for-split,dce", gm).changed
    assert_same_numbers(run(gm), want, tolerance=1e-5)
    read = [n for n in gm.graph.nodes if n.op == "call_module"]
    assert len(read) == (4 if len(want[0][0]) == 6 else 2)
    assert all(yqc.BatchNorm.on(n) is not None for n in read if "conv" in n.name)


@pytest.mark.parametrize(
    ("split", "conv", "skip"),
    [
        (lambda y: join(y.chunk(2, 1)) + y, {}, ("chunk", "act has other users")),
        (lambda y: join(y.chunk(2, 1)), {"groups": 2}, ("chunk", "its convolution has groups")),
        (
            lambda y: join(y.chunk(2, 2)),
            {},
            ("chunk", "it splits something else than the channels of an image"),
        ),
        (
            lambda y: join((y + 1).chunk(2, 1)),
            {},
            ("chunk", "no convolution computes what it splits"),
        ),
        (lambda y: torch.cat(y.chunk(2, 1), 1), {}, ("chunk", "cat reads all parts at once")),
    ],
)
def test_near_misses_stay(split: Any, conv: dict[str, Any], skip: tuple[str, str]) -> None:
    gm = traced(Split(split, **conv), SHAPE)
    done = apply(ConvForSplit(), gm)
    assert (done.skips, done.changed) == ([skip], False)


def test_a_convolution_that_is_called_twice_stays() -> None:
    class Twice(Split):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = super().forward(x) + self.conv(x)
            return y

    done = apply(ConvForSplit(), traced(Twice(lambda y: join(y.chunk(2, 1))), SHAPE))
    assert done.skips == [("chunk", "conv is called from more than one place")]


def splits(gm: fx.GraphModule) -> int:
    return sum(n.op == "call_method" and n.target in {"chunk", "split"} for n in gm.graph.nodes)


@pytest.mark.parametrize(
    "text",
    [
        "conv-for-split,prune{ratio=0.3 recover=0},int8{ranges=minmax}",
        "prune{ratio=0.3 recover=0},conv-for-split,int8{ranges=minmax}",
        "fuse,conv-for-split,pack-int4{rounding=nearest}",
        "conv-for-split,fp16",
    ],
)
def test_works_before_and_after_pruning_and_before_what_narrows_types(text: str) -> None:
    gm = traced(nets.csp(8), (1, 3, 8, 8))
    ctx = calibrated(gm)
    assert splits(gm) == 1
    ctx.original = copy.deepcopy(gm)
    apply(text, gm, ctx)
    assert splits(gm) == 0
    assert all(n.target is not operator.getitem for n in gm.graph.nodes)
    if "prune" in text:
        rows = [n for n in gm.graph.nodes if n.name in {"cv1_conv_0", "cv1_conv_1"}]
        assert len(rows) == 2
        assert sum(yqc.shape(n)[1] for n in rows) < 16


def test_comes_before_int8() -> None:
    with pytest.raises(yqc.PipelineError, match="put conv-for-split before int8"):
        yqc.Pipeline.parse("int8,conv-for-split").expand()
