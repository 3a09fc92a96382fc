"""Project a detector's head on random vectors whose gradients give the curvature of the loss.

The distillation loss (`yqc.training.losses`) is 0 where two graphs agree. Its curvature is
p (1 - p) for the logit of a Bernoulli distribution with probability p, and diag(pi) - pi pi^T for
the logits of a distribution pi over distances, weighted by the confidence of the position. The
squared gradient of a projection on a random vector of that covariance is, in expectation, the
curvature of the loss (Gauss-Newton; Hutchinson 1989).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from yqc.training.heads import Tap
from yqc.training.losses import BOX, SIDES


def project_head(
    taps: Sequence[Tap], values: Mapping[str, Tensor], generator: torch.Generator
) -> Tensor:
    """Project the head's outputs, by the names of their taps, on a random vector: a scalar.

    A map of boxes stands right before its map of classes.
    """
    total = torch.zeros(())
    mass = torch.ones(())
    for i, tap in enumerate(taps):
        value = values[tap.name]
        fixed = value.detach()
        if tap.kind == "cls":
            p = fixed.sigmoid()
            mass = mass + p.amax(1).sum()
            total = total + (value * (p * (1 - p)).sqrt() * random_signs(p, generator)).sum()
        elif tap.kind == "box":
            sure = values[taps[i + 1].name].detach().sigmoid().amax(1)
            total = total + project_sides(value, sure, generator)
        elif tap.kind == "anchor":
            added, found = project_anchors(value, tap.numbers, generator)
            total, mass = total + added, mass + found
        else:
            spread = fixed.std().clamp_min(1e-6) * fixed.numel() ** 0.5
            total = total + (value * random_signs(fixed, generator)).sum() / spread
    return total / mass.sqrt()


def random_signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return random signs, -1 or 1, in the shape of a tensor."""
    return torch.randint(0, 2, like.shape, generator=generator).to(like.dtype) * 2 - 1


def project_sides(value: Tensor, sure: Tensor, generator: torch.Generator) -> Tensor:
    """Project distances to the four sides, [N, 4 * bins, h, w]; `sure` is [N, h, w]."""
    sides = torch.unflatten(value, 1, (SIDES, -1))
    weight = (sure / SIDES).sqrt().unsqueeze(1)
    if sides.shape[2] == 1:
        return (sides.squeeze(2) * weight * random_signs(sides.squeeze(2), generator)).sum()
    spread = sides.softmax(2)
    pi = spread.detach()
    noise = pi.sqrt() * random_signs(pi, generator)
    noise = noise - pi * noise.sum(2, keepdim=True)
    bins = torch.arange(pi.shape[2], dtype=pi.dtype).view(1, 1, -1, 1, 1)
    ends = (spread * bins).sum(2)
    along = (sides * noise).sum(2) + ends * random_signs(ends, generator)
    return (along * weight).sum()


def project_anchors(
    value: Tensor, numbers: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Project boxes, objectness and classes of an anchor head; also return its confidence."""
    parts = torch.unflatten(value, 1, (-1, numbers))
    p = parts.detach().sigmoid()
    sure = p[:, :, 4] * p[:, :, 5:].amax(2)
    weight = (p * (1 - p)).sqrt()
    weight[:, :, 5:] *= p[:, :, 4:5].sqrt()
    weight[:, :, :4] = (BOX / SIDES * sure.unsqueeze(2)).sqrt() * (p * (1 - p))[:, :, :4]
    return (parts * weight * random_signs(p, generator)).sum(), sure.sum()
