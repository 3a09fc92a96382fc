"""One layer: from a weight and what is known of its inputs to levels on a grid."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from yqc.quant.weights import grids
from yqc.quant.weights.adaround import adaround
from yqc.quant.weights.grid import Grid, groups, half
from yqc.quant.weights.packing import pack, packed_bytes, unsigned
from yqc.quant.weights.rounding import Moments, descend, feedback, refit
from yqc.quant.weights.scheme import Rounding, Scheme

ROUNDS = 2
"""How often levels and scales are improved by turns."""
FITTED = 64
"""Entries of the largest tables whose values are fitted; of more, k-means are near enough."""


@dataclass(frozen=True)
class Rounded:
    """The rounded weight of a layer."""

    scheme: Scheme
    shape: tuple[int, ...]
    levels: Tensor
    """[R, C], integers in any dtype."""
    grid: Grid

    @property
    def weight(self) -> Tensor:
        """Return what it stands for: float32, of `shape`."""
        return self.grid.values(self.levels).view(self.shape)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored: the packed codes, and float16 scales and tables.

        A scale is [] for the tensor, [R] or [R, G]. Affine weights have packed zero points.
        """
        bits, scale = self.scheme.bits, self.grid.scale.half()
        levels = self.levels.to(torch.int16)
        if self.scheme.granularity == "tensor":
            scale = scale[0, 0]
        elif scale.shape[1] == 1:
            scale = scale[:, 0]
        stored = {"scale": scale.contiguous()}
        zero = self.grid.zero
        if self.grid.table is not None:
            stored["table"] = self.grid.table.half()
        elif self.scheme.kind == "affine" and zero is not None:
            kept = zero[0, 0] if self.scheme.granularity == "tensor" else zero
            stored["zero"] = pack(kept, bits)
        else:
            return {"packed": pack(unsigned(levels - (1 << (bits - 1)), bits), bits)} | stored
        return {"packed": pack(levels, bits)} | stored

    @property
    def block(self) -> int:
        """Weights of a row that share a scale, as the ops take it: 0 for all of them."""
        return 0 if self.grid.scale.shape[1] == 1 else self.grid.block


def storage(scheme: Scheme, shape: tuple[int, ...]) -> int:
    """Return the bytes that a weight of this shape takes: codes, scales, tables, zero points."""
    rows, columns = shape[0], 1
    for side in shape[1:]:
        columns *= side
    scales = rows * groups(columns, scheme.block_of(shape))
    if scheme.granularity == "tensor":
        scales = 1
    total = packed_bytes(rows * columns, scheme.bits) + 2 * scales
    if scheme.kind == "affine":
        total += packed_bytes(scales, scheme.bits)
    if not scheme.uniform:
        total += 2 * scheme.tables(rows) << scheme.bits
    return total


def choose_grid(
    w: Tensor,
    moments: Moments,
    scheme: Scheme,
    rounding: Rounding,
    shape: tuple[int, ...],
    worth: Tensor | None = None,
) -> Grid:
    """Return the grid that a weight [R, C] is rounded to; arguments as of `round_layer`."""
    block, bits = scheme.block_of(shape), scheme.bits
    importance = moments.by_row(len(w))
    if rounding == "nearest":
        importance = torch.ones(1, w.shape[1])
    affine = scheme.kind == "affine"
    if scheme.granularity == "tensor":
        return _of_tensor(w, importance, scheme, rounding)
    if scheme.kind == "codebook":
        return grids.codebook(w, importance, bits, block, scheme.tables(len(w)), worth)
    if scheme.kind == "pwlq":
        return grids.best_piecewise(w, importance, bits, block)
    if scheme.kind == "pot":
        return grids.fixed_table(w, importance, grids.powers_of_two(bits), block)
    if rounding == "nearest":
        return grids.minmax(w, bits, block, affine=affine)
    return grids.clipped(w, importance, bits, block, affine=affine)


