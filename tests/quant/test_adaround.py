"""AdaRound: up or down, and better than to the nearest."""

import torch

from tests.quant.test_weights import problem
from yqc.quant.weights.adaround import learn_rounding, level_below, regulariser_slope
from yqc.quant.weights.grids import codebook_grid, mse_grid


def test_goes_to_a_neighbour_and_lowers_the_error_of_the_output() -> None:
    w, moments = problem()
    for grid in (
        mse_grid(w, moments.by_row(len(w)), 4, w.shape[1], affine=True),
        codebook_grid(w, moments.by_row(len(w)), 4, w.shape[1]),
    ):
        nearest, learned = grid.nearest(w), learn_rounding(w, moments, grid)
        low = level_below(w, grid)
        assert ((learned == low) | (learned == low + 1)).all()
        error = [float(moments.errors(grid.values(q) - w).sum()) for q in (nearest, learned)]
        assert error[1] < 0.7 * error[0]


def test_with_independent_inputs_the_nearest_is_best() -> None:
    w, moments = problem(4, 16)
    alone = type(moments)(torch.eye(16).unsqueeze(0))
    grid = mse_grid(w, torch.ones(1, 16), 4, 16, affine=True)
    torch.testing.assert_close(learn_rounding(w, alone, grid), grid.nearest(w))


def test_the_regulariser_presses_away_from_the_middle() -> None:
    h = torch.tensor([0.1, 0.4, 0.6, 0.9], requires_grad=True)
    for exponent in (2.0, 7.5, 20.0):
        (slope,) = torch.autograd.grad((1 - (2 * h - 1).abs() ** exponent).sum(), h)
        torch.testing.assert_close(regulariser_slope(h.detach(), exponent), slope)
        assert (slope[:2] >= 0).all()
        assert (slope[2:] <= 0).all()
