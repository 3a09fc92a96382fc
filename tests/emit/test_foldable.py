"""Float convolutions keep int8 weights in a form that onnxruntime folds, integer ones do not."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import yqc
from yqc.emit import emit, size_parts
from yqc.emit.foldable import write_foldable
from yqc.emit.stored import StoredValues
from yqc.pipeline.base import Context
from yqc.targets import find_target

FLOAT = ("Conv", "FusedConv")
X = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Three convolutions: the first reads the image in float, the last makes the output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 2)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c(self.act(self.b(self.act(self.a(x)))))
        return out


def quantized() -> torch.fx.GraphModule:
    torch.manual_seed(0)
    gm = yqc.trace(Net(), X)
    ctx = Context(example=X, calibration=lambda: [X] * 8, target="onnxruntime")
    yqc.Pipeline.parse("int8{float_inputs=0}").run(gm, ctx)
    return gm


def makers(model: onnx.ModelProto) -> dict[str, str]:
    """By convolution, the operator that makes its weight."""
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    return {n.name: made[n.input[1]] for n in model.graph.node if n.op_type == "Conv"}


def test_only_float_convolutions_are_written_so_and_stay_int8() -> None:
    gm = quantized()
    before, after = emit(gm, target="portable"), emit(gm, target="onnxruntime")
    assert set(makers(before).values()) == {"DequantizeLinear"}
    assert makers(after) == {"a": "Reshape", "b": "DequantizeLinear", "c": "Reshape"}
    parts = [size_parts(model) for model in (before, after)]
    assert [part["weights"] for part in parts] == [16 * 27 + 16 * 144 + 16 * 64] * 2
    assert after.ByteSize() < before.ByteSize() + 1000
    onnx.checker.check_model(after, full_check=True)


def test_it_computes_the_same_from_weights_that_are_constant_once_loaded(tmp_path: Path) -> None:
    gm = quantized()
    answers, constant = [], []
    for target in ("portable", "onnxruntime"):
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / f"{target}.onnx")
        model = emit(gm, target=target).SerializeToString()
        run = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        answers.append(run.run(None, {"x": X.numpy()})[0])
        loaded = onnx.load(tmp_path / f"{target}.onnx").graph
        held = {tensor.name for tensor in loaded.initializer}
        constant.append([n.input[1] in held for n in loaded.node if n.op_type in FLOAT])
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(answers[1], gm(X).numpy(), atol=0.05)
    assert not all(constant[0])
    assert all(constant[1])


@pytest.mark.parametrize("shared", [False, True])
def test_a_scale_that_others_read_keeps_its_shape(shared: bool) -> None:
    gm = quantized()
    model = emit(gm, target="portable")
    if shared:
        conv = next(n for n in model.graph.node if n.name == "c")
        scale = next(n for n in model.graph.node if conv.input[1] in n.output).input[1]
        extra = onnx.helper.make_node("Identity", [scale], ["again"])
        model.graph.node.append(extra)
        model.graph.output.append(onnx.helper.make_tensor_value_info("again", 1, [16]))
    write_foldable(model, StoredValues(), find_target("onnxruntime"))
    onnx.checker.check_model(model, full_check=True)
    assert makers(model)["c"] == "Reshape"


def test_openvino_needs_no_quantized_result_and_sees_through_a_concat() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(16, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.c(torch.cat([self.a(x), self.b(x)], 1))
            return out

    gm = yqc.trace(Net(), X)
    ctx = Context(example=X, calibration=lambda: [X] * 4, target="openvino")
    yqc.Pipeline.parse("int8").run(gm, ctx)
    model = emit(gm, target="openvino")
    concat = next(n for n in model.graph.node if n.op_type == "Concat")
    assert next(n for n in model.graph.node if n.name == "c").input[0] == concat.output[0]
    assert set(makers(model).values()) == {"DequantizeLinear"}
