from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from yqc.quant import dequantize_linear, quantize_linear

KINDS = {torch.uint8: TensorProto.UINT8, torch.int8: TensorProto.INT8}


def reference(
    op: str, x: np.ndarray[Any, Any], *more: np.ndarray[Any, Any], **attributes: Any
) -> Any:
    names = ["x", "scale", "zero"][: 1 + len(more)]
    node = helper.make_node(op, names, ["y"], **attributes)
    kinds = [helper.np_dtype_to_tensor_dtype(v.dtype) for v in (x, *more)]
    inputs = [helper.make_tensor_value_info(n, k, None) for n, k in zip(names, kinds, strict=True)]
    output = helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, [output]),
        opset_imports=[helper.make_opsetid("", 21)],
    )
    feed = dict(zip(names, (x, *more), strict=True))
    outputs: Any = ReferenceEvaluator(model).run(None, feed)
    return outputs[0]


def test_rounds_half_to_even_and_saturates() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 1e9, -1e9])
    q = quantize_linear(x, torch.tensor(1.0), torch.tensor(0, dtype=torch.int8))
    assert q.tolist() == [0, 2, 2, 0, -2, 127, -128]
    assert q.dtype == torch.int8


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    dtype=st.sampled_from([torch.uint8, torch.int8]),
    axis=st.sampled_from([None, 0, 1, 2, -1]),
)
def test_equals_onnx_number_for_number(seed: int, dtype: torch.dtype, axis: int | None) -> None:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 4, 5, generator=g) * 10
    size = [] if axis is None else [x.shape[axis]]
    scale = torch.rand(size, generator=g) + 0.01
    zero = torch.randint(0, 100, size, generator=g).to(dtype)
    attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
    want = reference("QuantizeLinear", x.numpy(), scale.numpy(), zero.numpy(), **attributes)
    q = quantize_linear(x, scale, zero, 1 if axis is None else axis)
    assert np.array_equal(q.numpy(), want)
    back = reference("DequantizeLinear", want, scale.numpy(), zero.numpy(), **attributes)
    got = dequantize_linear(q, scale, zero, 1 if axis is None else axis)
    assert np.array_equal(got.numpy(), back)


def test_blocks_share_a_scale_and_the_last_may_be_short() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    scale, zero = torch.tensor([[1.0, 2.0, 5.0]]), torch.zeros(1, 3, dtype=torch.int8)
    q = quantize_linear(x, scale, zero, 1, 2)
    assert q.tolist() == [[1, 2, 2, 2, 1]]
    assert dequantize_linear(q, scale, None, 1, 2).tolist() == [[1.0, 2.0, 4.0, 4.0, 5.0]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8])
def test_absent_zero_point_is_zero(dtype: torch.dtype) -> None:
    x, scale = torch.tensor([1, 2, 3], dtype=dtype), torch.tensor(0.5)
    assert dequantize_linear(x, scale).tolist() == [0.5, 1.0, 1.5]
