"""Rounding weights: each step lowers the error that it says it lowers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from yqc.quant.weights.grids import (
    codebook_grid,
    k_means,
    minmax_grid,
    mse_grid,
    piecewise_table,
    powers_of_two_table,
)
from yqc.quant.weights.layer import round_weight, storage_bytes
from yqc.quant.weights.rounding import (
    InputMoments,
    descend_coordinates,
    inverse_factor,
    refit_scales,
    round_with_feedback,
)
from yqc.quant.weights.scheme import SCHEME_KINDS, Scheme
from yqc.quantizing.weights.allocate import (
    LayerOptions,
    SchemeChoice,
    allocate_bytes,
    pareto_front,
    read_plan_line,
    total_bytes,
    write_plan_line,
)


def problem(rows: int = 8, columns: int = 36, groups: int = 1) -> tuple[Tensor, InputMoments]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(groups, 400, columns, generator=g)
    x = x @ (torch.eye(columns) + 0.5 * torch.rand(columns, columns, generator=g))
    w = torch.randn(rows, columns, generator=g)
    return w, InputMoments(x.transpose(1, 2) @ x / 400)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("kind", ["affine", "codebook"])
def test_every_step_lowers_the_error(kind: str, groups: int) -> None:
    w, moments = problem(groups=groups)
    error_weight = moments.by_row(len(w))
    if kind == "affine":
        grid = mse_grid(w, error_weight, 4, w.shape[1], affine=True)
    else:
        grid = codebook_grid(w, error_weight, 4, w.shape[1])

    def error(levels: Tensor) -> float:
        return float(moments.errors(grid.values(levels) - w).sum())

    nearest = grid.nearest(w)
    fed = round_with_feedback(w, moments, grid)
    assert error(fed) < 0.6 * error(nearest)
    before = error(fed)
    improved = descend_coordinates(w, moments, grid, fed.clone(), 4)
    assert error(improved) <= before
    assert error(descend_coordinates(w, moments, grid, nearest.clone(), 4)) < 0.7 * error(nearest)
    old, grid = error(improved), refit_scales(w, moments, grid, improved)
    assert error(improved) <= old * 1.001  # scales are float16


def test_descent_ends_where_no_single_weight_can_be_better() -> None:
    w, moments = problem(3, 8)
    grid = mse_grid(w, moments.by_row(3), 3, 8, affine=False)
    levels = descend_coordinates(w, moments, grid, grid.nearest(w), 50)
    least = float(moments.errors(grid.values(levels) - w).sum())
    for r in range(3):
        for c in range(8):
            for level in range(grid.levels):
                other = levels.clone()
                other[r, c] = level
                assert float(moments.errors(grid.values(other) - w).sum()) >= least - 1e-4


def test_weighted_clipping_beats_the_full_range() -> None:
    w, moments = problem()
    w[0, 0] = 20.0
    error_weight = moments.by_row(len(w)).clone()
    error_weight[:, 0] = 1e-3
    plain, better = (
        minmax_grid(w, 4, 36, affine=True),
        mse_grid(w, error_weight, 4, 36, affine=True),
    )

    def error(grid: object) -> float:
        return float(((grid.values(grid.nearest(w)) - w).square() * error_weight)[0].sum())  # type: ignore[attr-defined]

    assert error(better) < 0.3 * error(plain)


def test_k_means_finds_clusters_and_counts_weights() -> None:
    x = torch.tensor([[0.0, 0.1, 5.0, 5.1, 5.2, 9.0]])
    torch.testing.assert_close(k_means(x, torch.ones(1, 6), 3), torch.tensor([[0.05, 5.1, 9.0]]))
    weight = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1e6, 1.0]])
    assert abs(float(k_means(x, weight, 3)[0, 1]) - 5.2) < 1e-3


def test_fixed_tables() -> None:
    assert powers_of_two_table(3).tolist() == [[-1.0, -0.5, -0.25, -0.125, 0.0, 0.25, 0.5, 1.0]]
    table = piecewise_table(0.25, 4)[0]
    assert len(table) == 16
    assert (table.diff() > 0).all()
    assert float(table[0]) == -1.0
    assert float(table[-1]) == 1.0


@pytest.mark.parametrize("kind", SCHEME_KINDS)
@pytest.mark.parametrize("granularity", ["tensor", "channel", "block", "kernel"])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_storage_is_what_is_stored(kind: str, granularity: str, bits: int) -> None:
    w, moments = problem(6, 36)
    scheme = Scheme(kind, bits, granularity, block=12)  # type: ignore[arg-type]
    shape = (6, 4, 3, 3)
    rounded = round_weight(w, moments, scheme, "mse", shape)
    stored = rounded.tensors().values()
    assert sum(t.numel() * t.element_size() for t in stored) == storage_bytes(scheme, shape)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_allocation_keeps_the_budget_and_nothing_cheap_is_left(data: st.DataObject) -> None:
    cost = st.tuples(st.integers(1, 50), st.floats(0, 10))
    layers = []
    for _ in range(data.draw(st.integers(1, 4))):
        costs = data.draw(st.lists(cost, min_size=1, max_size=4))
        choices = [SchemeChoice(Scheme(), s, d) for s, d in costs]
        layers.append(LayerOptions(None, pareto_front(choices)))  # type: ignore[arg-type]
    budget = data.draw(st.integers(1, 200))
    chosen = allocate_bytes(layers, budget)
    least = sum(one.choices[0].size for one in layers)
    assert total_bytes(chosen) <= max(budget, least)
    for one, now in zip(layers, chosen, strict=True):
        room = budget - total_bytes(chosen) + now.size
        assert all(c.size > room or c.damage >= now.damage for c in one.choices)


def test_a_plan_reads_back() -> None:
    for scheme in (
        Scheme(),
        Scheme("codebook", 3),
        Scheme("codebook", 4, rows=8),
        Scheme("affine", 4, "block", 48),
    ):
        assert read_plan_line(write_plan_line("model.0.conv", scheme)) == ("model.0.conv", scheme)
    with pytest.raises(ValueError, match="a plan has lines such as"):
        read_plan_line("model.0.conv:nonsense.4.channel")
    with pytest.raises(ValueError, match="a plan has lines such as"):
        read_plan_line("model.0.conv:affine.4.channel.rows.8")


def test_blocks_fill_rows() -> None:
    assert Scheme("affine", 4, "block", 64).block_of((8, 12, 3, 3)) == 54
    assert Scheme("affine", 4, "block", 64).block_of((8, 67, 1, 1)) == 67
    assert Scheme("affine", 4, "kernel").block_of((8, 12, 3, 3)) == 9
    assert Scheme("affine", 4, "kernel").block_of((8, 12, 1, 1)) == 12


def test_moments_of_too_few_samples_still_have_a_factor() -> None:
    x = torch.randn(1, 24, 2, generator=torch.Generator().manual_seed(0))
    upper = inverse_factor(x @ x.mT)
    assert bool(upper.isfinite().all())
    assert float((upper.mT @ upper).diagonal(dim1=1, dim2=2).min()) > 0
