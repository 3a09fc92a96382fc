"""Decode all weights in codes of variable length together (`yqc.quant.weights.rice`).

The layers stand in order of falling Rice parameters, so that those with one parameter are a slice.
Each plane is one stream of all of them, read as deep as codes escaped from the plane before:

    escaped = Cast(code >= T)    place = CumSum(escaped, exclusive)
    code of the next plane = GatherElements(its stream, place) * escaped

Behind the streams of the planes stands one code more, which places behind the last escape read.
Nothing has a shape that depends on values, so that onnxruntime folds all of it when it loads the
file. Then the low bits of each parameter are put below, and ranks become integers:

    rank = 2^low * high + low bits    integer = (rank + 1) / 2 * (2 * (rank & 1) - 1)

A channel's step is its layer's times a factor, looked up by its exponent.
"""

from collections.abc import Sequence
from functools import partial
from itertools import groupby, pairwise

import torch
from onnx import TensorProto
from torch import Tensor

from yqc.emit.decoder import Decoder
from yqc.emit.stored import StoredRice
from yqc.emit.streams import round_to_int8, write_depthwise, write_floats, write_integers
from yqc.quant.weights.rice import Plane, rank_levels, split_codes
from yqc.quant.weights.rice_layer import factor_table

ALIGNED = 8
"""Codes are padded to a multiple of this: any width then fills whole bytes."""
INT = TensorProto.INT32


def decode_rice(d: Decoder, weights: Sequence[StoredRice]) -> None:
    """Write what decodes weights of one network, each into the value that it names."""
    if not weights:
        return
    layers = sorted(weights, key=lambda w: w.group)
    ranks = [rank_levels(w.levels) for w in layers]
    high = _decode_high(d, layers, ranks)
    integers = _join_low(d, layers, ranks, high)
    groups = [list(group) for _, group in groupby(layers, lambda w: w.group)]
    sizes = [sum(w.levels.numel() for w in group) for group in groups]
    steps = d.split(_steps(d, layers), [sum(w.rows for w in group) for group in groups])
    for group, part, step in zip(groups, d.split(integers, sizes), steps, strict=True):
        levels = d.reshape(part, -1, group[0].channel)
        if group[0].integers and group[0].fits_int8:
            write_integers(d, group, levels, step)
        elif group[0].integers:
            write_integers(d, group, *round_to_int8(d, d.op("Mul", levels, step), group[0].channel))
        elif group[0].shape[1] == 1:
            write_depthwise(d, group, partial(d.op, "Mul"), levels, step)
        else:
            write_floats(d, group, d.op("Mul", levels, step))


def _decode_high(d: Decoder, layers: Sequence[StoredRice], ranks: Sequence[Tensor]) -> list[str]:
    """Return the high parts of each Rice parameter's layers, int32."""
    planes = layers[0].planes
    high = torch.cat([rank >> w.low for w, rank in zip(layers, ranks, strict=True)])
    codes = split_codes(high, planes)
    counts = _count_by_low(layers)
    rest = -len(high) % ALIGNED
    codes[0] = torch.nn.functional.pad(codes[0], (0, rest))
    value = code = d.cast(d.bits_of(_bytes(codes[0]), planes[0].bits, "rice.0"), INT)
    for at, (plane, after) in enumerate(pairwise(planes), start=1):
        if not len(codes[at]):
            break
        value, code = _next_plane(d, plane, after, codes[at], value, code, f"rice.{at}")
    return d.split(value, [*counts, rest] if rest else counts)[: len(counts)]


