"""Half beside integers: what is stored in it and what is not; the arithmetic stays as it is."""

import pytest
import torch
from torch import fx, nn

from yqc import calls, text
from yqc.graph.half import holds_half
from yqc.graph.values import TensorSpec
from yqc.job.layers import list_layers
from yqc.quantizing.half_storage import keeps_each, keeps_size
from yqc.testing import apply, assert_same_numbers, calibrated, nets, run, traced
from yqc_passes.half import Half

SHAPE = (1, 3, 8, 8)


def compiled(passes: str, net: nn.Module | None = None) -> fx.GraphModule:
    gm = traced(net or nets.csp(), SHAPE)
    apply(passes, gm, calibrated(gm))
    return gm


def held(gm: fx.GraphModule) -> set[str]:
    """Return the types of the tensors that a graph holds."""
    values = (n.meta["yqc.value"] for n in gm.graph.nodes if n.op == "get_attr")
    return {str(v.dtype).removeprefix("torch.") for v in values if isinstance(v, TensorSpec)}


def test_biases_and_scales_of_an_int8_layer_are_stored_in_half() -> None:
    gm = compiled("int8", nets.chain(nn.Conv2d(3, 4, 1), nn.ReLU()))
    want = run(gm)
    done = apply(Half(), gm)
    assert done.rewrites == [
        ("conv2d_bias", "stored in half"),
        ("conv2d_weight_scale", "stored in half"),
    ]
    assert (
        "2 tensors are stored in half; the arithmetic stays as it is" in done.context.records.says
    )
    assert {
        "%conv2d_weight_q: i8[4,3,1,1] = attr(conv2d.weight_q)",
        "%conv2d_weight_scale: f16[4] = attr(conv2d.weight_scale)",
        "%conv2d_weight_scale_float: f32[4] = to(%conv2d_weight_scale, float32)",
        "%conv2d_bias: f16[4] = attr(conv2d.bias)",
        "%conv2d_bias_float: f32[4] = to(%conv2d_bias, float32)",
    } <= set(text(gm).splitlines())
    assert_same_numbers(run(gm), want, tolerance=1e-3)


@pytest.mark.parametrize("passes", ["int8", "int4", "codebook", "int4,int8", "int8{skip=cv1*}"])
def test_nothing_is_computed_in_half_beside_integers(passes: str) -> None:
    gm = compiled(passes)
    want = run(gm)
    apply("fp16", gm)
    assert not holds_half(gm)
    vectors = {
        n.name
        for n in gm.graph.nodes
        if n.op == "get_attr"
        and str(n.meta["yqc.value"]).startswith("f32[")
        and len(n.meta["yqc.value"].shape)
    }
    assert not vectors
    assert_same_numbers(run(gm), want, tolerance=0.03)  # some integers take another step


def test_layers_that_stay_in_float_are_stored_in_half() -> None:
    gm = compiled("int4{skip=cv1*}")
    want = run(gm)
    done = apply(Half(), gm)
    assert ("cv1_conv", "weight stored in half") in done.rewrites
    assert not calls(gm, nn.Conv2d)
    assert_same_numbers(run(gm), want, tolerance=1e-3)
    layer = next(one for one in list_layers(gm, {}) if one.name == "cv1.conv")
    assert (layer.weight_bits, layer.activation_bits, layer.scheme) == (16, 32, "float")


def test_what_is_asked_for_stays_in_float32() -> None:
    gm = compiled("int4{skip=cv1*}")
    done = apply(Half(skip=("cv1*",)), gm)
    assert ("cv1_conv", "asked to skip it") in done.skips
    assert len(calls(gm, nn.Conv2d)) == 1


def test_a_scale_that_half_would_round_away_stays_in_float32() -> None:
    gm = compiled("int8")
    scale = gm.get_buffer("cv2.conv.weight_scale")
    scale[1] = 1e-8
    done = apply(Half(), gm)
    assert ("cv2_conv_weight_scale", "it loses digits in half") in done.skips
    assert gm.get_buffer("cv2.conv.weight_scale").dtype == torch.float32
    assert gm.get_buffer("m.conv.weight_scale").dtype == torch.float16


@pytest.mark.parametrize(
    ("values", "each", "size"),
    [
        ([1.0, -3.1416, 60000.0], True, True),
        ([1.0, 1e-9], False, True),
        ([1.0, 1e5], False, False),
        ([1e-9, 2e-9], False, False),
        ([0.0, 0.0], True, True),
    ],
)
def test_which_values_half_keeps(values: list[float], each: bool, size: bool) -> None:
    tensor = torch.tensor(values)
    assert (keeps_each(tensor), keeps_size(tensor)) == (each, size)
