"""Lowerings of packed weights: codes of few bits stay codes in the file.

Where the target folds decoders, weights are handed to the decoder of all layers (`foldable`).
Elsewhere each has nodes of its own:

    4 and 8 bits, uniform    INT4, UINT4, INT8 or UINT8 -> DequantizeLinear
    2, 3, 5, 6 bits          planes of UINT4 -> DequantizeLinear (scale 1) -> Floor, Sub, Concat
                             -> sum of planes -> minus zero, times scale -> Cast
    tables                   codes as above -> Cast to int32 -> Gather -> times scale -> Cast

A plane is cut as `yqc.quant.weights.packing` says. Every form begins with a DequantizeLinear, which
onnxsim, onnxslim and onnxruntime leave alone, and what depends on it cannot be folded either.
Scales and tables are float16; opset 21 is needed for that and for the four-bit types.
"""

# ruff: noqa: D103  # the decorator says what is lowered, the arguments are the op's

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from onnx import TensorProto
from torch import Tensor, fx

from yqc.emit.emitter import Constant, Emitter
from yqc.emit.stored import StoredRice, StoredWeight
from yqc.emit.table import lowering
from yqc.quant.weights.ops import unpack_rice, unpack_table, unpack_uniform
from yqc.quant.weights.packing import PLANES, pack, plane_nibbles, planes, signed, unpack
from yqc.quant.weights.rice import decode_levels, read_planes

OPSET = 21
RICE_OPSET = 18
"""The first opset with BitwiseAnd."""
BYTE, NIBBLE = 8, 4
TYPES = {(4, True): TensorProto.INT4, (4, False): TensorProto.UINT4}


@dataclass(frozen=True)
class Packed:
    """A packed weight that is being lowered."""

    codes: Tensor
    """uint8, packed."""
    name: str
    shape: tuple[int, ...]
    bits: int
    block: int
    """Consecutive weights of a row that share a scale, 0 for one a row or tensor."""

    @property
    def count(self) -> int:
        """How many weights."""
        return math.prod(self.shape)

    @property
    def unpacked(self) -> Tensor:
        """The codes, one a byte."""
        return unpack(self.codes, self.count, self.bits)

    @property
    def spread(self) -> list[int]:
        """The shape in which the weights of a block lie behind each other."""
        return [self.shape[0], -1, self.block] if self.block else list(self.shape)

    def beside(self, scale: Tensor) -> list[int]:
        """Return the shape in which scales broadcast to `spread`."""
        if self.block:
            return [*scale.shape, 1]
        return [] if scale.ndim == 0 else [-1, *[1] * (len(self.shape) - 1)]


@lowering(unpack_uniform)
def uniform(
    e: Emitter,
    node: fx.Node,
    packed: fx.Node | Constant,
    scale: fx.Node | Constant,
    zero: fx.Node | Constant | None,
    shape: Sequence[int],
    bits: int,
    block: int,
) -> str:
    w = _packed(e, packed, shape, bits, block)
    scales, _scale_name = _held(e, scale)
    offsets = (
        None if zero is None else unpack(_held(e, zero)[0], scales.numel(), bits).view(scales.shape)
    )
    if e.stored is not None:
        codes = (_turned(w) if offsets is None else w).unpacked
        zeros = None if offsets is None else offsets.reshape(-1)
        stored = StoredWeight(node.name, w.shape, bits, codes, scales, zeros)
        return e.stored.add(stored)
    if bits in {NIBBLE, BYTE}:
        return _dequantize(e, w, scale, offsets)
    return _by_planes(e, w, scale, offsets)


def _dequantize(e: Emitter, w: Packed, scale: fx.Node | Constant, offsets: Tensor | None) -> str:
    """Store codes as integers of their own type and dequantize them in one node.

    The scales are float32 here; once the model is simplified, `halve_scales` stores them in half.
    """
    plain = offsets is None
    codes = unpack(w.codes, w.count, w.bits)
    values = signed(codes, w.bits) if plain else codes
    dims = [w.shape[0], -1] if w.block else list(w.shape)
    dtype = TYPES.get((w.bits, plain))
    weight = e.tensor(values.view(dims), w.name, dtype)
    zero = None
    if offsets is not None:
        zero = e.tensor(offsets, f"{w.name}_zero", dtype)
    held, name = _held(e, scale)
    wide = e.tensor(held.float(), name)
    axis = None if held.ndim == 0 else int(bool(w.block))
    made = e.op("DequantizeLinear", weight, wide, zero, axis=axis, block_size=w.block or None)
    return e.op("Reshape", made, list(w.shape)) if w.block else made


def _by_planes(e: Emitter, w: Packed, scale: fx.Node | Constant, offsets: Tensor | None) -> str:
    """Put codes together from planes, then take off the zero and scale."""
    if offsets is None:  # two's complement: with the highest bit turned over, zero is the middle
        middle = 1 << (w.bits - 1)
        level = e.op("Sub", _codes(e, _turned(w)), e.scalar(float(middle)))
        level = e.op("Reshape", level, w.spread)
    else:
        stored = e.tensor(offsets.to(torch.uint8), f"{w.name}_zero")
        zero = e.op("DequantizeLinear", stored, e.scalar(1.0))
        wide = e.op("Reshape", zero, w.beside(offsets))
        level = e.op("Sub", e.op("Reshape", _codes(e, w), w.spread), wide)
    return _scaled(e, w, e.op("Cast", level, to=TensorProto.FLOAT16), scale)


