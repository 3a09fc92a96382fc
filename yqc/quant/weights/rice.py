"""Rice codes in planes: integers of any size in few bits, decoded by arithmetic on whole tensors.

An integer q is ranked by magnitude, rank = 2 |q| - [q > 0], and split: the `low` lowest bits of
the rank (the Rice parameter of its layer; Rice 1979) are stored as they are, and the rest,
high = rank >> low, goes through planes. A plane has codes of `bits` bits, of which the highest
`escapes` ones mean that the value goes on in the next plane:

    T = 2^bits - escapes
    value < T:   code = value
    else:        code = T + x    x = min((value - T) >> b, escapes - 1)    b: bits of the next plane
                 the next plane holds value - T - (x << b)

The next plane has codes for the escaped values only, in order. Where a value's code is in a plane
follows from the number of escapes before it, so a prefix sum and a gather decode a whole plane
(`yqc.emit.rice_streams`); a bitwise prefix code would need one step a weight.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from yqc.quant.weights.packing import pack, packed_bytes, unpack

MOST_LOW = 10
"""Largest Rice parameter. An average code is about two bits longer than it: layers of more than 12
bits a weight would be larger with it, and none is as fine."""
LARGEST_LEVEL = 4095
"""Largest magnitude that is rounded to. Layers of few bits stay far below it; twice as much would
double tables of code lengths and change nothing else."""
MOST_BITS = 8
"""Bits of a plane's code at most: a byte."""
NEVER = 1e12
"""Bits in place of infinitely many, which none of no integers would turn into no number."""
ESCAPES = (1, 2, 3, 4, 6, 8, 12, 16)
"""Numbers of escapes that are tried; more than one for the last plane but one. On yolov5n at 4 bits
all choices from 4 to 8 end within 0.1 % of the same size."""
SPLITS = [
    (bits, more) for bits in range(1, MOST_BITS + 1) for more in (0, *ESCAPES) if more < 1 << bits
]
"""Bits and escapes of a plane that are tried. Planes with one escape are followed by any others,
those with more by the last one."""
DEPTH = 5
"""Planes at most. Each costs seven nodes in a file, and about 15 ms for two million weights when it
is loaded. By an outside measurement at 4.06 bits of entropy: three planes 4.61 bits, four 4.36,
five 4.27."""


@dataclass(frozen=True)
class Plane:
    """Codes of `bits` bits, the highest `escapes` of which go on in the next plane."""

    bits: int
    escapes: int = 0

    @property
    def threshold(self) -> int:
        """The first code that escapes."""
        return (1 << self.bits) - self.escapes


Planes = tuple[Plane, ...]
START: Planes = (Plane(2, 1), Plane(2, 1), Plane(3, 1), Plane(5, 6), Plane(8))
"""Planes before a network's own are found: the best split for yolov5n at 4 bits."""


def read_planes(numbers: Sequence[int]) -> Planes:
    """Read planes from bits and escapes by turns, as operators take them.

    Raises:
        ValueError: the numbers describe no planes.
    """
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    legal = all(1 <= bits <= MOST_BITS and 0 <= more < 1 << bits for bits, more in pairs)
    if not pairs or not legal:
        raise ValueError(f"planes have 1 to {MOST_BITS} bits and fewer escapes than codes")
    if any(more == 0 for _, more in pairs[:-1]) or pairs[-1][1]:
        raise ValueError("all planes but the last one have escapes")
    return tuple(Plane(bits, more) for bits, more in pairs)


def write_planes(planes: Planes) -> list[int]:
    """Undo `read_planes`."""
    return [number for plane in planes for number in (plane.bits, plane.escapes)]


def rank_levels(levels: Tensor) -> Tensor:
    """Rank integers by magnitude, 0, 1, -1, 2, -2 to 0, 1, 2, 3, 4: int64 of the same shape."""
    levels = levels.long()
    return 2 * levels.abs() - (levels > 0).long()


def levels_of(ranks: Tensor) -> Tensor:
    """Undo `rank_levels`."""
    return ((ranks + 1) >> 1) * (2 * (ranks & 1) - 1)


