"""Random projections of a detector's head, in units in which detections feel a change.

The distillation loss (`yqc.training.losses`) is 0 where two graphs agree, and curved: for the
logits of a Bernoulli distribution with p by p (1 - p), for those of a distribution pi over
distances by diag(pi) - pi pi^T, weighted by the confidence of the position. A projection on a
random vector of that covariance has, in expectation, the loss's curvature as the square of its
gradient (Gauss-Newton; Hutchinson 1989).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from yqc.training.heads import Tap
from yqc.training.losses import BOX, SIDES


def project(
    taps: Sequence[Tap], values: Mapping[str, Tensor], generator: torch.Generator
) -> Tensor:
    """Project the head's outputs on a random vector.

    Args:
        taps: what the outputs are; a map of boxes stands right before its map of classes.
        values: the outputs by the names of their taps, with gradients.
        generator: chooses the vector.

    Returns:
        A scalar, with gradients.
    """
    total = torch.zeros(())
    mass = torch.ones(())
    for i, tap in enumerate(taps):
        value = values[tap.name]
        fixed = value.detach()
        if tap.kind == "cls":
            p = fixed.sigmoid()
            mass = mass + p.amax(1).sum()
            total = total + (value * (p * (1 - p)).sqrt() * signs(p, generator)).sum()
        elif tap.kind == "box":
            sure = values[taps[i + 1].name].detach().sigmoid().amax(1)
            total = total + box(value, sure, generator)
        elif tap.kind == "anchor":
            added, found = anchor(value, tap.numbers, generator)
            total, mass = total + added, mass + found
        else:
            spread = fixed.std().clamp_min(1e-6) * fixed.numel() ** 0.5
            total = total + (value * signs(fixed, generator)).sum() / spread
    return total / mass.sqrt()


def signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return random signs, -1 or 1, in the shape of a tensor."""
    return torch.randint(0, 2, like.shape, generator=generator).to(like.dtype) * 2 - 1


def box(value: Tensor, sure: Tensor, generator: torch.Generator) -> Tensor:
    """Project distances to the four sides, [N, 4 * bins, h, w]; `sure` is [N, h, w]."""
    sides = torch.unflatten(value, 1, (SIDES, -1))
    weight = (sure / SIDES).sqrt().unsqueeze(1)
    if sides.shape[2] == 1:
        return (sides.squeeze(2) * weight * signs(sides.squeeze(2), generator)).sum()
    spread = sides.softmax(2)
    pi = spread.detach()
    noise = pi.sqrt() * signs(pi, generator)
    noise = noise - pi * noise.sum(2, keepdim=True)
    bins = torch.arange(pi.shape[2], dtype=pi.dtype).view(1, 1, -1, 1, 1)
    ends = (spread * bins).sum(2)
    along = (sides * noise).sum(2) + ends * signs(ends, generator)
    return (along * weight).sum()


def anchor(value: Tensor, numbers: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Project boxes, objectness and classes of an anchor head; also return its confidence."""
    parts = torch.unflatten(value, 1, (-1, numbers))
    p = parts.detach().sigmoid()
    sure = p[:, :, 4] * p[:, :, 5:].amax(2)
    weight = (p * (1 - p)).sqrt()
    weight[:, :, 5:] *= p[:, :, 4:5].sqrt()
    weight[:, :, :4] = (BOX / SIDES * sure.unsqueeze(2)).sqrt() * (p * (1 - p))[:, :, :4]
    return (parts * weight * signs(p, generator)).sum(), sure.sum()
