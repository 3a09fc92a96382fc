import copy
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

from tests.passes.nets import X, calibrated, images, traced
from yqc import Context, Pipeline, text
from yqc.emit import emit, weight_bytes
from yqc.errors import PipelineError
from yqc.graph.serial import load_graph, save_graph
from yqc.linting import lint
from yqc.quant import QuantizedLayer
from yqc.testing import nets
from yqc.testing import traced as traced_net
from yqc.training.fake_quantize import IntegerWeight, make_trainable


def test_replaces_observers_and_weights() -> None:
    gm = traced("int8", calibrated())
    x, w = "images_group_scale, %images_group_zero", "stem_conv_weight"
    settings = "(1, 1), (1, 1), (1, 1), 1"
    assert text(gm).splitlines()[:11] == [
        "%images: f32[1,3,8,8] = input",
        "%images_group_scale: f32[] = attr(images_group_scale)",
        "%images_group_zero: u8[] = attr(images_group_zero)",
        f"%images_q: u8[1,3,8,8] = yqc.quantize_linear(%images, %{x})",
        f"%images_dq: f32[1,3,8,8] = yqc.dequantize_linear(%images_q, %{x})",
        f"%{w}_q: i8[4,3,3,3] = attr(stem.conv.weight_q)",
        f"%{w}_scale: f32[4] = attr(stem.conv.weight_scale)",
        "%stem_conv_bias: f32[4] = attr(stem.conv.bias)",
        f"%{w}: f32[4,3,3,3] = yqc.dequantize_linear(%{w}_q, %{w}_scale, None, 0)",
        f"%stem_conv: f32[1,4,8,8] = conv2d(%images_dq, %{w}, %stem_conv_bias, {settings})",
        "%stem_act: f32[1,4,8,8] = SiLU(%stem_conv)",
    ]


def test_the_numbers_stay_near_and_the_ratio_is_recorded() -> None:
    with torch.no_grad():
        gm, want = traced("int8", calibrated()), traced("fold-bn")(X)
        got = gm(X)
    noise = (got - want).square().sum() / want.square().sum()
    assert 0 < noise < 1e-3
    layers = {n.name: n.meta["yqc.layer"] for n in gm.graph.nodes if "yqc.layer" in n.meta}
    assert list(layers) == ["stem_conv", "a_conv", "b_conv", "out"]
    last = layers["out"]
    assert isinstance(last, QuantizedLayer)
    assert last.sqnr_db == pytest.approx(float(-10 * noise.log10()), abs=1e-3)
    assert (last.weight_bits, last.weight_bytes) == (8, 16 + 8 + 8)


@pytest.mark.parametrize("target", ["portable", "onnxruntime", "openvino", "tensorrt"])
def test_onnxruntime_computes_the_same(target: str) -> None:
    ctx = Context(example=X, calibration=images, target=target)
    gm = traced("int8", ctx)
    model = emit(gm, target=target)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    got = session.run(None, {"images": X.numpy()})[0]
    want = gm(X).detach().numpy()
    assert np.abs(got - want).max() <= 0.02 * np.abs(want).max()
    assert np.median(np.abs(got - want)) < 1e-5
    assert weight_bytes(model) < 400
    plain = emit(gm, target="portable")  # the other forms decode weights in the file
    kinds = [i.data_type for i in plain.graph.initializer if i.name.endswith("weight_q")]
    assert kinds == [3] * 4  # TensorProto.INT8


def test_a_quantized_graph_saves_and_loads(tmp_path: Path) -> None:
    gm = traced("int8", calibrated())
    save_graph(gm, tmp_path / "q.yqc")
    back, _, _ = load_graph(tmp_path / "q.yqc")
    assert text(back) == text(gm)
    assert torch.equal(back(X), gm(X))


@pytest.mark.parametrize("weights", ["minmax", "mse"])
def test_seven_bits_keep_two_products_within_sixteen(weights: str) -> None:
    """A CPU without VNNI adds two products in 16 bits, and 2 * 255 * 63 < 32768."""
    steps = f"calibrate{{reduce-range=true weights={weights}}},bias-correct,quantize"
    gm = traced(f"fold-bn,observe,{steps}", calibrated())
    integers = [p for name, p in gm.named_parameters() if name.endswith("weight_q")]
    assert len(integers) == 4
    assert {int(q.abs().max()) for q in integers} == {63}
    assert all(q.dtype == torch.int8 for q in integers)
    with torch.no_grad():
        want, full = traced("fold-bn")(X), traced("int8", calibrated())
        errors = [float((g(X) - want).square().sum() / want.square().sum()) for g in (gm, full)]
    assert errors[1] < errors[0] < 2e-3


def test_training_does_not_widen_seven_bits() -> None:
    gm = traced("int8{reduce_range=true}", calibrated())
    weights = [w for w in make_trainable(copy.deepcopy(gm)) if isinstance(w, IntegerWeight)]
    assert len(weights) == 4
    for weight in weights:
        with torch.no_grad():
            weight.value.mul_(1.7)
        weight.store(gm)
    integers = [p for name, p in gm.named_parameters() if name.endswith("weight_q")]
    assert {int(q.abs().max()) for q in integers} == {63}


def test_linting_a_file_of_seven_bits_finds_nothing_that_saturates() -> None:
    for passes, count in (("int8", 4), ("int8{reduce_range=true}", 0)):
        found = lint(emit(traced(passes, calibrated()), target="portable"), "portable")
        assert [f.rule for f in found].count("saturation") == count


def test_needs_calibration() -> None:
    with pytest.raises(PipelineError, match="put calibrate before it"):
        Pipeline.parse("fold-bn,observe,quantize").expand()


def test_a_scale_that_is_there_already_is_not_repeated_for_openvino() -> None:
    repeated = traced("int8", Context(example=X, calibration=images, target="portable"))
    gm = traced("int8", Context(example=X, calibration=images, target="openvino"))
    names = [n.name for n in gm.graph.nodes]
    assert [n for n in names if n in {"cat_q", "pool_q"}] == []
    assert {"cat_q", "pool_q"} <= {n.name for n in repeated.graph.nodes}
    layers = [n.meta["yqc.layer"] for n in gm.graph.nodes if "yqc.layer" in n.meta]
    assert {layer.activation_bits for layer in layers} == {8}
    with torch.no_grad():
        assert torch.equal(gm(X), repeated(X))


@pytest.mark.parametrize(("mode", "count"), [("nearest", 0), ("bilinear", 1)])
def test_a_smooth_upsampling_is_rounded_again_for_openvino(mode: str, count: int) -> None:
    upsampling = nn.Upsample(scale_factor=2, mode=mode)
    net = nets.chain(nn.Conv2d(3, 4, 1), nn.ReLU(), upsampling, nn.Conv2d(4, 4, 1))
    gm = traced_net(net, (1, 3, 8, 8))
    ctx = Context(example=X, calibration=images, target="openvino")
    Pipeline.parse("int8").run(gm, ctx)
    behind = [n for n in gm.graph.nodes if n.target is torch.ops.yqc.quantize_linear]
    assert len(behind) == 2 + count  # the image, the ReLU
