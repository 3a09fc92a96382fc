"""Packing keeps its promise: what was packed comes back, and is what ONNX dequantizes."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from yqc.emit.tensors import to_onnx
from yqc.quant.weights.ops import unpack_table, unpack_uniform
from yqc.quant.weights.packing import pack, packed_bytes, signed, unpack, unsigned

BITS = [1, 2, 3, 4, 5, 6, 7, 8]


@settings(max_examples=200, deadline=None)
@given(bits=st.sampled_from(BITS), data=st.data())
def test_what_was_packed_comes_back(bits: int, data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.integers(0, (1 << bits) - 1), max_size=67))
    packed = pack(torch.tensor(codes, dtype=torch.int64), bits)
    assert packed.dtype == torch.uint8
    assert packed.numel() == packed_bytes(len(codes), bits)
    assert unpack(packed, len(codes), bits).tolist() == codes


@settings(max_examples=200, deadline=None)
@given(bits=st.sampled_from(BITS), data=st.data())
def test_negative_values_come_back(bits: int, data: st.DataObject) -> None:
    half = 1 << (bits - 1)
    values = data.draw(st.lists(st.integers(-half, half - 1), max_size=67))
    packed = pack(unsigned(torch.tensor(values, dtype=torch.int64), bits), bits)
    assert signed(unpack(packed, len(values), bits), bits).tolist() == values


@pytest.mark.parametrize(("bits", "size"), [(2, 16), (3, 24), (4, 32), (5, 40), (6, 48), (8, 64)])
def test_nothing_is_wasted(bits: int, size: int) -> None:
    assert packed_bytes(64, bits) == size


def test_four_bits_are_stored_as_onnx_stores_them() -> None:
    values = torch.tensor([-8, 7, 0, -1, 3])
    packed = pack(unsigned(values, 4), 4)
    assert packed.numpy().tobytes() == to_onnx(values, "w", TensorProto.INT4).raw_data


def test_codes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"codes of 3 bits lie in 0\.\.7"):
        pack(torch.tensor([8]), 3)
    with pytest.raises(ValueError, match="codes have 1 to 8 bits, not 9"):
        pack(torch.tensor([8]), 9)
    with pytest.raises(ValueError, match="5 codes of 4 bits take 3 bytes, not 4"):
        unpack(torch.zeros(4, dtype=torch.uint8), 5, 4)


def reference(codes: Any, dtype: int, scale: Any, zero: Any, **attributes: Any) -> Any:
    names = ["x", "scale"] if zero is None else ["x", "scale", "zero"]
    tensors = [to_onnx(codes, "x", dtype), to_onnx(scale.float(), "scale")]
    tensors += [] if zero is None else [to_onnx(zero, "zero", dtype)]
    node = helper.make_node("DequantizeLinear", names, ["y"], **attributes)
    y = helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)
    graph = helper.make_graph([node], "g", [], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    outputs = cast("list[Any]", ReferenceEvaluator(model).run(None, {}))
    return np.asarray(outputs[0], np.float32)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.sampled_from([(3, 5, 1, 1), (4, 2, 3, 3), (1, 7, 1, 2)]),
    affine=st.booleans(),
    kind=st.sampled_from(["tensor", "channel", "block"]),
)
def test_uniform_weights_are_what_onnx_dequantizes(
    seed: int, shape: tuple[int, ...], affine: bool, kind: str
) -> None:
    g = torch.Generator().manual_seed(seed)
    rows, columns = shape[0], int(np.prod(shape[1:]))
    block = next(b for b in range(2, columns + 1) if columns % b == 0) if kind == "block" else 0
    sizes = {"tensor": [], "channel": [rows], "block": [rows, columns // block if block else 1]}
    scale = (torch.rand(sizes[kind], generator=g) + 0.01).half()
    codes = torch.randint(0, 16, shape, generator=g)
    zero = torch.randint(0, 16, sizes[kind], generator=g) if affine else None
    got = unpack_uniform(
        pack(codes, 4), scale, None if zero is None else pack(zero, 4), list(shape), 4, block
    )
    dims = [rows, columns] if block else list(shape)
    values = codes if affine else signed(codes.to(torch.uint8), 4)
    attributes = {"tensor": {}, "channel": {"axis": 0}, "block": {"axis": 1, "block_size": block}}
    dtype = TensorProto.UINT4 if affine else TensorProto.INT4
    want = reference(values.view(dims), dtype, scale, zero, **attributes[kind]).reshape(shape)
    np.testing.assert_array_equal(got.numpy(), want)


def test_tables_are_looked_up_by_group_of_rows() -> None:
    table = torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, -1.0, -2.0, -3.0]]).half()
    codes = torch.tensor([[0, 1, 2], [3, 3, 3], [1, 2, 3], [0, 0, 1]])
    scale = torch.tensor([1.0, 2.0, 4.0, 8.0]).half()
    w = unpack_table(pack(codes, 2), table, scale, [4, 3, 1, 1], 2, 0)
    assert w.view(4, 3).tolist() == [[0, 1, 2], [6, 6, 6], [-4, -8, -12], [0, 0, -8]]