def split_codes(high: Tensor, planes: Planes) -> list[Tensor]:
    """Split values, int64 [n], not negative, into the codes of each plane.

    Raises:
        ValueError: a value is larger than the planes hold.
    """
    codes, left = [], high
    for plane, after in itertools.zip_longest(planes, planes[1:]):
        over = left - plane.threshold
        escaped = over >= 0
        if after is None:
            if bool(escaped.any()):
                raise ValueError("the planes are too small for the largest value")
            codes.append(left)
            break
        index = (over >> after.bits).clamp(max=plane.escapes - 1)
        codes.append(torch.where(escaped, plane.threshold + index, left))
        left = (over - (index << after.bits))[escaped]
    return codes


def join_codes(codes: Sequence[Tensor], planes: Planes) -> Tensor:
    """Undo `split_codes`."""
    value = codes[-1]
    for at in range(len(planes) - 2, -1, -1):
        threshold, rest, value = planes[at].threshold, value, codes[at].clone()
        escaped = value >= threshold
        value[escaped] += (value[escaped] - threshold) * ((1 << planes[at + 1].bits) - 1) + rest
    return value


def encode_levels(levels: Tensor, low: int, planes: Planes) -> Tensor:
    """Encode integers of any shape: uint8, the planes one after the other, then the low bits.

    Raises:
        ValueError: the planes are too small for the largest integer, or the parameter is not legal.
    """
    _check_low(low)
    ranks = rank_levels(levels.reshape(-1))
    codes = split_codes(ranks >> low, planes)
    parts = [pack(code, plane.bits) for code, plane in zip(codes, planes, strict=True)]
    return torch.cat([*parts, *_pack_low(ranks & ((1 << low) - 1), low)])


def decode_levels(packed: Tensor, count: int, low: int, planes: Planes) -> Tensor:
    """Undo `encode_levels`: int64 [count].

    Raises:
        ValueError: the stream is too short or too long for `count` integers.
    """
    _check_low(low)
    codes, at, left = [], 0, count
    for plane in planes:
        size = packed_bytes(left, plane.bits)
        codes.append(unpack(_cut(packed, at, size), left, plane.bits).long())
        at, left = at + size, int((codes[-1] >= plane.threshold).sum())
    ranks = join_codes(codes, planes) << low
    for bits, shift in _low_parts(low):
        size = packed_bytes(count, bits)
        ranks += unpack(_cut(packed, at, size), count, bits).long() << shift
        at += size
    if at != packed.numel():
        raise ValueError(f"a stream of {count} codes has {at} bytes, not {packed.numel()}")
    return levels_of(ranks)


def _check_low(low: int) -> None:
    if not 0 <= low <= MOST_LOW:
        raise ValueError(f"a Rice parameter lies in 0..{MOST_LOW}, not {low}")


def _cut(packed: Tensor, at: int, size: int) -> Tensor:
    if packed.numel() < at + size:
        raise ValueError(f"the stream of codes ends after {packed.numel()} bytes; it is cut off")
    return packed[at : at + size]


def _low_parts(low: int) -> list[tuple[int, int]]:
    """Return the widths in which low bits are stored, at most a byte each, with their places."""
    if low <= MOST_BITS:
        return [(low, 0)] if low else []
    return [(low - MOST_BITS, MOST_BITS), (MOST_BITS, 0)]


def _pack_low(values: Tensor, low: int) -> list[Tensor]:
    return [pack((values >> shift) & ((1 << bits) - 1), bits) for bits, shift in _low_parts(low)]


@lru_cache(maxsize=256)
def code_lengths(planes: Planes, low: int, largest: int = LARGEST_LEVEL) -> Tensor:
    """Return the bits of the code of each rank up to that of -largest: float32 [2 largest + 1].

    What the planes do not hold is infinitely long.
    """
    left = torch.arange(2 * largest + 1) >> low
    bits = torch.full(left.shape, float(low))
    alive = torch.ones_like(left, dtype=torch.bool)
    for plane, after in itertools.zip_longest(planes, planes[1:]):
        bits += alive * plane.bits
        over = left - plane.threshold
        alive = alive & (over >= 0)
        if after is None:
            bits[alive] = torch.inf
            break
        index = (over >> after.bits).clamp(0, plane.escapes - 1)
        left = over - (index << after.bits)
    return bits


