"""Compute sizes of windows and paddings."""

from collections.abc import Sequence
from typing import TypeAlias

Dims: TypeAlias = int | Sequence[int]
"""A size as PyTorch takes it: one for all dimensions, or one a dimension."""


def each(value: Dims, count: int) -> list[int]:
    """Return a size for each of `count` dimensions."""
    if isinstance(value, int):
        return [value] * count
    return [int(v) for v in value] * (count if len(value) == 1 else 1)


def same_padding(kernel: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """Return the padding of `padding="same"` in ONNX's order: all starts, then all ends.

    PyTorch puts the odd element at the end.
    """
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return [t // 2 for t in total] + [t - t // 2 for t in total]


def missing(  # one dimension of a window, as papers write it
    size: int, outputs: int, kernel: int, stride: int, dilation: int, start: int
) -> int:
    """Return how much padding behind the end the last of `outputs` windows reaches into.

    Negative if the last window ends before the last element. `start` is the padding in front.
    """
    return (outputs - 1) * stride + dilation * (kernel - 1) + 1 - size - start


def taps(output: int, kernel: int, stride: int, dilation: int, start: int) -> range:
    """Return the input positions of one window; below 0 and from the size on is padding."""
    first = output * stride - start
    return range(first, first + dilation * kernel, dilation)


def onnx_pads(pad: Sequence[int], rank: int) -> list[int]:
    """Turn the padding of `F.pad` (pairs, last dimension first) into ONNX's starts and ends."""
    starts, ends = [0] * rank, [0] * rank
    for i in range(len(pad) // 2):
        starts[rank - 1 - i], ends[rank - 1 - i] = int(pad[2 * i]), int(pad[2 * i + 1])
    return starts + ends
