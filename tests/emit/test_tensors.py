"""Tensors and metadata: the bytes that are stored and how they are counted."""

import ast

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from yqc.emit import weight_bytes, yolo_metadata
from yqc.emit.tensors import DTYPES, tensor_bytes, to_onnx

VALUES = torch.tensor([[0, 1, 2], [3, 5, 7]])


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d.itemsize > 1 or not d.is_floating_point])
def test_every_dtype_is_stored_as_it_is(dtype: torch.dtype) -> None:
    tensor = to_onnx(VALUES.to(dtype), "t")
    assert tensor.data_type == DTYPES[dtype]
    read = numpy_helper.to_array(tensor).astype(np.float64)
    np.testing.assert_array_equal(read, VALUES.to(dtype).double().numpy())
    assert tensor_bytes(tensor) == 6 * dtype.itemsize == len(tensor.raw_data)


def test_a_view_is_stored_in_its_own_order() -> None:
    np.testing.assert_array_equal(numpy_helper.to_array(to_onnx(VALUES.t(), "t")), VALUES.t())


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (TensorProto.INT4, [-8, 7, 0, -1, 3]),
        (TensorProto.UINT4, [0, 15, 8, 1, 9]),
        (TensorProto.UINT4, [4]),
        (TensorProto.INT4, [-3, 2]),
    ],
)
def test_four_bits_are_packed_as_onnx_reads_them(dtype: int, values: list[int]) -> None:
    tensor = to_onnx(torch.tensor(values, dtype=torch.int8), "t", dtype)
    onnx.checker.check_tensor(tensor)
    assert numpy_helper.to_array(tensor).astype(np.int64).tolist() == values
    assert tensor_bytes(tensor) == len(tensor.raw_data) == (len(values) + 1) // 2
    reference = helper.make_tensor("t", dtype, [len(values)], values)
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), numpy_helper.to_array(reference))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (TensorProto.INT4, torch.tensor([8])),
        (TensorProto.UINT4, torch.tensor([-1])),
        (TensorProto.UINT4, torch.tensor([0.5])),
    ],
)
def test_values_out_of_four_bits_are_refused(dtype: int, value: Tensor) -> None:
    with pytest.raises(ValueError, match="four-bit values must be integers in"):
        to_onnx(value, "t", dtype)


def test_another_dtype_than_the_tensors_own_is_refused() -> None:
    with pytest.raises(ValueError, match="int64 cannot be stored as ONNX element type"):
        to_onnx(VALUES, "t", TensorProto.FLOAT)


def test_weight_bytes_counts_initialisers_constants_and_what_is_inside_nodes() -> None:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0])],
        "inner",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [2])],
        [to_onnx(torch.zeros(3, dtype=torch.float16), "h")],
    )
    nodes = [
        helper.make_node("Constant", [], ["k"], value=to_onnx(VALUES, "")),
        helper.make_node("Constant", [], ["i"], value_int=3),
        helper.make_node("Constant", [], ["f"], value_float=3.0),
        helper.make_node("If", ["b"], ["y"], then_branch=inner, else_branch=inner),
    ]
    stored = [
        to_onnx(torch.ones(5), "w"),
        to_onnx(torch.ones(7, dtype=torch.int8), "q", TensorProto.INT4),
        TensorProto(name="lists", data_type=TensorProto.FLOAT, dims=[2], float_data=[1, 2]),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], stored))
    branches = 2 * (2 * 4 + 3 * 2)
    assert weight_bytes(model) == 5 * 4 + 4 + 2 * 4 + 6 * 8 + 8 + 4 + branches


def test_metadata_is_what_yolo_runtimes_parse() -> None:
    meta = yolo_metadata(
        ("red cell", "d'or"), (8, 16, 32), (320, 640), batch=1, task="detect", version="1", sha="ab"
    )
    assert ast.literal_eval(meta["names"]) == {0: "red cell", 1: "d'or"}
    assert int(meta["stride"]) == 32
    assert ast.literal_eval(meta["imgsz"]) == [320, 640]
    assert (meta["batch"], meta["task"]) == ("1", "detect")
    assert {k: v for k, v in meta.items() if k.startswith("yqc")} == {
        "yqc.version": "1",
        "yqc.sha": "ab",
    }
