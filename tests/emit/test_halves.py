"""Halves beside integers in the file: stored once, folded at load, left alone by simplifiers."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from yqc import Context
from yqc.emit import emit, layer_bytes, size_parts, weight_bytes
from yqc.emit.halves import FEWEST, HALVES, write_halves
from yqc.emit.roundtrip import open_session
from yqc.testing import apply, calibrated, nets, traced

SHAPE = (1, 3, 16, 16)


def emitted(passes: str, target: str = "onnxruntime") -> onnx.ModelProto:
    gm = traced(nets.csp(40), SHAPE)
    ctx = calibrated(gm)
    ctx.target = target
    apply(passes, gm, ctx)
    return emit(gm, target=target)


def loaded(model: onnx.ModelProto) -> Counter[str]:
    """Count the operators of what onnxruntime makes of a model as it loads it."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "loaded.onnx")
        ort.InferenceSession(model.SerializeToString(), options)
        return Counter(
            node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node
        )


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_biases_and_scales_take_two_bytes(target: str) -> None:
    before, after = emitted("int8", target), emitted("int8,fp16", target)
    halves = next(t for t in after.graph.initializer if t.name == HALVES)
    assert halves.data_type == TensorProto.FLOAT16
    count = int(np.prod(halves.dims))
    assert count == 2 * (80 + 40 + 40)  # three convolutions, a bias and a scale a channel
    sizes = 8 * len(next(n for n in after.graph.node if n.name == "halves.split").output)
    spare = weight_bytes(before) - weight_bytes(after)
    assert 2 * count - sizes - 80 <= spare <= 2 * count  # 80: numbers and shapes
    assert sum(size_parts(after).values()) == weight_bytes(after)
    assert layer_bytes(after).keys() == layer_bytes(before).keys()


def test_onnxruntime_folds_them_and_makes_the_same_integer_kernels() -> None:
    assert loaded(emitted("int8,fp16")) == loaded(emitted("int8"))


def test_simplifiers_leave_them_alone() -> None:
    onnxsim = pytest.importorskip("onnxsim")
    onnxslim = pytest.importorskip("onnxslim")
    model = emitted("int8,fp16")
    halves = next(t for t in model.graph.initializer if t.name == HALVES)
    simplified, _ = onnxsim.simplify(model)
    for other in (simplified, onnxslim.slim(model)):
        kept = [t for t in other.graph.initializer if t.data_type == TensorProto.FLOAT16]
        assert [np.prod(t.dims) for t in kept] == [np.prod(halves.dims)]


@pytest.mark.parametrize("target", ["tensorrt", "portable"])
def test_a_target_that_needs_float32_gets_it(target: str) -> None:
    gm = traced(nets.csp(40), SHAPE)
    ctx = calibrated(gm)
    ctx.target = target
    apply("int8", gm, ctx)
    done = apply("fp16", gm, Context(target=target))
    assert not done.changed
    assert any("they stay as they are" in said for said in done.context.records.says)


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=4),
    st.integers(0, 9),
)
def test_any_tensors_are_computed_as_they_were(shapes: list[list[int]], seed: int) -> None:
    """Each is the bias or the weight of a product, exact in half or not, long enough or not."""
    g = np.random.default_rng(seed)
    nodes, tensors, total = [], [], "x"
    for i, shape in enumerate(shapes):
        weight = g.normal(size=(*shape, 4)).astype(np.float32)
        if g.random() < 0.7:
            weight = weight.astype(np.float16).astype(np.float32)
        tensors.append(numpy_helper.from_array(weight.reshape(-1, 4), f"w{i}"))
        nodes.append(helper.make_node("Gemm", [total, f"w{i}"], [f"y{i}"], f"y{i}", transB=1))
        nodes.append(helper.make_node("ReduceMean", [f"y{i}"], [f"m{i}"], f"m{i}", axes=[1]))
        nodes.append(helper.make_node("Add", ["x", f"m{i}"], [f"z{i}"], f"z{i}"))
        total = f"z{i}"
    io = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 4]) for n in ("x", total)]
    graph = helper.make_graph(nodes, "g", io[:1], io[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = torch.rand(2, 4, generator=torch.Generator().manual_seed(seed)).numpy()
    want = open_session(model).run(None, {"x": x})[0]
    write_halves(model)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(open_session(model).run(None, {"x": x})[0], want, rtol=1e-6)
    for tensor in tensors:
        values = numpy_helper.to_array(tensor)
        exact = (values.astype(np.float16) == values).all() and values.size >= FEWEST
        assert any(t.name == tensor.name for t in model.graph.initializer) is not bool(exact)
