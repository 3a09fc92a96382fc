"""relu: what it stands for, one training for all, and one integer convolution for each unit."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, fx, nn

from tests.passes.nets import expanded
from yqc import Context, Given, Pipeline, text
from yqc.emit import emit
from yqc.errors import PipelineError
from yqc.testing import nets, traced
from yqc_passes.relu import Relu
from yqc_passes.swap_activation import SwapActivation

SHAPE = (1, 4, 16, 16)
TRAINS = Given(has_data=True, can_train=True)


def names(pipeline: str) -> list[str]:
    return [action.name for action in Pipeline.parse(pipeline).expand(given=TRAINS)]


def test_stands_for_its_steps_and_hands_options_on() -> None:
    assert expanded("relu") == "swap-activation"
    assert Relu().expand(TRAINS) == "swap-activation,recover{time=5m batch=4 agreement=1}"
    assert Relu(recover_steps=40).expand(TRAINS).endswith("recover{steps=40 batch=4 agreement=1}")
    given = "relu{to=relu6 only=[model.1.*,a] keep=b max_drop=0.015 refit=never images=9 recover=0}"
    (recipe,) = Pipeline.parse(given).steps
    assert str(recipe) == given.replace("recover=0", "recover=0s")
    assert isinstance(recipe, Relu)
    assert recipe.expand(TRAINS) == (
        "swap-activation{to=relu6 only=[model.1.*,a] keep=b max_drop=0.015 refit=never images=9}"
    )
    with pytest.raises(PipelineError, match="recover_steps must be 1 or above"):
        Pipeline.parse("relu{recover_steps=0}")


def test_one_training_serves_pruning_and_swapping() -> None:
    found = names("prune,relu,int8")
    assert found[:3] == ["channel-prune", "swap-activation", "recover"]
    assert found.count("recover") == 1
    assert names("relu,recover{steps=9}").count("recover") == 1


class Body(nn.Module):
    """Units of SiLU with a residual, a pooling and a concat, as detectors have them."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.pool = nn.SiLU(), nn.MaxPool2d(3, 1, 1)
        self.a, self.b, self.c, self.d = (nn.Conv2d(i, 8, 3, 1, 1) for i in (4, 8, 8, 16))
        self.last = nn.Conv2d(8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.a(x))
        y = self.act(self.b(x))
        z = self.act(self.c(self.pool(y)))
        out: Tensor = self.last(self.act(self.d(torch.cat([y, z], 1))))
        return out


def context(target: str) -> Context:
    def calibration() -> Iterable[Tensor]:
        generator = torch.Generator().manual_seed(0)
        return [torch.rand(SHAPE, generator=generator) for _ in range(12)]

    return Context(calibration=calibration, target=target)


def compiled(pipeline: str, target: str) -> fx.GraphModule:
    gm = traced(nets.seeded(Body()), SHAPE)
    Pipeline.parse(pipeline).run(gm, context(target))
    return gm


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "portable", "tensorrt"])
def test_ranges_begin_at_zero_and_nothing_else_is_computed(target: str) -> None:
    model = emit(compiled("swap-activation,int8", target), target=target)
    found = operators(model)
    assert found["Sigmoid"] == found["Mul"] == found["HardSwish"] == found["Clip"] == 0
    assert found["Relu"] == 4
    made = {name: node for node in model.graph.node for name in node.output}
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    behind = [
        node
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
        and node.input[0] in made
        and made[node.input[0]].op_type == "Relu"
    ]
    assert len(behind) == 4
    for node in behind:
        zero = constants[node.input[2]]
        assert zero.dtype == (np.int8 if target == "tensorrt" else np.uint8)
        assert int(zero) == 0


def test_each_unit_becomes_one_integer_convolution(tmp_path: Path) -> None:
    """What onnxruntime makes of the file; the last one, of 1x1 and float results, is a product."""
    kinds = {}
    for pipeline in ("swap-activation,int8{float_inputs=0}", "int8{float_inputs=0}"):
        model = emit(compiled(pipeline, "onnxruntime"), target="onnxruntime")
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        kinds[pipeline] = operators(onnx.load(tmp_path / "optimized.onnx"))
    swapped, silu = kinds.values()
    assert swapped["QLinearConv"] == silu["QLinearConv"] == 4
    assert swapped["Conv"] == swapped["Relu"] == swapped["Sigmoid"] == swapped["Mul"] == 0
    assert swapped["QuantizeLinear"] == 1
    assert silu["QLinearSigmoid"] == silu["QLinearMul"] == 4
    assert silu.total() == swapped.total() + 8, (silu, swapped)


@pytest.mark.parametrize("to", ["int4{budget=none}", "codebook", "fp16"])
def test_other_recipes_follow(to: str) -> None:
    gm = compiled(f"swap-activation,{to.partition('{')[0]}", "onnxruntime")
    assert "SiLU" not in text(gm)
    emit(gm)


def test_explain_lists_what_each_swap_costs() -> None:
    gm, ctx = traced(nets.seeded(Body()), SHAPE), context("onnxruntime")
    before = text(gm)
    lines = SwapActivation().explain(gm, ctx)
    assert lines[0] == "4 activations can become relu; share of the damage of each alone"
    shares = [float(line.split("%")[0]) for line in lines[1:]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert {line.split()[1] for line in lines[1:]} == {"a", "b", "c", "d"}
    assert text(gm) == before
    lines = SwapActivation().explain(gm, Context())
    assert lines[0] == "4 activations can become relu; --data shows what each costs"
