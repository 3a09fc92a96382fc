"""The guards after onnxsim: nothing quantized becomes float, nothing grows, nothing is illegal."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from yqc.emit.roundtrip import PLAIN, open_session, run_session
from yqc.emit.simplify import check_model, drop_unused, keeps_weights, simplify
from yqc.emit.tensors import weight_bytes
from yqc.errors import EmitError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((1, 4, 6, 6)).astype(np.float32)
CODES = RNG.integers(0, 16, (8, 4, 3, 3)).astype(np.uint8)
SCALE = RNG.random(8).astype(np.float32) + 0.5


def model_of(
    nodes: list[onnx.NodeProto], tensors: dict[str, NDArray[np.generic]], *, channels: int = 4
) -> onnx.ModelProto:
    """Build a model from `x` [1,4,6,6] to `y`, of as many or 8 channels."""
    side = 6 if channels == 4 else 4
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels, side, side])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    version = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[version], ir_version=10)


def int8_weights() -> onnx.ModelProto:
    return model_of(
        [
            helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"], axis=0),
            helper.make_node("Conv", ["x", "w"], ["y"]),
        ],
        {"codes": CODES.astype(np.int8) - 8, "scale": SCALE},
        channels=8,
    )


def uint8_codebook() -> onnx.ModelProto:
    """A codebook with byte indices in the plain form, which onnxsim folds to floats."""
    return model_of(
        [
            helper.make_node("Cast", ["codes"], ["index"], to=TensorProto.INT32),
            helper.make_node("Gather", ["table", "index"], ["w"]),
            helper.make_node("Conv", ["x", "w"], ["y"]),
        ],
        {"codes": CODES, "table": RNG.standard_normal(16).astype(np.float32)},
        channels=8,
    )


def uint4_codebook() -> onnx.ModelProto:
    model = uint8_codebook()
    packed = helper.make_tensor("codes", TensorProto.UINT4, CODES.shape, CODES.reshape(-1))
    model.graph.initializer[0].CopyFrom(packed)
    return model


def folded_batch_norm_behind_int8() -> onnx.ModelProto:
    """Folding the batch norm into the weights would take them out of their eight bits."""
    model = int8_weights()
    model.graph.node[1].output[0] = "z"
    inputs = ["z", "scale", "shift", "mean", "var"]
    model.graph.node.append(helper.make_node("BatchNormalization", inputs, ["y"]))
    for name in ("shift", "mean", "var"):
        tensor = numpy_helper.from_array(RNG.random(8).astype(np.float32) + 0.5, name)
        model.graph.initializer.append(tensor)
    return model


def grid() -> onnx.ModelProto:
    return model_of(
        [
            helper.make_node("Add", ["row", "column"], ["grid"]),
            helper.make_node("Add", ["x", "grid"], ["y"]),
        ],
        {
            "row": RNG.random((1, 6)).astype(np.float32),
            "column": RNG.random((6, 1)).astype(np.float32),
        },
    )


FRAGILE = [int8_weights, uint8_codebook, uint4_codebook, folded_batch_norm_behind_int8, grid]


@pytest.mark.parametrize("make", FRAGILE)
def test_simplification_keeps_what_is_small_small(make: Callable[[], onnx.ModelProto]) -> None:
    model = make()
    size, want = weight_bytes(model), run_session(open_session(model, PLAIN), [X])[0]
    stored = {t.name: (t.data_type, tuple(t.dims)) for t in model.graph.initializer}
    simple = simplify(model)
    assert weight_bytes(simple) <= size
    kept = {t.name: (t.data_type, tuple(t.dims)) for t in simple.graph.initializer}
    for name in {"codes", "row", "column"} & set(stored):
        assert kept[name] == stored[name]
    np.testing.assert_allclose(
        run_session(open_session(simple, PLAIN), [X])[0], want, rtol=1e-5, atol=1e-5
    )


def test_a_float_in_place_of_codes_is_harm() -> None:
    before, after = int8_weights(), int8_weights()
    floats = numpy_helper.from_array(np.zeros(2, np.float32), "codes")
    after.graph.initializer[0].CopyFrom(floats)
    assert weight_bytes(after) < weight_bytes(before)
    assert not keeps_weights(before, after)
    assert keeps_weights(before, int8_weights())


def test_tidy_drops_what_no_output_needs_and_shares_equal_tensors() -> None:
    model = model_of(
        [
            helper.make_node("Mul", ["x", "a"], ["p"]),
            helper.make_node("Exp", ["x"], ["unused"]),
            helper.make_node("Add", ["p", "b"], ["y"]),
        ],
        {"a": SCALE[:1], "b": SCALE[:1].copy(), "c": SCALE},
    )
    drop_unused(model)
    assert [(n.op_type, list(n.input)) for n in model.graph.node] == [
        ("Mul", ["x", "a"]),
        ("Add", ["p", "a"]),
    ]
    assert [t.name for t in model.graph.initializer] == ["a"]


def test_an_illegal_model_is_an_error_with_the_checkers_words() -> None:
    model = model_of([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": SCALE[:, None]})
    with pytest.raises(EmitError, match=r"the emitted model is not valid ONNX: .*Conv"):
        check_model(model)


def test_a_model_that_onnxsim_cannot_read_is_the_checkers_business() -> None:
    model = model_of([helper.make_node("Nonsense", ["x"], ["y"])], {})
    with pytest.raises(EmitError, match=r"the emitted model is not valid ONNX: .*Nonsense"):
        check_model(simplify(model))
