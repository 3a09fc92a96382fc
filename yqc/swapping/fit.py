"""Fit g(a u + b) + m to the values of another activation, channel by channel.

u are inputs and t the values wanted there. The mean of (g(a u + b) + m - t)^2 is minimised by
Gauss-Newton steps; each is taken by half, by a quarter or not at all in channels where it does not
lower the mean.

For g = relu that is max(a u + b + m, m): the parts of a convolution's weights and bias, and a
constant that the layers behind take up.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from yqc.swapping.forms import Form

ROUNDS = 12
FEW = 20
STEPS = (1.0, 0.5, 0.25)
ENOUGH = 1e-3


@dataclass(frozen=True)
class ChannelFit:
    """The fit of each channel: float32 [C] each."""

    a: Tensor
    b: Tensor
    m: Tensor
    loss: Tensor
    """Mean squared error."""


def fit_channels(form: Form, u: Tensor, t: Tensor, *, constant: bool = True) -> ChannelFit:
    """Fit a form to values t at inputs u, float32 [N, C] each.

    `constant` is whether m may be other than 0.
    """
    count = u.shape[1]
    p = torch.zeros(3, count)
    p[0] = 1.0
    if constant:
        p[1], p[2] = 0.02, -0.12
    loss = mean_squared(form, u, t, p)
    left = torch.arange(count)
    for _ in range(ROUNDS):
        if not len(left):
            break
        x, y, own = u[:, left], t[:, left], p[:, left]
        move = gauss_newton(form, x, y, own, constant=constant)
        best, lowest = own.clone(), loss[left].clone()
        trying = torch.ones(len(left), dtype=torch.bool)
        for step in STEPS:
            at = trying.nonzero().flatten()
            if not len(at):
                break
            tried = own[:, at] + step * move[:, at]
            error = mean_squared(form, x[:, at], y[:, at], tried)
            better = (error < lowest[at]) & (tried[0] > 0)
            best[:, at[better]], lowest[at[better]] = tried[:, better], error[better]
            trying[at[better]] = False
        gained = lowest < (1 - ENOUGH) * loss[left]
        p[:, left], loss[left] = best, lowest
        left = left[gained]
    return ChannelFit(*p, loss)


def apply_fit(form: Form, u: Tensor, p: Tensor) -> Tensor:
    """Return g(a u + b) + m for u [N, C] and (a, b, m) [3, C]."""
    return form.function(torch.addcmul(p[1], u, p[0])).add_(p[2])


def mean_squared(form: Form, u: Tensor, t: Tensor, p: Tensor) -> Tensor:
    """Return the mean squared error of each channel, [C]."""
    return apply_fit(form, u, p).sub_(t).square_().mean(0)


def gauss_newton(form: Form, u: Tensor, t: Tensor, p: Tensor, *, constant: bool) -> Tensor:
    """Return the Gauss-Newton step of (a, b, m), [3, C].

    Where at most `FEW` samples show a derivative, that parameter stays.
    """
    z = torch.addcmul(p[1], u, p[0])
    slope = form.slope(z)
    rest = t - form.function(z) - p[2]
    steep = slope * u
    n = len(u)
    parts = (steep, slope, torch.ones(()).expand_as(u)) if constant else (steep, slope)
    size = len(parts)
    h = torch.empty(u.shape[1], size, size)
    g = torch.empty(u.shape[1], size)
    for i, one in enumerate(parts):
        g[:, i] = (one * rest).sum(0)
        for k in range(i + 1):
            h[:, i, k] = h[:, k, i] = (one * parts[k]).sum(0)
    seen = (slope.abs() > 0.5).sum(0)
    fixed = torch.zeros(u.shape[1], size, dtype=torch.bool)
    fixed[:, :2] = (seen <= FEW).unsqueeze(1)
    if constant:
        fixed[:, 2] = n - seen <= FEW
    h = h.masked_fill(fixed.unsqueeze(1) | fixed.unsqueeze(2), 0.0)
    g = g.masked_fill(fixed, 0.0)
    ridge = 1e-6 * h.diagonal(dim1=1, dim2=2).amax(1, keepdim=True).clamp(min=1e-12)
    h = h + torch.diag_embed(ridge.expand(-1, size))
    step = torch.zeros(3, u.shape[1])
    step[:size] = torch.linalg.solve(h.double(), g.double().unsqueeze(2)).squeeze(2).float().T
    return step
