"""ONNX tensors: made from PyTorch ones, packed four bits at a time, and counted in bytes."""

import math
from collections.abc import Iterable, Iterator

import onnx
import torch
from onnx import AttributeProto, TensorProto, helper
from torch import Tensor

DTYPES: dict[torch.dtype, int] = {
    torch.float32: TensorProto.FLOAT,
    torch.float16: TensorProto.FLOAT16,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.float64: TensorProto.DOUBLE,
    torch.uint8: TensorProto.UINT8,
    torch.int8: TensorProto.INT8,
    torch.int16: TensorProto.INT16,
    torch.uint16: TensorProto.UINT16,
    torch.int32: TensorProto.INT32,
    torch.int64: TensorProto.INT64,
    torch.bool: TensorProto.BOOL,
    torch.float8_e4m3fn: TensorProto.FLOAT8E4M3FN,
    torch.float8_e5m2: TensorProto.FLOAT8E5M2,
}
"""ONNX element types of PyTorch's."""

FOUR_BIT = frozenset({TensorProto.INT4, TensorProto.UINT4})
QUANTIZED = FOUR_BIT | {TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16}
"""Element types that only quantized and packed weights have in a detector."""


def to_onnx(value: Tensor, name: str, dtype: int | None = None) -> TensorProto:
    """Store a PyTorch tensor as an ONNX one.

    Args:
        value: any shape. For a four-bit type, integers in its range (any integer dtype).
        name: of the result.
        dtype: ONNX element type; by default that of `value`. Differs from it only for the types
            that PyTorch lacks: `TensorProto.INT4` (-8..7) and `UINT4` (0..15), which are packed
            two values a byte, the first in the low half.

    Raises:
        ValueError: a value is outside the range of the four-bit type, or the types do not agree.
    """
    value = value.detach().cpu()
    own = DTYPES.get(value.dtype)
    if dtype in FOUR_BIT:
        raw = _pack(value, *((-8, 7) if dtype == TensorProto.INT4 else (0, 15)))
    elif own is None or dtype not in {None, own}:
        raise ValueError(f"{value.dtype} cannot be stored as ONNX element type {dtype}")
    else:
        raw = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    tensor = TensorProto(name=name, data_type=dtype or own, raw_data=raw)
    tensor.dims.extend(value.shape)
    return tensor


def _pack(value: Tensor, low: int, high: int) -> bytes:
    """Put two four-bit values into a byte, as the ONNX specification says (INT4)."""
    if value.is_floating_point() or (value.numel() and (value.min() < low or value.max() > high)):
        raise ValueError(f"four-bit values must be integers in {low}..{high}")
    flat = value.reshape(-1).to(torch.int16) & 0xF
    flat = torch.nn.functional.pad(flat, (0, flat.numel() % 2))
    return bytes((flat[0::2] | (flat[1::2] << 4)).to(torch.uint8).numpy().tobytes())


def tensor_bytes(tensor: TensorProto) -> int:
    """Count the bytes of a tensor's values: half a byte for each four-bit one, rounded up."""
    if tensor.data_type == TensorProto.STRING:
        return sum(len(text) for text in tensor.string_data)
    values = int(math.prod(tensor.dims))
    if tensor.data_type in FOUR_BIT or tensor.data_type == TensorProto.FLOAT4E2M1:
        return (values + 1) // 2
    return values * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def weight_bytes(model: onnx.ModelProto) -> int:
    """Count the bytes of all initialisers and Constant tensors of a model.

    Subgraphs and model-local functions count too. Four-bit types count half a byte a value, so
    anyone can recompute the number from the file.
    """
    total = sum(tensor_bytes(tensor) for tensor in initializers(model.graph))
    nodes = [*model.graph.node, *(node for f in model.functions for node in f.node)]
    return total + sum(_constant_bytes(node) for node in _walk(nodes))


def initializers(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """Yield the initialisers of a graph and of the graphs inside its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for inner in _subgraphs(node):
            yield from initializers(inner)


def _walk(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for graph in _subgraphs(node):
            yield from _walk(graph.node)


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _constant_bytes(node: onnx.NodeProto) -> int:
    """Count the bytes of a Constant node's value, in whichever attribute it stands."""
    if node.op_type != "Constant":
        return 0
    total = 0
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR:
            total += tensor_bytes(attribute.t)
        if attribute.type == AttributeProto.SPARSE_TENSOR:
            total += tensor_bytes(attribute.sparse_tensor.values)
            total += tensor_bytes(attribute.sparse_tensor.indices)
        scalar = {AttributeProto.FLOAT: 4, AttributeProto.INT: 8}
        total += scalar.get(attribute.type, 0) + len(attribute.s)
        total += 4 * len(attribute.floats) + 8 * len(attribute.ints)
        total += sum(len(text) for text in attribute.strings)
    return total
