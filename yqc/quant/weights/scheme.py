"""Scheme: the format in which the weights of a layer are stored."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from yqc.errors import PassError
from yqc.registered import SCHEMES

SchemeKind = Literal["symmetric", "affine", "codebook", "pwlq", "pot"]
Granularity = Literal["tensor", "channel", "block", "kernel"]
Rounding = Literal["nearest", "mse", "gptq", "adaround"]
SCHEME_KINDS: tuple[SchemeKind, ...] = get_args(SchemeKind)
TableFunction = Callable[[Tensor, int], Tensor]
T = TypeVar("T", bound=TableFunction)
SHORTEST = 4
"""A block is no shorter than the requested length divided by this, else the row is one block.
Larger values allow shorter blocks, which take more bytes for scales than was asked for."""
UNIFORM: tuple[SchemeKind, ...] = ("symmetric", "affine")


def register_scheme(name: str) -> Callable[[T], T]:
    """Register the decorated function as a weight scheme: `codebook{table=NAME}`.

    It takes the weights of a layer, float32 [O, rest], and the number of bits, and returns the
    table of values that weights may take before they are scaled: [2^bits], in any order and of any
    size.

    Raises:
        PipelineError: the name is taken, or is none.
    """
    return lambda function: SCHEMES.register(name, function)


def make_table(kind: str, w: Tensor, bits: int) -> Tensor:
    """Return the table, float32 [1, 2^bits], ascending and of at most one in size, of a user's.

    Raises:
        PassError: its function returns something else.
    """
    added = SCHEMES.find(kind)
    if added is None:
        raise PassError(f"weight scheme {kind!r} has no table of its own")
    table = torch.as_tensor(added.value(w, bits), dtype=torch.float32).flatten()
    if len(table) != 1 << bits or not table.isfinite().all() or not table.any():
        raise PassError(
            f"weight scheme {kind!r} of {added.origin} must return {1 << bits} finite values, not "
            f"{len(table)} such as {table[:3].tolist()}"
        )
    return (table / table.abs().max()).sort().values.unsqueeze(0)


@dataclass(frozen=True)
class Scheme:
    """Format in which the weights of a layer are stored."""

    kind: str = "affine"
    """Uniform (symmetric, affine), or a table: k-means, piecewise linear, powers of two, a user's.
    """
    bits: int = 4
    granularity: Granularity = "channel"
    block: int = 64
    """Consecutive weights of a row that share a scale, if the granularity is `block`."""
    rows: int = 0
    """Output channels that share a table; 0 if all do."""

    @property
    def uniform(self) -> bool:
        """Whether the levels are equally far apart."""
        return self.kind in UNIFORM

    def block_of(self, shape: tuple[int, ...]) -> int:
        """Return the number of weights of a row that share a scale: all, but in blocks or kernels.

        Blocks have the requested length, or the next shorter one that divides a row; where only
        much shorter ones do, the row is one block.
        """
        columns = math.prod(shape[1:])
        kernel = columns // shape[1]
        if self.granularity == "block" and self.block < columns:
            fits = max(b for b in range(1, self.block + 1) if columns % b == 0)
            return fits if fits * SHORTEST >= self.block else columns
        if self.granularity == "kernel" and kernel > 1:
            return kernel
        return columns

    def tables(self, channels: int) -> int:
        """Return the number of tables of a layer: 1 where `rows` does not divide its channels."""
        if self.kind != "codebook" or self.rows <= 0 or channels % self.rows:
            return 1
        return channels // self.rows
