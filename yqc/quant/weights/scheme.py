"""How the weights of a layer are to be stored."""

from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["symmetric", "affine", "codebook", "pwlq", "pot"]
Granularity = Literal["tensor", "channel", "block", "kernel"]
Rounding = Literal["nearest", "mse", "gptq", "adaround"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SHORTEST = 4
"""Blocks are not shorter than what was asked for divided by this."""
UNIFORM: tuple[Kind, ...] = ("symmetric", "affine")


@dataclass(frozen=True)
class Scheme:
    """How the weights of a layer are to be stored."""

    kind: Kind = "affine"
    """Uniform (symmetric, affine), or a table: k-means, piecewise linear, powers of two."""
    bits: int = 4
    granularity: Granularity = "channel"
    """What shares a scale."""
    block: int = 64
    """Consecutive weights of a row that share one, if the granularity is `block`."""
    rows: int = 0
    """Output channels that share a table; 0 if all do."""

    @property
    def uniform(self) -> bool:
        """Whether the levels are equally far apart."""
        return self.kind in UNIFORM

    def block_of(self, shape: tuple[int, ...]) -> int:
        """Return how many weights of a row share a scale: all, unless in blocks or kernels.

        Blocks are as long as asked for, or the next shorter length that fills a row; where only
        much shorter ones do, the row is one block.
        """
        columns = 1
        for side in shape[1:]:
            columns *= side
        kernel = columns // shape[1]
        if self.granularity == "block" and self.block < columns:
            fits = max(b for b in range(1, self.block + 1) if columns % b == 0)
            return fits if fits * SHORTEST >= self.block else columns
        if self.granularity == "kernel" and kernel > 1:
            return kernel
        return columns

    def tables(self, channels: int) -> int:
        """Return how many tables a layer of so many output channels has: 1 if they do not fit."""
        if self.kind != "codebook" or self.rows <= 0 or channels % self.rows:
            return 1
        return channels // self.rows
