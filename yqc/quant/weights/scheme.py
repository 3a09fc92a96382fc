"""Scheme: the format in which the weights of a layer are stored."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

SchemeKind = Literal["symmetric", "affine", "codebook", "pwlq", "pot"]
Granularity = Literal["tensor", "channel", "block", "kernel"]
Rounding = Literal["nearest", "mse", "gptq", "adaround"]
SCHEME_KINDS: tuple[SchemeKind, ...] = get_args(SchemeKind)
SHORTEST = 4
"""A block is no shorter than the requested length divided by this, else the row is one block.
Larger values allow shorter blocks, which take more bytes for scales than was asked for."""
UNIFORM: tuple[SchemeKind, ...] = ("symmetric", "affine")


@dataclass(frozen=True)
class Scheme:
    """Format in which the weights of a layer are stored."""

    kind: SchemeKind = "affine"
    """Uniform (symmetric, affine), or a table: k-means, piecewise linear, powers of two."""
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
