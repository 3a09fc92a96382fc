"""deconv-for-resize: text, equal bits, and what stays with its reason."""

import onnx
import pytest
import torch.nn.functional as F
from torch import Tensor, nn

import yqc
from yqc.emit import emit
from yqc.testing import apply, assert_same_numbers, assert_text, calibrated, nets, run, traced
from yqc_passes.deconv_for_resize import DeconvForResize

SHAPE = (1, 3, 4, 6)


class Interpolated(nn.Module):
    """The same by a function, with another factor along each axis."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=(3, 2), mode="nearest")


def test_repeats_pixels_bit_by_bit() -> None:
    gm = traced(nets.chain(nn.Upsample(scale_factor=2), nn.ReLU()), SHAPE)
    want = run(gm)
    done = apply(DeconvForResize(), gm)
    assert_text(
        gm,
        """
        %x: f32[1,3,4,6] = input
        %upsample: f32[1,3,8,12] = ConvTranspose2d(%x)
        %relu: f32[1,3,8,12] = ReLU(%upsample)
        return %relu
        """,
    )
    assert_same_numbers(run(gm), want, tolerance=0)
    assert done.rewrites == [("upsample", "became a transposed convolution")]


def test_functions_too() -> None:
    gm = traced(Interpolated(), SHAPE)
    want = run(gm)
    assert apply(DeconvForResize(), gm).rewrites == [
        ("interpolate", "became a transposed convolution")
    ]
    assert_same_numbers(run(gm), want, tolerance=0)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (nn.Upsample(scale_factor=2, mode="bilinear"), "it interpolates by mode bilinear"),
        (nn.Upsample(scale_factor=1.5), "its factor is no whole number"),
        (nn.Upsample(size=(8, 12)), "it names the size, and not the factor"),
    ],
)
def test_what_repeats_no_pixels_stays(module: nn.Upsample, why: str) -> None:
    gm = traced(nets.chain(module), SHAPE)
    done = apply(DeconvForResize(), gm)
    assert (done.skips, done.changed) == ([("upsample", why)], False)


def test_int8_gives_both_sides_one_scale() -> None:
    """As it does around an upsampling: the values on both sides are the same."""
    body = [nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 1)]
    gm = traced(nets.chain(*body), SHAPE)
    ctx = calibrated(gm)
    ctx.target = "portable"
    yqc.Pipeline.parse("deconv-for-resize,int8{ranges=minmax}").run(gm, ctx)
    scales = {n.name: n.args[1] for n in gm.graph.nodes if n.name in {"conv2d_q", "upsample_q"}}
    assert scales["conv2d_q"].target == scales["upsample_q"].target


def test_int8_gives_int8_weights_of_the_same_numbers() -> None:
    body = [nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 1)]
    results = []
    for first in ("deconv-for-resize,", ""):
        gm = traced(nets.chain(*body), SHAPE)
        ctx = calibrated(gm)
        ctx.target = "portable"
        yqc.Pipeline.parse(f"{first}int8{{ranges=minmax}}").run(gm, ctx)
        results.append((gm, run(gm)))
    assert_same_numbers(results[0][1], results[1][1], tolerance=0)
    model = emit(results[0][0], target="portable")
    onnx.checker.check_model(model, full_check=True)
    maker = {name: node for node in model.graph.node for name in node.output}
    (conv,) = (node for node in model.graph.node if node.op_type == "ConvTranspose")
    weight = maker[conv.input[1]]
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert (weight.op_type, types[weight.input[0]]) == ("DequantizeLinear", onnx.TensorProto.INT8)


class Twice(nn.Module):
    """One module that upsamples at two places, of other channels."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.conv = nn.Upsample(scale_factor=2), nn.Conv2d(3, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(self.conv(self.up(x)))
        return y


def test_a_module_that_is_called_twice_becomes_two() -> None:
    gm = traced(Twice(), SHAPE)
    want = run(gm)
    assert len(apply(DeconvForResize(), gm).rewrites) == 2
    assert_same_numbers(run(gm), want, tolerance=0)
