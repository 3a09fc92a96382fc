"""Fit g(a u + b) + m to the values of another activation, channel by channel.

u are inputs and t the values wanted there. The mean of (g(a u + b) + m - t)^2 is minimised by
Gauss-Newton steps; in each channel a step is taken whole, by half, by a quarter or not at all, the
first that lowers the mean. For g = relu this alternates between a regression over the samples that
are not clipped, for a and b, and the mean of the others, for m. Within this module samples lie
together in memory, channel by channel: [C, N].
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from yqc.swapping.forms import Form

ENOUGH = 4096
"""Samples from which a channel's three numbers are fitted, at least. On yolov5n at 640 px, without
training, these give mAP 0.2834 and four times as many 0.2847, in a seventh of the time. Half of
them takes half as long, which is a twentieth of the swap."""
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
    """Fit a form to values t at inputs u, float32 [N, C] each; m stays 0 without `constant`.

    Of many samples every k-th is used, so that at least `ENOUGH` are.
    """
    every = max(1, len(u) // ENOUGH)
    u, t = (x[::every].T.contiguous() for x in (u, t))
    p = torch.zeros(3, len(u))
    p[0] = 1.0
    loss = mean_squared(form, u, t, p)
    if constant:
        start = torch.tensor(START).unsqueeze(1).expand(-1, len(u))
        other = mean_squared(form, u, t, start)
        p, loss = torch.where(other < loss, start, p), torch.minimum(loss, other)
    left = torch.arange(len(u))
    for _ in range(ROUNDS):
        if not len(left):
            break
        own, best = improve(form, u[left], t[left], p[:, left], loss[left], constant=constant)
        done = best >= (1 - GAIN) * loss[left]
        p[:, left], loss[left] = own, best
        left = left[~done]
    return ChannelFit(p[0], p[1], p[2], loss)


def improve(
    form: Form, u: Tensor, t: Tensor, p: Tensor, loss: Tensor, *, constant: bool
) -> tuple[Tensor, Tensor]:
    """Take a step from (a, b, m), [3, C], on samples [C, N]; return them, and their losses."""
    move = gauss_newton(form, u, t, p, constant=constant)
    p, loss = p.clone(), loss.clone()
    at = torch.arange(len(u))
    for step in STEPS:
        tried = p[:, at] + step * move[:, at]
        error = mean_squared(form, u[at], t[at], tried)
        better = (error < loss[at]) & (tried[0] > 0)
        p[:, at[better]], loss[at[better]] = tried[:, better], error[better]
        at = at[~better]
        if not len(at):
            break
    return p, loss


def mean_squared(form: Form, u: Tensor, t: Tensor, p: Tensor) -> Tensor:
    """Return the mean squared error of each channel, [C]; samples [C, N], (a, b, m) [3, C]."""
    a, b, m = p.unsqueeze(2)
    return form.function(torch.addcmul(b, u, a)).add_(m).sub_(t).square_().mean(1)


def gauss_newton(form: Form, u: Tensor, t: Tensor, p: Tensor, *, constant: bool) -> Tensor:
    """Return the Gauss-Newton step of (a, b, m), [3, C], for samples [C, N]."""
    a, b, m = p.unsqueeze(2)
    z = torch.addcmul(b, u, a)
    slope = form.slope(z)
    rest = (t - form.function(z)).sub_(m)
    parts = torch.stack([slope * u, slope, torch.ones_like(u)][: 2 + constant], 1)
    h, g = parts @ parts.mT, parts @ rest.unsqueeze(2)
    size, (channels, count) = parts.shape[1], u.shape
    seen = (slope.abs() > 0.5).sum(1)  # noqa: PLR2004  # half of the slope far from zero
    fixed = torch.zeros(channels, size, dtype=torch.bool)
    fixed[:, :2] = (seen <= FEW).unsqueeze(1)
    fixed[:, 2:] = (count - seen <= FEW).unsqueeze(1)
    h = h.masked_fill(fixed.unsqueeze(1) | fixed.unsqueeze(2), 0.0)
    g = g.masked_fill(fixed.unsqueeze(2), 0.0)
    ridge = 1e-6 * h.diagonal(dim1=1, dim2=2).amax(1, keepdim=True).clamp(min=1e-6)
    h = h + torch.diag_embed(ridge.expand(-1, size))
    step = torch.zeros(3, channels)
    step[:size] = torch.linalg.solve(h.double(), g.double()).float().squeeze(2).T
    return step
