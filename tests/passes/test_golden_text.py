"""The exact text that every built-in pass leaves of a small net; `--update-golden` writes it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from yqc import Context, Pipeline
from yqc.testing import assert_text, nets, traced
from yqc_passes import PASSES

GOLDEN = Path(__file__).with_name("golden")
UNCHANGED = {"recover", "relu", "swap-activation"}
"""Passes that train, or learn from images of a data set: their own tests look at them."""


def idle() -> nn.Module:
    return nets.chain(nn.Conv2d(3, 4, 1), nn.Identity(), nn.SiLU(), nn.Dropout())


CASES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "reparam": (nets.rep_conv, "reparam"),
    "fold-bn": (nets.residual, "fold-bn"),
    "dce": (idle, "dce"),
    "fuse": (nets.rep_conv, "fuse"),
    "equalize": (nets.residual, "fold-bn,equalize"),
    "decompose-silu": (nets.csp, "fold-bn,decompose-silu"),
    "observe": (nets.csp, "fold-bn,observe"),
    "calibrate": (nets.csp, "fold-bn,observe,calibrate"),
    "bias-correct": (nets.csp, "fold-bn,observe,calibrate,bias-correct"),
    "relax": (nets.csp, "fold-bn,observe,calibrate,relax{share=0.75 rate=0}"),
    "quantize": (nets.csp, "fold-bn,observe,calibrate,quantize"),
    "half": (nets.csp, "fold-bn,half"),
    "fp16": (nets.detector, "fp16"),
    "int8": (nets.csp, "int8"),
    "int8-onnxruntime": (nets.csp, "int8"),
    "int4": (nets.csp, "int4"),
    "pack-int4": (nets.residual, "fold-bn,pack-int4"),
    "codebook": (nets.csp, "codebook"),
    "cluster": (nets.residual, "fold-bn,cluster"),
    "rice": (nets.csp, "rice{bits=6}"),
    "pack-rice": (nets.residual, "fold-bn,pack-rice{bits=6}"),
    "channel-prune": (nets.detector, "channel-prune{ratio=0.3}"),
    "prune": (nets.detector, "prune{ratio=0.3}"),
    "slim": (nets.detector, "prune{ratio=0.3}"),
    "conv-for-focus": (
        lambda: nets.chain(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3)),
        "conv-for-focus",
    ),
    "conv-for-linear": (
        lambda: nets.chain(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)),
        "conv-for-linear",
    ),
    "conv-for-split": (nets.csp, "fold-bn,conv-for-split"),
    "deconv-for-resize": (lambda: nets.chain(nn.Upsample(scale_factor=2)), "deconv-for-resize"),
    "pad-in-conv": (lambda: nets.chain(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3)), "pad-in-conv"),
    "split-pools": (lambda: nets.chain(nn.MaxPool2d(5, 1, 2)), "split-pools"),
}
FOR_ONNXRUNTIME = {"decompose-silu", "int8-onnxruntime"}
"""Cases of the default target; the others are of `portable`, whose graphs are smaller."""


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_text_that_a_pass_leaves(name: str) -> None:
    net, passes = CASES[name]
    gm = traced(net(), (1, 3, 16, 16))
    images = [torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    target = "onnxruntime" if name in FOR_ONNXRUNTIME else "portable"
    ctx = Context(target=target, example=images[0], calibration=lambda: images)
    Pipeline.parse(passes).run(gm, ctx)
    assert_text(gm, GOLDEN / f"{name}.txt")


def test_every_built_in_pass_has_one() -> None:
    assert {*CASES, *UNCHANGED} >= PASSES.keys()
