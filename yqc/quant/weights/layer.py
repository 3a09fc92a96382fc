"""Round the weight of one layer to levels on a grid, by the statistics of its inputs."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from yqc.quant.weights import grids
from yqc.quant.weights.adaround import learn_rounding
from yqc.quant.weights.grid import Grid, round_to_float16, scales_per_row
from yqc.quant.weights.packing import pack, packed_bytes, unsigned
from yqc.quant.weights.rounding import (
    InputMoments,
    descend_coordinates,
    refit_scales,
    round_with_feedback,
)
from yqc.quant.weights.scheme import SCHEME_KINDS, Rounding, Scheme, make_table

ROUNDS = 2
"""Turns of improving levels and scales. The error never grows with further turns, and each takes as
long as the rounding itself."""
UNCLIPPED = 8
"""Bits from which `nearest` covers all weights: steps are so fine that clipping gains nothing.
Below, scales are those with the least error of the weights, as tables have them, too."""
FITTED = 64
"""Entries of the largest table whose values are fitted: time grows with the entries, and k-means of
more than 64 entries leaves little error."""


@dataclass(frozen=True)
class RoundedWeight:
    """The rounded weight of a layer."""

    scheme: Scheme
    shape: tuple[int, ...]
    levels: Tensor
    """[R, C], integers in any dtype."""
    grid: Grid

    @property
    def weight(self) -> Tensor:
        """Return the dequantized weight: float32, of `shape`."""
        return self.grid.values(self.levels).view(self.shape)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to store: the packed codes, and float16 scales and tables.

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
        """Weights of a row that share a scale, as the operators take it: 0 for all of them."""
        return 0 if self.grid.scale.shape[1] == 1 else self.grid.block


def storage_bytes(scheme: Scheme, shape: tuple[int, ...]) -> int:
    """Return the bytes of a stored weight of a shape: codes, scales, tables, zero points."""
    rows, columns = shape[0], math.prod(shape[1:])
    scales = rows * scales_per_row(columns, scheme.block_of(shape))
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
    moments: InputMoments,
    scheme: Scheme,
    rounding: Rounding,
    shape: tuple[int, ...],
    relevance: Tensor | None = None,
) -> Grid:
    """Choose the grid that a weight [R, C] is rounded to; arguments as of `round_weight`."""
    error_weight = moments.by_row(len(w))
    if rounding == "nearest":
        error_weight = torch.ones(1, w.shape[1])
    if scheme.granularity != "tensor":
        return _choose(w, error_weight, scheme, rounding, scheme.block_of(shape), relevance)
    one = replace(scheme, rows=0)  # the weight as a single row
    row, mass = w.reshape(1, -1), error_weight.expand_as(w).reshape(1, -1)
    grid = _choose(row, mass, one, rounding, w.numel())
    zero = None if grid.zero is None else grid.zero.expand(len(w), 1)
    return replace(grid, scale=grid.scale.expand(len(w), 1), zero=zero, block=w.shape[1])


def _choose(
    w: Tensor,
    error_weight: Tensor,
    scheme: Scheme,
    rounding: Rounding,
    block: int,
    relevance: Tensor | None = None,
) -> Grid:
    bits, affine = scheme.bits, scheme.kind == "affine"
    if scheme.kind == "codebook":
        return grids.codebook_grid(w, error_weight, bits, block, scheme.tables(len(w)), relevance)
    if scheme.kind == "pwlq":
        return grids.piecewise_grid(w, error_weight, bits, block)
    if scheme.kind == "pot":
        return grids.fixed_table_grid(w, error_weight, grids.powers_of_two_table(bits), block)
    if scheme.kind not in SCHEME_KINDS:
        return grids.fixed_table_grid(w, error_weight, make_table(scheme.kind, w, bits), block)
    if rounding == "nearest" and bits >= UNCLIPPED:
        return grids.minmax_grid(w, bits, block, affine=affine)
    return grids.mse_grid(w, error_weight, bits, block, affine=affine)


def round_weight(
    w: Tensor,
    moments: InputMoments,
    scheme: Scheme,
    rounding: Rounding,
    shape: tuple[int, ...],
    relevance: Tensor | None = None,
) -> RoundedWeight:
    """Round a weight [R, C] of a layer's `shape` to the levels of a scheme.

    `nearest` uses the weights only, `mse` the diagonal of the inputs' damped moments, `gptq` and
    `adaround` all of the moments. Tables are fitted with the relevance of each row's output, [R],
    but for `nearest`.
    """
    if rounding == "nearest":
        relevance = None
    grid = choose_grid(w, moments, scheme, rounding, shape, relevance)
    if rounding == "adaround":
        return RoundedWeight(scheme, shape, learn_rounding(w, moments, grid), grid)
    if rounding != "gptq":
        return RoundedWeight(scheme, shape, grid.nearest(w), grid)
    levels = round_with_feedback(w, moments, grid)
    for _ in range(ROUNDS):
        levels = descend_coordinates(w, moments, grid, levels, 1)
        if scheme.kind == "codebook":
            grid = refit_table(w, moments, grid, levels, relevance)
        grid = refit_scales(w, moments, grid, levels)
    levels = descend_coordinates(w, moments, grid, levels, 1)
    return RoundedWeight(scheme, shape, levels, grid)


def refit_table(
    w: Tensor, moments: InputMoments, grid: Grid, levels: Tensor, relevance: Tensor | None
) -> Grid:
    """Give the entries of each table their least-squares values, with levels and scales fixed.

    The error is quadratic in the entries: with P_l the scale where the level is l and 0 elsewhere,
    sum over rows of (w - sum_l t_l P_l) H (w - sum_l t_l P_l)^T.
    """
    if grid.table is None or grid.levels > FITTED:
        return grid
    tables, count = grid.table.shape
    wide = grid.per_column(grid.scale, w.shape[1]).expand_as(w)
    rows = torch.ones(len(w)) if relevance is None else relevance
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
    table = round_to_float16((grid.table + step).clamp(-4.0, 4.0))
    sorted_table, _ = table.sort(1)
    if not torch.equal(sorted_table, table):
        return grid
    return replace(grid, table=table)
