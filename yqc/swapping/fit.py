"""Fit g(a u + b) + m to the values of another activation, channel by channel.

u are inputs and t the values wanted there. The mean of (g(a u + b) + m - t)^2 is minimised by
Gauss-Newton steps; in each channel a step is taken whole, by half, by a quarter or not at all, the
first that lowers the mean. For g = relu this alternates between a regression over the samples that
are not clipped, for a and b, and the mean of the others, for m.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from yqc.swapping.forms import Form

ROUNDS = 12
"""Gauss-Newton steps at most. Not measured: the channels of yolov8n stop after five on average, so
double changes nothing, and half of it leaves some early."""
FEW = 20
"""A parameter that at most so many samples depend on stays as it is. Not measured: with half of it
channels that are hardly ever on fit single samples, with double they are left as they were."""
STEPS = (1.0, 0.5, 0.25)
"""Parts of a step that are tried."""
GAIN = 1e-3
"""A channel whose mean falls by less than this share is done. Half and double of it trade time for
digits that the layers behind do not show."""
START = (1.0, 0.02, -0.12)
"""First a, b and m where there may be a constant: about what SiLU becomes as a ReLU."""


@dataclass(frozen=True)
class ChannelFit:
    """The fit of each channel: float32 [C] each."""

    a: Tensor
    b: Tensor
    m: Tensor
    loss: Tensor
    """Mean squared error."""


def fit_channels(form: Form, u: Tensor, t: Tensor, *, constant: bool = True) -> ChannelFit:
    """Fit a form to values t at inputs u, float32 [N, C] each; m stays 0 without `constant`."""
    p = torch.zeros(3, u.shape[1])
    p[0] = 1.0
    loss = mean_squared(form, u, t, p)
    if constant:
        start = torch.tensor(START).unsqueeze(1).expand(-1, u.shape[1])
        other = mean_squared(form, u, t, start)
        p, loss = torch.where(other < loss, start, p), torch.minimum(loss, other)
    left = torch.arange(u.shape[1])
    for _ in range(ROUNDS):
        if not len(left):
            break
        own, best = improve(form, u[:, left], t[:, left], p[:, left], loss[left], constant=constant)
        done = best >= (1 - GAIN) * loss[left]
        p[:, left], loss[left] = own, best
        left = left[~done]
    return ChannelFit(p[0], p[1], p[2], loss)


def improve(
    form: Form, u: Tensor, t: Tensor, p: Tensor, loss: Tensor, *, constant: bool
) -> tuple[Tensor, Tensor]:
    """Take a step from (a, b, m), [3, C]; return the new ones and their losses."""
    move = gauss_newton(form, u, t, p, constant=constant)
    p, loss = p.clone(), loss.clone()
    at = torch.arange(u.shape[1])
    for step in STEPS:
        tried = p[:, at] + step * move[:, at]
        every = len(at) == u.shape[1]
        error = mean_squared(form, *((u, t) if every else (u[:, at], t[:, at])), tried)
        better = (error < loss[at]) & (tried[0] > 0)
        p[:, at[better]], loss[at[better]] = tried[:, better], error[better]
        at = at[~better]
        if not len(at):
            break
    return p, loss


def apply_fit(form: Form, u: Tensor, p: Tensor) -> Tensor:
    """Return g(a u + b) + m for u [N, C] and (a, b, m) [3, C]."""
    return form.function(torch.addcmul(p[1], u, p[0])).add_(p[2])


def mean_squared(form: Form, u: Tensor, t: Tensor, p: Tensor) -> Tensor:
    """Return the mean squared error of each channel, [C]."""
    return apply_fit(form, u, p).sub_(t).square_().mean(0)


def gauss_newton(form: Form, u: Tensor, t: Tensor, p: Tensor, *, constant: bool) -> Tensor:
    """Return the Gauss-Newton step of (a, b, m), [3, C]."""
    z = torch.addcmul(p[1], u, p[0])
    slope, rest = form.slope(z), t - form.function(z) - p[2]
    parts = [slope * u, slope, torch.ones(()).expand_as(u)][: 2 + constant]
    size, channels = len(parts), u.shape[1]
    h, g = torch.empty(channels, size, size), torch.empty(channels, size)
    for i, one in enumerate(parts):
        g[:, i] = (one * rest).sum(0)
        for k in range(i + 1):
            h[:, i, k] = h[:, k, i] = (one * parts[k]).sum(0)
    seen = (slope.abs() > 0.5).sum(0)  # noqa: PLR2004  # half of the slope far from zero
    fixed = torch.zeros(channels, size, dtype=torch.bool)
    fixed[:, :2] = (seen <= FEW).unsqueeze(1)
    fixed[:, 2:] = (len(u) - seen <= FEW).unsqueeze(1)
    h = h.masked_fill(fixed.unsqueeze(1) | fixed.unsqueeze(2), 0.0)
    g = g.masked_fill(fixed, 0.0)
    ridge = 1e-6 * h.diagonal(dim1=1, dim2=2).amax(1, keepdim=True).clamp(min=1e-6)
    h = h + torch.diag_embed(ridge.expand(-1, size))
    step = torch.zeros(3, channels)
    step[:size] = torch.linalg.solve(h.double(), g.double()).float().T
    return step
