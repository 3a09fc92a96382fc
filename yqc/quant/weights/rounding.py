"""Round weights to a grid so that a layer's *output* changes least.

With rows w of weights [R, C], their rounded form q, and the second moments H [C, C] of the layer's
inputs (one H for each group of a grouped convolution), the squared error of the output is

    sum over rows of (w - q) H (w - q)^T

Three steps lower it, each to its own minimum:

1. `round_with_feedback` rounds column by column and corrects the columns that follow for the error
   through the Cholesky factor of the inverse of H (Frantar et al., GPTQ, 2022), the columns with
   the largest moments first.
2. `descend_coordinates` revisits every weight and gives it the best level with all others fixed
   (cyclic coordinate descent; Behdin et al., QuantEase, 2023). The error never grows.
3. `refit_scales` gives every scale its least-squares value with the levels fixed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from yqc.quant.linear import cholesky_with_ridge, next_ridge
from yqc.quant.weights.grid import Grid, LevelGrid

BLOCK = 128
"""Columns that are rounded before the rest is updated by one matrix product, as in the GPTQ paper:
half as many take twice as many products, twice as many more single-column updates; the result is
the same up to float rounding."""


@dataclass(frozen=True)
class InputMoments:
    """Second moments of a layer's inputs: float32 [groups, C, C], symmetric, positive definite."""

    h: Tensor

    @property
    def diagonal(self) -> Tensor:
        """Return the diagonal: [B, C]."""
        return self.h.diagonal(dim1=1, dim2=2)

    def by_row(self, rows: int) -> Tensor:
        """Return the diagonal for each of the weight's rows: [rows, C], or [1, C] if all agree."""
        return self.diagonal.repeat_interleave(rows // len(self.h), 0)

    def product(self, w: Tensor) -> Tensor:
        """Return w H for rows [R, C]."""
        groups, _, columns = self.h.shape
        return (w.view(groups, -1, columns) @ self.h).view(w.shape)

    def errors(self, e: Tensor) -> Tensor:
        """Return e H e^T for each row of [R, C]: float32 [R]."""
        return (self.product(e) * e).sum(1)


def round_with_feedback(w: Tensor, moments: InputMoments, grid: LevelGrid) -> Tensor:
    """Round weights [R, C] column by column with error feedback (GPTQ).

    Returns:
        Levels [R, C]: float32 for uniform grids, int64 for tables.
    """
    groups, columns = len(moments.h), w.shape[1]
    order = moments.diagonal.mean(0).argsort(descending=True)
    factor = inverse_factor(moments.h[:, order][:, :, order])
    work = w.t()[order].contiguous()
    levels = torch.empty_like(work, dtype=torch.float32 if grid.table is None else torch.int64)
    per, names = len(w) // groups, order.tolist()
    for first in range(0, columns, BLOCK):
        last = min(first + BLOCK, columns)
        errors = torch.empty(last - first, len(w))
        for i in range(first, last):
            level = grid.nearest_in(work[i], names[i])
            levels[names[i]] = level
            row = factor[:, i, i:last]
            error = (work[i] - grid.value_in(level, names[i])) / _rows(row[:, :1], per)[:, 0]
            _outer(work[i:last], row, error, -1.0)
            errors[i - first] = error
        if last < columns:
            work[last:] -= _across(factor[:, first:last, last:].mT, errors)
    return levels.t().contiguous()


def inverse_factor(h: Tensor) -> Tensor:
    """Return the upper Cholesky factor U of the inverse of H = (U^T U)^-1: [B, C, C].

    A ridge is added to H as far as H or its inverse has no factor without.

    Raises:
        PassError: H is not finite.
    """
    ridge = 0.0
    while True:
        inverse = torch.cholesky_inverse(cholesky_with_ridge(h, ridge))
        upper: Tensor
        upper, info = torch.linalg.cholesky_ex(inverse, upper=True)
        if not info.any():
            return upper
        ridge = next_ridge(ridge)


def descend_coordinates(
    w: Tensor, moments: InputMoments, grid: LevelGrid, levels: Tensor, sweeps: int = 4
) -> Tensor:
    """Improve levels [R, C] one weight at a time, in place; the error never grows.

    Every weight is visited `sweeps` times at most; it ends once hardly a level changes.
    """
    per, columns = len(w) // len(moments.h), w.shape[1]
    h = moments.h
    push = -1 / _rows(moments.diagonal, per).t()
    held = levels.t().contiguous()
    start = grid.values(levels)
    values, slope = start.t().contiguous(), moments.product(start - w).t().contiguous()
    for _ in range(sweeps):
        before = held.clone()
        for first in range(0, columns, BLOCK):
            last = min(first + BLOCK, columns)
            steps = torch.empty(last - first, len(w))
            for j in range(first, last):
                now = values[j]
                level = grid.nearest_in(torch.addcmul(now, slope[j], push[j]), j)
                value = grid.value_in(level, j)
                step = torch.sub(value, now, out=steps[j - first])
                _outer(slope[first:last], h[:, j, first:last], step, 1.0)
                held[j], values[j] = level, value
            if columns > last - first:
                change = _across(h[:, :, first:last], steps)
                change[first:last] = 0
                slope += change
        if int((held != before).sum()) <= w.numel() // 5000:
            break
    levels.copy_(held.t())
    return levels


def _outer(to: Tensor, column: Tensor, row: Tensor, sign: float) -> None:
    """Add an outer product in place: to [N, R], column [B, N] for each group of rows, row [R]."""
    if len(column) == 1:
        to.addr_(column[0], row, alpha=sign)
    else:
        to += sign * _rows(column, len(row) // len(column)).t() * row


def _across(matrix: Tensor, steps: Tensor) -> Tensor:
    """Multiply each group of rows by its matrix: [B, M, N] and [N, R] to [M, R]."""
    if len(matrix) == 1:
        return matrix[0] @ steps
    by_group = steps.view(len(steps), len(matrix), -1).transpose(0, 1)
    return (matrix @ by_group).transpose(0, 1).reshape(matrix.shape[1], -1)


def refit_scales(w: Tensor, moments: InputMoments, grid: Grid, levels: Tensor) -> Grid:
    """Give every scale its least-squares value with the levels fixed.

    One scale a row:    s = (w H u^T) / (u H u^T), with u the values before scaling.
    Several a row:      the small system of all scales of the row.
    """
    units = grid.units(levels)
    blocks = grid.scale.shape[1]
    if blocks == 1:
        if grid.scale.numel() != len(w):
            return grid
        top, bottom = (moments.product(w) * units).sum(1), moments.errors(units)
        scale = torch.where(bottom > 0, top / bottom.clamp(min=1e-30), grid.scale[:, 0])
        scale = torch.where(scale > 0, scale, grid.scale[:, 0])
        return grid.with_scale(scale.unsqueeze(1))
    return _refit_blocks(w, moments, grid, units)


def _refit_blocks(w: Tensor, moments: InputMoments, grid: Grid, units: Tensor) -> Grid:
    """Give the blocks of all rows, one after the other, their best scale with the others fixed."""
    scale = grid.scale.clone()
    columns, block, groups = w.shape[1], grid.block, len(moments.h)
    slope = moments.product(units * grid.per_column(scale, columns) - w)
    per = len(w) // groups
    for g in range(scale.shape[1]):
        at = slice(g * block, min((g + 1) * block, columns))
        u = units[:, at]
        direction = (u.reshape(groups, per, -1) @ moments.h[:, at]).view(len(w), -1)
        bottom = (direction[:, at] * u).sum(1)
        step = -(slope[:, at] * u).sum(1) / bottom.clamp(min=1e-30)
        wanted = scale[:, g] + step
        step = torch.where((wanted > 0) & (bottom > 0), step, torch.zeros_like(step))
        scale[:, g] += step
        slope += step.unsqueeze(1) * direction
    return grid.with_scale(scale)


def _rows(values: Tensor, per: int) -> Tensor:
    """Repeat values of groups, [B, N], for the rows of each group: [B * per, N] or [1, N]."""
    return values if len(values) == 1 else values.repeat_interleave(per, 0)
