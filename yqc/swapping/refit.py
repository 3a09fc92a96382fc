"""Refit a convolution's weights so that the new activation behind it gives the values wanted.

With patches A of the inputs, outputs u = A w + c and wanted values t, the error of

    g(z) + m - t,   z = u + A dw

is lowered in turns: the best z of every element alone, no farther from u than the error is worth
(a proximal step), then the dw that comes closest to it by least squares.
"""

import math

import torch
from torch import Tensor

from yqc.swapping.forms import Form

RIDGE = 1e-3
ROUNDS = 8
PULLS = (0.03, 1.0)


def closest(form: Form, u: Tensor, t: Tensor, pull: float) -> Tensor:
    """Return the z of least (g(z) - t)^2 + pull (z - u)^2, element by element."""
    best = lowest = None
    for low, high, slope, intercept in form.pieces:
        z = (slope * (t - intercept) + pull * u) / (slope * slope + pull)
        z = z.clamp_(low, high)
        cost = (slope * z + intercept - t).square_().add_((z - u).square_(), alpha=pull)
        if best is None or lowest is None:
            best, lowest = z, cost
        else:
            better = cost < lowest
            best, lowest = torch.where(better, z, best), torch.where(better, cost, lowest)
    assert best is not None
    return best


def refit_weights(
    form: Form, a: Tensor, u: Tensor, t: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Find a change of weights and biases that lowers the error.

    Args:
        form: the new activation.
        a: patches of the inputs, float32 [groups, N, columns].
        u: outputs of the convolution now, [N, O].
        t: wanted values of the activation, less m, [N, O].

    Returns:
        The changes of the weights [O, columns] and the biases [O], and the new outputs; None if
        nothing lowers the error.
    """
    groups, n, columns = a.shape
    mean = a.mean(1, keepdim=True)
    a = a - mean
    gram = a.mT @ a
    ridge = RIDGE * gram.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    factor = torch.linalg.cholesky(gram + ridge.view(-1, 1, 1) * torch.eye(columns))
    z = u
    change = torch.zeros(groups, columns, u.shape[1] // groups)
    shift = torch.zeros(u.shape[1])
    best, kept = (form.function(u) - t).square().mean(), None
    for i in range(ROUNDS):
        pull = PULLS[0] * (PULLS[1] / PULLS[0]) ** (i / (ROUNDS - 1))
        rest = closest(form, z, t, pull) - z
        offset = rest.mean(0)
        rest = (rest - offset).view(n, groups, -1).movedim(1, 0)
        move = torch.cholesky_solve(a.mT @ rest, factor)
        change, shift = change + move, shift + offset
        z = z + (a @ move).movedim(0, 1).reshape(n, -1) + offset
        error = (form.function(z) - t).square().mean()
        if error < best:
            best, kept = error, (change, shift, z)
    if kept is None or not math.isfinite(float(best)):
        return None
    change, shift, z = kept
    bias = shift - (mean @ change).reshape(-1)
    return change.mT.reshape(u.shape[1], columns), bias, z