def _next_plane(
    d: Decoder, plane: Plane, after: Plane, codes: Tensor, value: str, code: str, name: str
) -> tuple[str, str]:
    """Add the next plane to values; return them and the codes of the plane."""
    padded = torch.nn.functional.pad(codes, (0, -(len(codes) + 1) % ALIGNED + 1))
    stream = d.cast(d.bits_of(_bytes(padded), after.bits, name), INT)
    threshold = d.number(plane.threshold, torch.int32)
    escaped = d.cast(d.op("GreaterOrEqual", code, threshold), INT)
    place = d.op("CumSum", escaped, d.number(0, torch.int32), exclusive=1)
    found = d.op("Mul", d.op("GatherElements", stream, place, axis=0), escaped)
    value = d.op("Add", value, found)
    if plane.escapes > 1:
        index = d.op("Mul", d.op("Sub", code, threshold), escaped)
        more = d.op("Mul", index, d.number((1 << after.bits) - 1, torch.int32))
        value = d.op("Add", value, more)
    return value, found


def _join_low(
    d: Decoder, layers: Sequence[StoredRice], ranks: Sequence[Tensor], high: Sequence[str]
) -> str:
    """Put low bits below the high parts; return the integers of all layers, float32."""
    parts = []
    for each, part in zip(_by_low(layers, ranks), high, strict=True):
        low, values = each
        if not low:
            parts.append(part)
            continue
        rest = -len(values) % ALIGNED
        padded = torch.nn.functional.pad(values & ((1 << low) - 1), (0, rest))
        shifted = d.op("Mul", part, d.number(1 << low, torch.int32))
        stored = _low_bits(d, padded, low)
        if rest:
            stored = d.split(stored, [len(values), rest])[0]
        parts.append(d.op("Add", shifted, stored))
    rank = d.op("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]
    one, two = d.number(1, torch.int32), d.number(2, torch.int32)
    half = d.op("Div", d.op("Add", rank, one), two)
    odd = d.op("Mul", d.op("BitwiseAnd", rank, one), two)
    return d.cast(d.op("Mul", half, d.op("Sub", odd, one)), TensorProto.FLOAT)


def _low_bits(d: Decoder, values: Tensor, low: int) -> str:
    """Store the low bits of ranks, at most a byte at once: int32."""
    name = f"rice.low.{low}"
    byte = d.cast(d.bits_of(_bytes(values & 0xFF), min(low, 8), name), INT)
    if low <= 8:  # noqa: PLR2004  # a byte
        return byte
    above = d.cast(d.bits_of(_bytes(values >> 8), low - 8, f"{name}.high"), INT)
    return d.op("Add", byte, d.op("Mul", above, d.number(256, torch.int32)))


def _by_low(layers: Sequence[StoredRice], ranks: Sequence[Tensor]) -> list[tuple[int, Tensor]]:
    """Return each Rice parameter with the ranks of its layers."""
    pairs = groupby(zip(layers, ranks, strict=True), lambda pair: pair[0].low)
    return [(low, torch.cat([rank for _, rank in group])) for low, group in pairs]


def _count_by_low(layers: Sequence[StoredRice]) -> list[int]:
    """Return the number of weights of each Rice parameter."""
    return [sum(w.levels.numel() for w in group) for _, group in groupby(layers, lambda w: w.low)]


def _steps(d: Decoder, layers: Sequence[StoredRice]) -> str:
    """Return the steps of all channels: float32 [channels, 1]."""
    codes = torch.cat([w.exponents for w in layers])
    rest = -len(codes) % ALIGNED
    indices = d.cast(d.bits_of(torch.nn.functional.pad(codes, (0, rest)), 4, "rice.exponent"), INT)
    if rest:
        indices = d.split(indices, [len(codes), rest])[0]
    table = d.tensor(factor_table(), "rice.factor")
    factor = d.op("Gather", table, indices, axis=0)
    stored = d.stored(torch.stack([w.scale for w in layers]), "rice.scale")
    scale = d.cast(stored, TensorProto.FLOAT)
    if len(layers) > 1:
        scale = d.op("Gather", scale, d.ordinals(indices, [w.rows for w in layers]), axis=0)
    return d.reshape(d.op("Mul", factor, scale), -1, 1)


def _bytes(values: Tensor) -> Tensor:
    return values.to(torch.uint8)
