"""1x1 convolutions of integers with float results are MatMul for onnxruntime."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import yqc
from yqc.emit import emit
from yqc.pipeline.base import Context

X = torch.rand(1, 3, 12, 8, generator=torch.Generator().manual_seed(0))


class Head(nn.Module):
    """Two convolutions, and a last one of 1x1 whose result is decoded by `tail`."""

    def __init__(self, tail: str) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 6, 1)
        self.act, self.tail = nn.ReLU(), tail

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.act(self.b(self.act(self.a(x)))))
        if self.tail == "flat":  # as DFL heads
            return y.flatten(2).softmax(1)
        if self.tail == "split":  # as anchor heads
            y = torch.unflatten(y.sigmoid(), 1, (3, 2))
            return y.permute(0, 1, 3, 4, 2).flatten(1, 3)
        return y.tanh()


def emitted(tail: str, target: str = "onnxruntime", passes: str = "int8") -> onnx.ModelProto:
    torch.manual_seed(0)
    gm = yqc.trace(Head(tail).eval(), X)
    yqc.Pipeline.parse(passes).run(gm, Context(example=X, calibration=lambda: [X] * 4))
    return emit(gm, target=target)


def optimised(model: onnx.ModelProto, path: Path) -> tuple[Tensor, Counter[str]]:
    """Return what onnxruntime computes, and the operators that it runs."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    run = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = torch.from_numpy(run.run(None, {"x": X.numpy()})[0])
    return found, Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("tail", ["flat", "split", "plain"])
def test_the_last_convolution_runs_on_integers_and_computes_the_same(
    tail: str, tmp_path: Path
) -> None:
    as_conv, as_product = emitted(tail, "portable"), emitted(tail)
    onnx.checker.check_model(as_product, full_check=True)
    before, kernels = optimised(as_conv, tmp_path / "conv.onnx")
    assert kernels["Conv"] + kernels["FusedConv"] == 2  # the first and the last run in float
    after, kernels = optimised(as_product, tmp_path / "product.onnx")
    assert kernels["MatMulIntegerToFloat"] == 1
    assert kernels["Conv"] + kernels["FusedConv"] == 1
    np.testing.assert_allclose(after, before, atol=2e-6)


def test_the_transpose_before_it_vanishes_and_one_behind_it_is_left(tmp_path: Path) -> None:
    _, kernels = optimised(emitted("split"), tmp_path / "x.onnx")
    assert kernels["ReorderInput"] == 0
    assert kernels["Transpose"] <= 3  # the input's, one of integers, and the result's


def test_names_and_bytes_stay() -> None:
    as_conv, as_product = emitted("split", "portable"), emitted("split")
    names = [{n.name for n in m.graph.node} for m in (as_conv, as_product)]
    assert names[0] - names[1] == {"act_1_dq"}  # behind the transpose now
    sizes = [
        {t.name: (t.data_type, int(np.prod(t.dims))) for t in m.graph.initializer}
        for m in (as_conv, as_product)
    ]
    read = {name for node in as_product.graph.node for name in node.input}
    assert sizes[1].keys() <= read
    for name in ("last.weight_q", "last.weight_scale", "last.bias"):
        assert sizes[0][name] == sizes[1][name]


def test_a_weight_of_few_bits_stays_packed(tmp_path: Path) -> None:
    model = emitted("flat", passes="int4,int8")
    onnx.checker.check_model(model, full_check=True)
    computed, _ = optimised(model, tmp_path / "x.onnx")
    reference, _ = optimised(emitted("flat", "portable", "int4,int8"), tmp_path / "y.onnx")
    # the bias of the product is added in another order: an activation may round to the next step
    np.testing.assert_allclose(computed, reference, atol=2e-4)


class Attention(nn.Module):
    """A convolution to queries, keys and values, their products, and a convolution behind."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Conv2d(3, 24, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).flatten(2).chunk(3, 1)
        weights = (q.transpose(1, 2) @ k).softmax(-1)
        y: Tensor = self.out(torch.unflatten(v @ weights.transpose(1, 2), 2, x.shape[-2:]))
        return y


@pytest.mark.parametrize(("target", "integers"), [("onnxruntime", 2), ("portable", 0)])
def test_products_of_attention_run_on_integers(target: str, integers: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    gm = yqc.trace(Attention().eval(), X)
    with torch.no_grad():
        exact = gm(X)
    ctx = Context(example=X, calibration=lambda: [X] * 4, target=target)
    yqc.Pipeline.parse("int8").run(gm, ctx)
    found, kernels = optimised(emit(gm, target=target), tmp_path / "x.onnx")
    assert kernels["QLinearMatMul"] + kernels["MatMulIntegerToFloat"] >= integers
    assert (kernels["MatMul"] + kernels["FusedMatMul"] == 0) == (integers > 0)
    assert float((found - exact).square().mean() / exact.square().mean()) < 1e-3
