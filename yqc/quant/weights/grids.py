"""Choose a grid for weights before they are rounded: scales, zero points, tables.

Squared errors are weighted by the diagonal of the inputs' second moments, so clipping a weight of a
small input costs little. Tables are found by k-means, weighted alike, of rows divided by their
scales.
"""

from dataclasses import replace

import torch
from torch import Tensor

from yqc.quant.weights.grid import Grid, legal_scale, round_to_float16, scales_per_row

SHARES = (*torch.linspace(1.0, 0.4, 13).tolist(), 0.32, 0.24, 0.17, 0.12)
"""Shares of the full range that are tried as the first range: steps of 0.05 where most layers end,
coarse ones below. Twice as many take twice the time; least squares moves the ends in between."""
REFINEMENTS = 4
"""Turns of rounding and least squares from each first range. Affine grids take that many to settle,
since zero points move; symmetric ones two."""
TURNS = 6
"""Turns of k-means and least-squares scales; the error falls at every turn, ever more slowly."""
PEAK = 3.0
"""First scale of a k-means table: the largest weight divided by this, about three deviations."""
SAMPLE = 1 << 15
"""Values, evenly spaced, that k-means of one table looks at, at most; time grows in proportion."""


def minmax_grid(w: Tensor, bits: int, block: int, *, affine: bool) -> Grid:
    """Return the uniform grid whose range covers all weights [R, C].

    Symmetric grids use the levels -2^(bits-1) .. 2^(bits-1) - 1 around zero, but are scaled by the
    last one on either side, so nothing is clipped.
    """
    low, high = _range(w, block)
    return _uniform(low, high, bits, block, affine=affine)


def _range(w: Tensor, block: int) -> tuple[Tensor, Tensor]:
    parts = _blocks(w, block)
    return parts.amin(2).clamp(max=0.0), parts.amax(2).clamp(min=0.0)


def _blocks(w: Tensor, block: int) -> Tensor:
    """Split rows into blocks, the last one padded with zeros: [R, G, block]."""
    rows, columns = w.shape
    count = scales_per_row(columns, block)
    return torch.nn.functional.pad(w, (0, count * block - columns)).view(rows, count, block)


def _uniform(low: Tensor, high: Tensor, bits: int, block: int, *, affine: bool) -> Grid:
    levels = 1 << bits
    if affine:
        scale = legal_scale((high - low) / (levels - 1))
        zero = (-low / scale).round().clamp(0, levels - 1)
        return Grid(scale, block, levels, zero=zero)
    middle = levels // 2
    scale = legal_scale(torch.maximum(-low / middle, high / max(middle - 1, 1)))
    return Grid(scale, block, levels, zero=torch.full_like(scale, float(middle)))


def mse_grid(w: Tensor, error_weight: Tensor, bits: int, block: int, *, affine: bool) -> Grid:
    """Return the uniform grid with the least weighted squared error for weights [R, C].

    Several shares of the full range are tried for each scale, each improved by turns: levels by
    rounding, scale (and zero point, if `affine`) by least squares. `error_weight` is [R, C] or
    [1, C].
    """
    parts = _blocks(w, block)
    weight = _blocks(error_weight.expand_as(w), block)
    low, high = _range(w, block)
    best = _uniform(low, high, bits, block, affine=affine)
    least = torch.full(low.shape, torch.inf)
    for share in SHARES:
        grid = _uniform(low * share, high * share, bits, block, affine=affine)
        for _ in range(REFINEMENTS if affine else 2):
            grid = _improve(grid, parts, weight, affine=affine)
        error = _error(grid, parts, weight)
        better = error < least
        least = torch.where(better, error, least)
        zero = torch.where(better, grid.zeros, best.zeros)
        best = replace(best, scale=torch.where(better, grid.scale, best.scale), zero=zero)
    return best


