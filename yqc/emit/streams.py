"""Decode all stored weights of a file together, in streams of weights that are stored alike.

A stream holds the codes of its layers in one tensor, behind them the codes of their zeros, and
their scales in another. Within it, layers whose scales are for equally many weights are a group:

    uniform    Reshape [-1, row] -> Sub zero -> Mul scale                     -> Split -> layers
    table      (table of each scale) times scale, looked up by GatherElements -> Split -> layers
    biases     int16 -> Reshape [-1, channels] -> Mul scale -> Reshape [-1]   -> Split

So the nodes grow with the number of groups, and by one Reshape a layer. The weight of a convolution
on integers stays an integer, level minus zero, if it has one scale a channel and fits into int8.
Else it is rounded behind the product, with 127 for the largest value of a channel. Either way it is
dequantized last, so that the runtime finds an integer weight with one scale a channel.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import TypeAlias

import torch
from onnx import TensorProto

from yqc.emit.decoder import BYTE, Decoder
from yqc.emit.stored import StoredBias, StoredRice, StoredWeight

ALIGNED = 8
"""Codes are padded to a multiple of this: planes of all widths then fill whole bytes."""
AnyWeight: TypeAlias = StoredWeight | StoredRice
TINY = 2.0**-40
"""Added to the scale of each channel of int8, so that a channel of zeros is not divided by 0."""


def decode_weights(d: Decoder, weights: Sequence[StoredWeight]) -> None:
    """Write what decodes weights, each into the value that it names."""
    for _, stream in groupby(sorted(weights, key=lambda w: w.stream), lambda w: w.stream):
        layers = sorted(stream, key=lambda w: w.group)
        groups = [list(group) for _, group in groupby(layers, lambda w: w.group)]
        _Stream(d, groups).decode()


class _Stream:
    """Weights of equal bits, type of scale, and kind of grid, in groups."""

    def __init__(self, d: Decoder, groups: list[list[StoredWeight]]) -> None:
        self.d, self.groups = d, groups
        self.layers = [layer for group in groups for layer in group]
        self.one = self.layers[0]
        self.name = f"weights.{self.one.bits}{'t' if self.one.table is not None else ''}"

    def decode(self) -> None:
        """Write the nodes of all layers."""
        codes, zeros = self._codes()
        counts = [sum(w.scale.numel() for w in group) for group in self.groups]
        rows = self.d.split(self._scales(), counts)
        for group, code, zero, row in zip(self.groups, codes, zeros, rows, strict=True):
            levels = self.d.reshape(code, -1, group[0].row)
            if group[0].table is not None:
                decode, read = partial(self.d.op, "GatherElements", axis=1), (row, levels)
            else:
                middle = zero or self.d.number(float(1 << (self.one.bits - 1)))
                levels = self.d.op("Sub", levels, middle)
                decode, read = partial(self.d.op, "Mul"), (levels, row)
            if group[0].integers and group[0].table is None and group[0].fits_int8:
                write_integers(self.d, group, levels, row)
            elif group[0].integers:
                whole = round_to_int8(self.d, decode(*read), group[0].channel)
                write_integers(self.d, group, *whole)
            elif group[0].shape[1] == 1:
                write_depthwise(self.d, group, decode, *read)
            else:
                write_floats(self.d, group, decode(*read))

    def _codes(self) -> tuple[list[str], list[str]]:
        """Return the codes of each group, and those of its zeros: floats, or indices of tables."""
        bits, tables = self.one.bits, self.one.table is not None
        parts = [torch.cat([w.codes for w in group]) for group in self.groups]
        zeros = [w.zero for group in self.groups for w in group if w.zero is not None]
        affine = [group for group in self.groups if group[0].zero is not None]
        parts += [torch.cat(zeros)] if zeros else []
        sizes = [len(part) for part in parts]
        if rest := -sum(sizes) % ALIGNED if bits < BYTE else 0:
            parts.append(torch.zeros(rest, dtype=torch.uint8))
            sizes.append(rest)
        stored = self.d.codes(torch.cat(parts), bits, self.name)
        kind = TensorProto.INT32 if tables else TensorProto.FLOAT
        found = self.d.split(self.d.cast(stored, kind), sizes)
        if not zeros:
            return found[: len(self.groups)], [""] * len(self.groups)
        wide = self.d.reshape(found[len(self.groups)], -1, 1)
        each = iter(self.d.split(wide, [sum(w.scale.numel() for w in g) for g in affine]))
        of_groups = ["" if group[0].zero is None else next(each) for group in self.groups]
        return found[: len(self.groups)], of_groups

    def _scales(self) -> str:
        """Return all scales, float32 [S, 1]; of tables: their scaled entries [S, 2^bits]."""
        d = self.d
        scales = torch.cat([w.scale.reshape(-1, 1) for w in self.layers])
        value = d.stored(scales, f"{self.name}.scale")
        if scales.dtype == torch.float16:
            value = d.cast(value, TensorProto.FLOAT)
        tables = [w.table for w in self.layers if w.table is not None]
        if not tables:
            return value
        entries = d.cast(d.stored(torch.cat(tables), f"{self.name}.table"), TensorProto.FLOAT)
        each = [
            w.scale.numel() // len(w.table)
            for w in self.layers
            if w.table is not None
            for _ in w.table
        ]
        return d.op("Mul", self._of_each(entries, value, each), value)

    def _of_each(self, entries: str, scales: str, counts: Sequence[int]) -> str:
        """Repeat each table as often as it has scales: [T, 2^bits] to [S, 2^bits]."""
        d = self.d
        if len(counts) in {1, sum(counts)}:  # one is broadcast
            return entries
        ones = d.cast(d.op("Equal", scales, scales), TensorProto.INT32)
        place = d.op("CumSum", ones, d.number(0, torch.int32))
        ends = torch.tensor(counts, dtype=torch.int32).cumsum(0, dtype=torch.int32)[:-1]
        behind = d.op("Greater", place, d.tensor(ends.view(1, -1)))
        whole = d.cast(behind, TensorProto.INT32)
        axes = d.integers(1)
        index = d.op("ReduceSum", whole, axes, keepdims=0)
        return d.op("Gather", entries, index, axis=0)


def write_floats(d: Decoder, group: Sequence[AnyWeight], values: str) -> None:
    """Cut the rows of a group, [S, row], into layers."""
    for w, part in zip(group, d.split(values, [w.rows for w in group]), strict=True):
        d.reshape(part, -1, *w.shape[1:], out=w.name)


def write_depthwise(
    d: Decoder, group: Sequence[AnyWeight], decode: Callable[..., str], *rows: str
) -> None:
    """Cut the rows that a decoding node reads into layers, and decode each by one.

    OpenVINO 2026.4 refuses weights of depthwise convolutions that are cut out of one result.
    """
    sizes = [w.rows for w in group]
    for w, *parts in zip(group, *(d.split(value, sizes) for value in rows), strict=True):
        d.reshape(decode(*parts), -1, *w.shape[1:], out=w.name)


def round_to_int8(d: Decoder, values: str, channel: int) -> tuple[str, str]:
    """Return whole numbers in -127 .. 127, [R, channel], and a scale for each row, [R, 1]."""
    values = d.reshape(values, -1, channel)
    largest = d.largest_of_rows(d.op("Abs", values))
    scale = d.op("Add", d.op("Mul", largest, d.number(1 / 127)), d.number(TINY))
    return d.op("Round", d.op("Div", values, scale)), scale


def write_integers(d: Decoder, group: Sequence[AnyWeight], steps: str, scale: str) -> None:
    """Cut whole numbers, [R, channel], into layers of int8, dequantized with scales [R, 1]."""
    steps = d.cast(steps, TensorProto.INT8)
    channels = [w.shape[0] for w in group]
    scales = d.split(d.reshape(scale, -1), channels)
    for w, part, own in zip(group, d.split(steps, channels), scales, strict=True):
        whole = d.reshape(part, -1, *w.shape[1:])
        d.op("DequantizeLinear", whole, own, out=w.name, axis=0)


def decode_biases(d: Decoder, biases: Sequence[StoredBias]) -> None:
    """Write what decodes biases, each into the value that it names."""
    if not biases:
        return
    layers = sorted(biases, key=lambda b: len(b.steps))
    groups = [list(group) for _, group in groupby(layers, lambda b: len(b.steps))]
    steps = d.stored(torch.cat([b.steps for b in layers]), "biases")
    sizes = [sum(len(b.steps) for b in group) for group in groups]
    parts = d.split(d.cast(steps, TensorProto.FLOAT), sizes)
    for group, part in zip(groups, parts, strict=True):
        channels, scales = len(group[0].steps), torch.stack([b.scale for b in group])
        values = d.op("Mul", d.reshape(part, -1, channels), d.tensor(scales.view(-1, 1)))
        if len(group) == 1:
            d.reshape(values, -1, out=group[0].name)
        else:
            d.ops(
                "Split",
                [b.name for b in group],
                d.reshape(values, -1),
                d.integers(*[channels] * len(group)),
                axis=0,
            )
