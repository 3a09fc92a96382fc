"""Upsampling of integers is written as copies of whole pixels for onnxruntime."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

import yqc
from yqc.emit import emit
from yqc.emit.pixels import write_pixels
from yqc.pipeline.base import Context
from yqc.targets import Limits, find_target
from yqc.testing import nets

X = torch.rand(1, 3, 6, 4, generator=torch.Generator().manual_seed(0))
ORT = find_target("onnxruntime")
UPSAMPLINGS = {
    "nearest": nn.Upsample(scale_factor=2),
    "uneven": nn.Upsample(scale_factor=(3.0, 2.0)),
    "transposed": nn.ConvTranspose2d(8, 4, 2, 2),
    "threefold": nn.ConvTranspose2d(8, 5, 3, 3, bias=False),
}


def quantized(layer: nn.Module, x: Tensor = X) -> torch.fx.GraphModule:
    """Return an int8 graph with a layer between convolutions."""
    torch.manual_seed(0)
    behind = layer.out_channels if isinstance(layer, nn.ConvTranspose2d) else 8
    last = nn.Conv2d(behind, 4, 3)
    net = nets.chain(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), layer, last, nn.ReLU())
    gm = yqc.trace(net.eval(), x)
    yqc.Pipeline.parse("int8").run(gm, Context(example=x, calibration=lambda: [x] * 4))
    return gm


def emit_plain(gm: torch.fx.GraphModule) -> onnx.ModelProto:
    """Emit the same file without the rewriting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yqc.emit.write_pixels", lambda *_: None)
        return emit(gm)


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def run(model: onnx.ModelProto, x: Tensor = X, path: Path | None = None) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if path is not None:
        options.optimized_model_filepath = str(path)
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return np.asarray(found)


@pytest.mark.parametrize("kind", UPSAMPLINGS)
def test_the_numbers_stay_and_no_value_is_moved_on_its_own(kind: str, tmp_path: Path) -> None:
    gm = quantized(UPSAMPLINGS[kind])
    plain, copied = emit_plain(gm), emit(gm)
    onnx.checker.check_model(copied, full_check=True)
    assert operators(plain)["Resize"] + operators(plain)["DepthToSpace"] == 1
    assert not {"Resize", "DepthToSpace"} & operators(copied).keys()
    np.testing.assert_array_equal(run(copied, path=tmp_path / "x.onnx"), run(plain))
    kernels = operators(onnx.load(tmp_path / "x.onnx"))
    assert kernels["DequantizeLinear"] + kernels["QuantizeLinear"] <= 2  # into integers, and out
    assert kernels["Transpose"] <= (2 if "Tile" in kernels else 3)


def test_names_and_bytes_stay() -> None:
    gm = quantized(UPSAMPLINGS["transposed"])
    plain, copied = emit_plain(gm), emit(gm)
    names = [{n.name for n in m.graph.node} for m in (plain, copied)]
    assert {"QuantizeLinear", "DequantizeLinear"} == {
        n.op_type for n in plain.graph.node if n.name in names[0] - names[1]
    }
    sizes = [
        {t.name: (t.data_type, int(np.prod(t.dims))) for t in m.graph.initializer if len(t.dims)}
        for m in (plain, copied)
    ]
    assert {k: v for k, v in sizes[1].items() if not k.startswith("int64s")} == sizes[0]


def test_any_batch_size() -> None:
    gm = quantized(UPSAMPLINGS["nearest"])
    model = emit(gm, dynamic=True)
    assert operators(model)["Tile"] == 1
    two = torch.cat((X, X.flip(3)))
    np.testing.assert_array_equal(
        run(model, two), np.concatenate([run(model, x[None]) for x in two])
    )


@pytest.mark.parametrize(
    "layer", [nn.Upsample(scale_factor=2, mode="bilinear"), nn.Upsample(size=(9, 5))]
)
def test_what_does_not_repeat_pixels_is_left(layer: nn.Module) -> None:
    assert operators(emit(quantized(layer)))["Resize"] == 1


def test_floats_are_left() -> None:
    gm = yqc.trace(nets.chain(nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2)).eval(), X)
    assert operators(emit(gm))["Resize"] == 1


def test_a_convolution_with_another_reader_keeps_its_order() -> None:
    model = emit_plain(quantized(UPSAMPLINGS["transposed"]))
    (shuffle,) = (n for n in model.graph.node if n.op_type == "DepthToSpace")
    model.graph.node.append(helper.make_node("Shape", [shuffle.input[0]], ["read"]))
    write_pixels(model, ORT)
    assert operators(model)["DepthToSpace"] == 1


def test_devices_that_lack_the_operators_or_dimensions_keep_theirs() -> None:
    before = emit_plain(quantized(UPSAMPLINGS["nearest"]))
    for rules in (
        replace(ORT, operators=("Resize", "Transpose", "Reshape")),
        replace(ORT, limits=Limits(rank=5)),
    ):
        model = onnx.ModelProto.FromString(before.SerializeToString())
        write_pixels(model, rules)
        assert model == before