def choose_low(counts: Tensor, planes: Planes) -> tuple[int, float]:
    """Return the Rice parameter with the shortest codes, and their bits.

    Args:
        counts: of each rank, [n].
        planes: those of the network.
    """
    lengths = _lengths_by_low(planes, max(LARGEST_LEVEL, len(counts) // 2))
    sizes: list[float] = (lengths[:, : len(counts)] @ counts.float()).tolist()
    best = min(range(len(sizes)), key=sizes.__getitem__)
    return best, sizes[best]


@lru_cache(maxsize=16)
def _lengths_by_low(planes: Planes, largest: int) -> Tensor:
    """Return the lengths of codes for each Rice parameter: float32 [parameters, ranks]."""
    every = [code_lengths(planes, low, largest) for low in range(MOST_LOW + 1)]
    return torch.stack(every).clamp_(max=NEVER)


def packed_size(counts: Tensor, low: int, planes: Planes) -> int:
    """Return the bytes of the stream of a layer whose ranks occur `counts` times, [n]."""
    count = int(counts.sum())
    total = sum(packed_bytes(count, bits) for bits, _ in _low_parts(low))
    ranks = torch.arange(len(counts)) >> low
    for code, plane in zip(split_codes(ranks, planes), planes, strict=True):
        total += packed_bytes(int(counts.sum()), plane.bits)
        counts = counts[code >= plane.threshold]
    return total


def code_network(counts: Sequence[Tensor], turns: int = 3) -> tuple[Planes, list[int]]:
    """Choose the planes of a network and the Rice parameter of each layer, by turns.

    Args:
        counts: of each layer: how often each rank occurs.
        turns: each shortens the codes, ever less: on yolov5n the third by less than 0.1 %.
    """
    planes = START
    for _ in range(turns):
        lows = [choose_low(each, planes)[0] for each in counts]
        most = max((len(each) - 1) >> low for each, low in zip(counts, lows, strict=True))
        total = torch.zeros(most + 1, dtype=torch.int64)
        for each, low in zip(counts, lows, strict=True):
            total.index_add_(0, torch.arange(len(each)) >> low, each)
        planes = find_planes(total)
    return planes, lows


def find_planes(counts: Tensor, depth: int = DEPTH) -> Planes:
    """Find the planes with the fewest bits for values that occur `counts` times, [n].

    All planes but the last two have one escape, so each starts where the one before it ended, and
    the best split of what is left does not depend on how it was reached: with one more plane at a
    time, the best first plane is found for every value that it may start at.
    """
    used = counts.nonzero()
    size = int(used[-1]) + 1 if len(used) else 1
    starts = torch.arange(size + 1)  # the last one is behind all values
    above = F.pad(counts[:size].double().flip(0).cumsum(0).flip(0), (0, 1))
    bits, escapes = torch.tensor(SPLITS).unsqueeze(2).unbind(1)  # [splits, 1] each
    ends = starts + (1 << bits) - escapes
    last = _bits_of_last(ends, escapes, size)
    ends = ends.clamp(max=size)
    own = above * bits
    cost = own + torch.where(last < 0, torch.inf, above[ends] * last)
    goes_on = escapes[:, 0] == 1
    best, first = torch.where(escapes > 0, torch.inf, cost).min(0)
    chosen = [first]
    for _ in range(depth - 1):
        cost[goes_on] = own[goes_on] + best[ends[goes_on]]
        best, first = cost.min(0)
        chosen.append(first)
    return _follow_splits(chosen, ends, last)


def _bits_of_last(ends: Tensor, escapes: Tensor, size: int) -> Tensor:
    """Return the bits of the plane behind each split, which holds the rest of `size` values.

    0 where a split has no escapes and holds all of them, -1 where no plane holds the rest.
    """
    last = 1 + sum((ends + (escapes << bits) < size).long() for bits in range(1, MOST_BITS))
    last = torch.where(escapes > 0, last, 0)
    widest = torch.where(escapes > 0, MOST_BITS, 0)
    return torch.where(ends + (escapes << widest) < size, -1, last)


def _follow_splits(chosen: Sequence[Tensor], ends: Tensor, last: Tensor) -> Planes:
    """Return the planes, from the best split at each start for each number of planes."""
    start, planes = 0, list[Plane]()
    for best in reversed(chosen):
        at = int(best[start])
        plane = Plane(*SPLITS[at])
        planes.append(plane)
        if plane.escapes > 1:
            planes.append(Plane(int(last[at, start])))
        if plane.escapes != 1:
            break
        start = int(ends[at, start])
    return tuple(planes)