def _round(grid: Grid, parts: Tensor) -> Tensor:
    """Round blocks [R, G, block] to units (level - zero)."""
    zero = grid.zeros.unsqueeze(2)
    level = (parts / grid.scale.unsqueeze(2) + zero).round_().clamp_(0, grid.levels - 1)
    return level - zero


def _error(grid: Grid, parts: Tensor, weight: Tensor) -> Tensor:
    units = _round(grid, parts)
    return ((units * grid.scale.unsqueeze(2) - parts).square() * weight).sum(2)


def _fit_scale(units: Tensor, parts: Tensor, weight: Tensor, otherwise: Tensor) -> Tensor:
    """Return the least-squares scale of each block; `otherwise` where all units are zero."""
    top, bottom = (weight * units * parts).sum(2), (weight * units.square()).sum(2)
    return torch.where(bottom > 0, top / bottom.clamp(min=1e-30), otherwise)


def _improve(grid: Grid, parts: Tensor, weight: Tensor, *, affine: bool) -> Grid:
    units = _round(grid, parts)
    if not affine:
        return grid.with_scale(_fit_scale(units, parts, weight, grid.scale))
    level = units + grid.zeros.unsqueeze(2)
    total = weight.sum(2).clamp(min=1e-30)
    mean_level, mean_part = (weight * level).sum(2) / total, (weight * parts).sum(2) / total
    off = level - mean_level.unsqueeze(2)
    scale = legal_scale(_fit_scale(off, parts, weight, grid.scale))
    zero = (mean_level - mean_part / scale).round().clamp(0, grid.levels - 1)
    return Grid(scale, grid.block, grid.levels, zero=zero)


