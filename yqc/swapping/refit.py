"""Refit a convolution's weights so that the new activation behind it gives the values wanted.

With patches A of the inputs, outputs u = A w + c and wanted values t, the mean of (g(z) - t)^2 over
z = u + A dw + dc is lowered in turns: the best z of every element alone that is not too far from
the last one (a proximal step), and the dw, dc that come closest to it by least squares.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from yqc.quant import cholesky_with_ridge
from yqc.swapping.forms import Form

RIDGE = 1e-3
"""Share of the mean variance of a patch that is added to all. Not varied: half of it follows the
pictures of the fit more closely, double less."""
PULLS = (0.03, 0.08, 0.2, 0.45, 1.0)
"""How much an element's way counts against its error, in each round: far ways first."""
VAIN = 2
"""Rounds in a row without a lower error after which it is given up. With 1 some layers stop too
early, with all of them those that end unchanged take twice the time."""


@dataclass(frozen=True)
class Refit:
    """Changes of a convolution, and what they bring."""

    weight: Tensor
    """float32 [O, columns]"""
    bias: Tensor
    """float32 [O]"""
    error: float
    """Mean squared error of the activation afterwards, over all samples."""


def move_closer(form: Form, u: Tensor, t: Tensor, pull: float) -> Tensor:
    """Return the z of least (g(z) - t)^2 + pull (z - u)^2, element by element."""
    best, lowest = u, torch.full_like(u, torch.inf)
    for low, high, slope, intercept in form.pieces():
        z = (slope * (t - intercept) + pull * u) / (slope * slope + pull)
        z = z.clamp_(low, high)
        cost = (slope * z + intercept - t).square_().add_((z - u).square_(), alpha=pull)
        better = cost < lowest
        best, lowest = torch.where(better, z, best), torch.where(better, cost, lowest)
    return best


def refit_weights(form: Form, a: Tensor, u: Tensor, t: Tensor, judged: slice) -> Refit | None:
    """Find a change of weights and biases that lowers the error.

    Args:
        form: the new activation.
        a: patches of the inputs, float32 [groups, N, columns]; changed.
        u: outputs of the convolution now, [N, O].
        t: wanted values of the activation, less m, [N, O].
        judged: the samples whose error decides which round is taken, if any; where these are not
            all samples, the others are learned from.

    Returns:
        The best round; None if none lowers the error.
    """
    count, (groups, _, columns) = len(u), a.shape
    learned = slice(0, judged.start) if judged.start else slice(None)
    mean = a[:, learned].mean(1, keepdim=True)
    a -= mean
    known = a[:, learned]
    factor = cholesky_with_ridge(known.mT @ known, RIDGE)
    z, weight, bias = u, torch.zeros(groups, columns, u.shape[1] // groups), torch.zeros_like(u[0])
    lowest, best, vain = mean_square_error(form, z[judged], t[judged]), None, 0
    for pull in PULLS:
        way = move_closer(form, z[learned], t[learned], pull) - z[learned]
        shift = way.mean(0)
        way = (way - shift).view(len(way), groups, -1).movedim(1, 0)
        step = torch.cholesky_solve(known.mT @ way, factor)
        weight, bias = weight + step, bias + shift
        z = z + (a @ step).movedim(0, 1).reshape(count, -1) + shift
        error = mean_square_error(form, z[judged], t[judged])
        vain = 0 if error < lowest else vain + 1
        if not vain:
            lowest, best = error, (weight, bias, z)
        if vain == VAIN:
            break
    if best is None:
        return None
    weight, bias, z = best
    bias = bias - (mean @ weight).reshape(-1)
    return Refit(weight.mT.reshape(-1, columns), bias, mean_square_error(form, z, t))


def mean_square_error(form: Form, z: Tensor, t: Tensor) -> float:
    """Return the mean squared error of the activation of z."""
    return float((form.function(z) - t).square_().mean())
