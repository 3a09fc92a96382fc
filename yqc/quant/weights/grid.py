"""Grids: the values that the weights of a layer may take, and rounding to them.

A weight is taken as rows [R, C]: one row an output channel, with its C = I * kh * kw weights in the
order of the flattened tensor. `block` consecutive weights of a row share a scale:

    uniform    value = scale * (level - zero)        level = low .. high, zero an integer
    table      value = scale * table[level]          tables sorted, one for R / T rows each

Scales and tables are float32 tensors of values that float16 represents, since they are stored in
float16. Products are computed in float32.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

SMALLEST = 2.0**-14
"""The smallest normal float16: no scale is smaller."""
LARGEST = 65504.0


def round_to_float16(x: Tensor) -> Tensor:
    """Round to the nearest float16; return float32."""
    return x.clamp(-LARGEST, LARGEST).half().float()


def legal_scale(scale: Tensor) -> Tensor:
    """Return the nearest legal scale: a normal positive float16."""
    return round_to_float16(scale.clamp(SMALLEST, LARGEST))


class LevelGrid(Protocol):
    """What rounding to levels needs of a grid; `Grid` describes the methods."""

    @property
    def table(self) -> Tensor | None:
        """Tables, or None if levels are numbers."""
        ...

    def nearest_in(self, w: Tensor, column: int) -> Tensor:
        """Round one column [R] to levels [R]."""
        ...

    def value_in(self, level: Tensor, column: int) -> Tensor:
        """Return the values of one column of levels [R]."""
        ...

    def values(self, level: Tensor) -> Tensor:
        """Return the values of levels [R, C]."""
        ...


@dataclass(frozen=True)
class Grid:
    """The values that weights [R, C] may take."""

    scale: Tensor
    """float32 [R, G] with G = ceil(C / block)."""
    block: int
    """Weights of a row that share a scale; C if all do."""
    levels: int
    """Number of levels: 2^bits, or fewer."""
    zero: Tensor | None = None
    """float32 [R, G], integers: the level of the value zero. For uniform grids."""
    table: Tensor | None = None
    """float32 [T, levels], ascending. For tables."""

    def nearest_in(self, w: Tensor, column: int) -> Tensor:
        """Round one column [R] to levels [R]: float32 for uniform grids, int64 for tables."""
        at = column // self.block
        x = w / self.scale[:, at]
        if self.table is None:
            return x.add_(self.zeros[:, at]).round_().clamp_(0, self.levels - 1)
        return self._search(x.unsqueeze(1)).squeeze(1)

    def value_in(self, level: Tensor, column: int) -> Tensor:
        """Return the values of one column of levels [R]."""
        at = column // self.block
        if self.table is None:
            return (level - self.zeros[:, at]) * self.scale[:, at]
        return self._look_up(level.unsqueeze(1)).squeeze(1) * self.scale[:, at]

    def nearest(self, w: Tensor) -> Tensor:
        """Round weights [R, C] to the nearest levels [R, C]."""
        x = w / self.per_column(self.scale, w.shape[1])
        if self.table is None:
            zero = self.per_column(self.zeros, w.shape[1])
            return (x + zero).round_().clamp_(0, self.levels - 1)
        return self._search(x)

    def values(self, level: Tensor) -> Tensor:
        """Return the values of levels [R, C]: float32 [R, C]."""
        columns = level.shape[1]
        return self.units(level) * self.per_column(self.scale, columns)

    def units(self, level: Tensor) -> Tensor:
        """Return the values before scaling: level - zero, or the table's entries; [R, C]."""
        if self.table is None:
            return level - self.per_column(self.zeros, level.shape[1])
        return self._look_up(level)

    def per_column(self, value: Tensor, columns: int) -> Tensor:
        """Repeat values of blocks, [R, G], for each column: [R, columns] or [R, 1]."""
        if value.shape[1] == 1:
            return value
        return value.repeat_interleave(self.block, 1)[:, :columns]

    def with_scale(self, scale: Tensor) -> "Grid":
        """Return this grid with other scales, rounded to legal ones."""
        return replace(self, scale=legal_scale(scale))

    @property
    def zeros(self) -> Tensor:
        """The zero points of a uniform grid, [R, G]."""
        if self.zero is None:
            raise ValueError("a table has no zero point")
        return self.zero

    def _tables(self) -> Tensor:
        if self.table is None:
            raise ValueError("a uniform grid has no table")
        return self.table

    def _search(self, x: Tensor) -> Tensor:
        """Find the nearest entries: [R, C] to int64 [R, C]."""
        table = self._tables()
        middle = (table[:, 1:] + table[:, :-1]) / 2
        by_table = x.reshape(len(table), -1).contiguous()
        return torch.searchsorted(middle, by_table).view(x.shape)

    def _look_up(self, level: Tensor) -> Tensor:
        table = self._tables()
        return table.gather(1, level.long().reshape(len(table), -1)).view(level.shape)


def scales_per_row(columns: int, block: int) -> int:
    """Return the number of scales of a row."""
    return (columns + block - 1) // block