def k_means(x: Tensor, weight: Tensor, levels: int, rounds: int = 30) -> Tensor:
    """Return the centres that values on a line have least squared distance from, ascending.

    Lloyd's rounds from the quantiles of weight^(1/3), which is where the centres of many levels
    are dense (Panter and Dite 1951). Each row of x, float32 [T, N], has its own centres, of
    [T, levels]; weights are [T, N], not negative.
    """
    values, order = x.sort(1)
    mass = weight.gather(1, order).double()
    cumulative = torch.nn.functional.pad(mass.cumsum(1), (1, 0))
    moment = torch.nn.functional.pad((mass * values).cumsum(1), (1, 0))
    density = mass.clamp(min=1e-30).pow(1 / 3).cumsum(1)
    at = (torch.arange(levels, dtype=torch.float64) + 0.5) / levels
    start = torch.searchsorted(density, at * density[:, -1:])
    centres = values.gather(1, start.clamp(max=values.shape[1] - 1))
    for _ in range(rounds):
        middle = ((centres[:, 1:] + centres[:, :-1]) / 2).contiguous()
        inner = torch.searchsorted(values, middle)
        ends = torch.nn.functional.pad(inner, (1, 0))
        ends = torch.cat([ends, torch.full_like(ends[:, :1], values.shape[1])], 1)
        amount = cumulative.gather(1, ends).diff(dim=1)
        total = moment.gather(1, ends).diff(dim=1)
        moved = torch.where(amount > 0, total / amount.clamp(min=1e-300), centres.double()).float()
        moved, _ = moved.sort(1)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def codebook_grid(
    w: Tensor,
    error_weight: Tensor,
    bits: int,
    block: int,
    tables: int = 1,
    relevance: Tensor | None = None,
) -> Grid:
    """Return a grid with tables by k-means, each for R / tables rows, and a scale a block.

    Tables and scales are improved by turns: k-means of the scaled weights, then least squares for
    every scale. The first scales are a third of the largest weights; the root mean square is a much
    worse start, since rows with long tails then have another shape than the rest.

    Weights are [R, C], their errors count with `error_weight`, [R, C] or [1, C], and with the
    relevance of each row's output, [R].
    """
    count = error_weight.expand_as(w)
    if relevance is not None:
        share = (relevance / relevance.mean().clamp(min=1e-30)).clamp(min=1e-3)
        count = count * share.unsqueeze(1)
    parts, weight = _blocks(w, block), _blocks(count, block)
    scale = legal_scale(parts.abs().amax(2) / PEAK)
    grid = Grid(scale, block, 1 << bits)
    table = torch.zeros(tables, 1 << bits)
    for _ in range(TURNS):
        wide = grid.per_column(scale, w.shape[1])
        mass = (count * wide.square()).reshape(tables, -1)
        some = slice(None, None, max(1, mass.shape[1] // SAMPLE))
        table = k_means((w / wide).reshape(tables, -1)[:, some], mass[:, some], 1 << bits)
        grid = Grid(scale, block, 1 << bits, table=table)
        units = _blocks(grid.units(grid.nearest(w)), block)
        best = _fit_scale(units, parts, weight, scale)
        scale = legal_scale(torch.where(best > 0, best, scale))
    return normalize_table(scale, table, block)


def normalize_table(scale: Tensor, table: Tensor, block: int) -> Grid:
    """Return a legal grid: table entries of at most one in size, and scales that make up for it."""
    top = table.abs().amax(1, keepdim=True).clamp(min=1e-12)
    per = len(scale) // len(table)
    legal = legal_scale(scale * top.repeat_interleave(per, 0))
    return Grid(legal, block, table.shape[1], table=round_to_float16(table / top))


def powers_of_two_table(bits: int) -> Tensor:
    """Return the table of zero and plus and minus powers of two, the largest +-1: [1, levels].

    The powers come in pairs and leave one code over, which is the smallest negative power.
    """
    half_count = (1 << (bits - 1)) - 1
    powers = [2.0**-i for i in range(half_count)]
    smallest = -(2.0**-half_count)
    return torch.tensor([sorted([0.0, smallest, *powers, *(-p for p in powers)])])


def piecewise_table(break_at: float, bits: int) -> Tensor:
    """Return a piecewise linear table: half of the levels within +-break_at, half beyond, to +-1.

    Both parts are uniform (Fang et al., Post-Training Piecewise Linear Quantization, ECCV 2020).
    """
    count = 1 << bits
    inner, tail = count // 2, count // 4
    centre = (torch.arange(inner) - inner // 2 + 0.0) * (2 * break_at / inner)
    beyond = break_at + (torch.arange(tail) + 1.0) * ((1 - break_at) / tail)
    return torch.cat([-beyond.flip(0), centre, beyond]).unsqueeze(0)


def fixed_table_grid(w: Tensor, error_weight: Tensor, table: Tensor, block: int) -> Grid:
    """Return a grid of a given table, with the scale of each block of least weighted error."""
    parts, weight = _blocks(w, block), _blocks(error_weight.expand_as(w), block)
    largest = parts.abs().amax(2)
    best, least = legal_scale(largest), torch.full(largest.shape, torch.inf)
    entries = round_to_float16(table)
    middle = ((entries[:, 1:] + entries[:, :-1]) / 2)[0]
    for share in (1.2, 1.1, *SHARES):
        scale = legal_scale(largest * share)
        for _ in range(2):
            index = torch.searchsorted(middle, (parts / scale.unsqueeze(2)).contiguous())
            units = entries[0][index]
            scale = legal_scale(_fit_scale(units, parts, weight, scale))
        error = ((units * scale.unsqueeze(2) - parts).square() * weight).sum(2)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(error, least)
    return Grid(best, block, entries.shape[1], table=entries)


def piecewise_grid(w: Tensor, error_weight: Tensor, bits: int, block: int) -> Grid:
    """Return the piecewise linear grid whose breakpoint has the least weighted error."""

    def error(grid: Grid) -> float:
        return float(((grid.values(grid.nearest(w)) - w).square() * error_weight).sum())

    tables = (piecewise_table(at, bits) for at in torch.linspace(0.2, 0.6, 9).tolist())
    return min((fixed_table_grid(w, error_weight, table, block) for table in tables), key=error)