def _of_tensor(w: Tensor, importance: Tensor, scheme: Scheme, rounding: Rounding) -> Grid:
    """Return a grid with one scale for all rows: that of the weight as a single row."""
    if scheme.uniform:
        clip, affine = rounding != "nearest", scheme.kind == "affine"
        return grids.whole(w, importance, scheme.bits, affine=affine, clip=clip)
    flat = w.reshape(1, -1)
    mass = importance.expand_as(w).reshape(1, -1)
    one = replace(scheme, granularity="channel", rows=0)
    columns = flat.shape[1]
    if one.kind == "codebook":
        grid = grids.codebook(flat, mass, one.bits, columns)
    elif one.kind == "pwlq":
        grid = grids.best_piecewise(flat, mass, one.bits, columns)
    else:
        grid = grids.fixed_table(flat, mass, grids.powers_of_two(one.bits), columns)
    return replace(grid, scale=grid.scale.expand(len(w), 1), block=w.shape[1])


def round_layer(
    w: Tensor,
    moments: Moments,
    scheme: Scheme,
    rounding: Rounding,
    shape: tuple[int, ...],
    worth: Tensor | None = None,
) -> Rounded:
    """Round a weight.

    Args:
        w: float32 [R, C].
        moments: of the layer's inputs, damped.
        scheme: how it is to be stored.
        rounding: `nearest` looks at the weights only, `mse` at the moments' diagonal, `gptq` and
            `adaround` at all of them.
        shape: of the layer's weight.
        worth: how much the output of each row counts, float32 [R]; tables are fitted with it, but
            for `nearest`.
    """
    if rounding == "nearest":
        worth = None
    grid = choose_grid(w, moments, scheme, rounding, shape, worth)
    if rounding == "adaround":
        return Rounded(scheme, shape, adaround(w, moments, grid), grid)
    if rounding != "gptq":
        return Rounded(scheme, shape, grid.nearest(w), grid)
    levels = feedback(w, moments, grid)
    for _ in range(ROUNDS):
        levels = descend(w, moments, grid, levels, 1)
        if scheme.kind == "codebook":
            grid = refit_table(w, moments, grid, levels, worth)
        grid = refit(w, moments, grid, levels)
    levels = descend(w, moments, grid, levels, 1)
    return Rounded(scheme, shape, levels, grid)


def refit_table(
    w: Tensor, moments: Moments, grid: Grid, levels: Tensor, worth: Tensor | None
) -> Grid:
    """Give the entries of each table their least-squares values, with levels and scales held.

    The error is quadratic in the entries: with P_l the scale where the level is l and 0 elsewhere,
    sum over rows of (w - sum_l t_l P_l) H (w - sum_l t_l P_l)^T.
    """
    if grid.table is None or grid.levels > FITTED:
        return grid
    tables, count = grid.table.shape
    wide = grid.spread(grid.scale, w.shape[1]).expand_as(w)
    rows = torch.ones(len(w)) if worth is None else worth
    rows = (rows / rows.mean().clamp(min=1e-30)).clamp(min=1e-3).view(-1, 1)
    weight = rows * wide
    first = torch.arange(tables).repeat_interleave(len(w) // tables).view(-1, 1) * count
    index = (levels + first).view(-1)

    def by_entry(values: Tensor) -> Tensor:
        """Sum [R, C] over the weights of each entry: [T, entries]."""
        return torch.zeros(tables * count).index_add_(0, index, values.reshape(-1)).view(tables, -1)

    right = by_entry(moments.product(w) * weight)
    pushed = (moments.product(torch.where(levels == i, wide, 0.0)) for i in range(count))
    matrix = torch.stack([by_entry(each * weight) for each in pushed], 1)
    extent = matrix.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-30)
    ridge = 1e-4 * extent.view(-1, 1, 1) * torch.eye(count)
    step = torch.linalg.solve(matrix + ridge, right - (matrix @ grid.table.unsqueeze(2)).squeeze(2))
    table = half((grid.table + step).clamp(-4.0, 4.0))
    sorted_table, _ = table.sort(1)
    if not torch.equal(sorted_table, table):
        return grid
    return replace(grid, table=table)