def _turned(w: Packed) -> Packed:
    """Turn the sign bit of packed two's complement codes over: code = value + 2^(bits-1)."""
    values = unpack(w.codes, w.count, w.bits).to(torch.int16)
    return replace(w, codes=pack(values ^ (1 << (w.bits - 1)), w.bits))


@lowering(unpack_table)
def table(
    e: Emitter,
    node: fx.Node,
    packed: fx.Node | Constant,
    table: fx.Node | Constant,
    scale: fx.Node | Constant,
    shape: Sequence[int],
    bits: int,
    block: int,
) -> str:
    w = _packed(e, packed, shape, bits, block)
    entries, table_name = _held(e, table)
    tables, levels = entries.shape
    if e.stored is not None:
        scales, _scale_name = _held(e, scale)
        each = scales if scales.numel() >= tables else scales.reshape(1).expand(tables)
        stored = StoredWeight(node.name, w.shape, bits, w.unpacked, each, table=entries)
        return e.stored.add(stored)
    index = e.op("Cast", _codes(e, w), to=TensorProto.INT32)
    if tables > 1:
        first = torch.arange(tables, dtype=torch.int32).view(-1, 1) * levels
        rows = e.op("Reshape", index, [tables, -1])
        index = e.op("Add", rows, e.tensor(first))
    units = e.op("Gather", e.tensor(entries.reshape(-1), table_name), index)
    units = e.op("Reshape", units, w.spread) if block or tables > 1 else units
    return _scaled(e, w, units, scale)


@lowering(unpack_rice)
def rice(
    e: Emitter,
    node: fx.Node,
    packed: fx.Node | Constant,
    scale: fx.Node | Constant,
    exponents: fx.Node | Constant,
    shape: Sequence[int],
    low: int,
    planes: Sequence[int],
) -> str:
    codes, step, channels = (_held(e, operand)[0] for operand in (packed, scale, exponents))
    if e.stored is None:  # only to see what a graph becomes: `emit` decodes all layers at once
        return e.tensor(unpack_rice(codes, step, channels, shape, low, planes))
    e.require(RICE_OPSET, "codes of variable length")
    levels = decode_levels(codes, math.prod(shape), low, read_planes(planes))
    factors = unpack(channels, shape[0], 4)
    stored = StoredRice(node.name, tuple(shape), levels, low, read_planes(planes), step, factors)
    return e.stored.add(stored)


def _codes(e: Emitter, w: Packed) -> str:
    """Store the planes of codes; the result is a float tensor of `shape` with the codes' values."""
    left, total = w.bits, ""
    one = e.scalar(1.0)
    for part, width in zip(planes(w.codes, w.count, w.bits), PLANES[w.bits], strict=True):
        left -= width
        whole = w.bits == width and width >= NIBBLE
        if width == BYTE:
            stored = e.tensor(part.view(list(w.shape)), w.name)
        else:
            values = plane_nibbles(part, w.count, width)
            stored = e.tensor(
                values.view(list(w.shape)) if whole else values,
                f"{w.name}.{width}" if not whole else w.name,
                TensorProto.UINT4,
            )
        plane = _unfold(e, e.op("DequantizeLinear", stored, one), w.count, width)
        if left:
            plane = e.op("Mul", plane, e.scalar(float(1 << left)))
        total = e.op("Add", total, plane) if total else plane
    return total if whole else e.op("Reshape", total, list(w.shape))


def _unfold(e: Emitter, nibbles: str, count: int, width: int) -> str:
    """Take four-bit values apart into those of 2 or 1 bits that were folded into them."""
    if width >= NIBBLE:
        return nibbles
    parts, rest, per = [], nibbles, NIBBLE // width
    step = float(1 << width)
    for _ in range(per - 1):
        above = e.op("Floor", e.op("Mul", rest, e.scalar(1 / step)))
        parts.append(e.op("Sub", rest, e.op("Mul", above, e.scalar(step))))
        rest = above
    joined = e.op("Concat", *parts, rest, axis=0)
    if count % per == 0:
        return joined
    return e.op("Slice", joined, [0], [count], [0])


def _scaled(e: Emitter, w: Packed, units: str, scale: fx.Node | Constant) -> str:
    """Multiply units by their scales, and give them the weight's shape: a float32 value.

    The Cast stands right behind the product, where onnxruntime, which has no float16 kernels for
    it on most CPUs, drops the rounding in between; the graph computes it without one too.
    """
    held, name = _held(e, scale)
    product = e.op("Mul", units, e.tensor(held.view(w.beside(held)), name))
    product = e.op("Cast", product, to=TensorProto.FLOAT)
    return e.op("Reshape", product, list(w.shape)) if w.block else product


def _packed(
    e: Emitter, operand: fx.Node | Constant, shape: Sequence[int], bits: int, block: int
) -> Packed:
    """Return a packed weight that the graph holds."""
    if e.stored is None:
        e.require(OPSET, "packed weights")
    elif bits < BYTE:
        e.require(e.stored.opset, "packed weights")
    return Packed(*_held(e, operand), tuple(shape), bits, block)


def _held(e: Emitter, operand: fx.Node | Constant) -> tuple[Tensor, str]:
    """Return a tensor that the graph holds, and the name for it in the file."""
    constant = e.constant(operand)
    if constant is None:
        e.refuse("its codes, scales and tables must be tensors of the graph")
    return constant.value, constant.name.removesuffix("_packed")
