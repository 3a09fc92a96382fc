"""Project a detector's head on random vectors whose gradients give the curvature of the loss.

The distillation loss (`yqc.training.losses`) is 0 where two graphs agree. Its curvature is
p (1 - p) for the logit of a Bernoulli distribution with probability p, and diag(pi) - pi pi^T for
the logits of a distribution pi over distances, weighted by the confidence of the position. Absolute
errors, of sides, keypoints, angles and masks, are taken as squares of the same weight. The
squared gradient of a projection on a random vector of that covariance is, in expectation, the
curvature of the loss (Gauss-Newton; Hutchinson 1989).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from yqc.training.heads import Tap, find_confidence
from yqc.training.losses import BOX, SIDES
from yqc.training.task_losses import (
    ANGLE,
    EPS,
    VISIBLE,
    coefficient_moments,
    measure_squares,
    prototype_moments,
)


def project_head(
    taps: Sequence[Tap], values: Mapping[str, Tensor], generator: torch.Generator
) -> Tensor:
    """Project the head's outputs, by the names of their taps, on a random vector: a scalar.

    The maps of a level stand right before its map of classes.
    """
    total = plain = torch.zeros(())
    mass = torch.ones(())
    fixed = [values[tap.name].detach() for tap in taps]
    confidence = find_confidence(taps, fixed)
    prototypes = next((t for tap, t in zip(taps, fixed, strict=True) if tap.kind == "proto"), None)
    for tap, own in zip(taps, fixed, strict=True):
        value = values[tap.name]
        if tap.kind == "cls":
            p = own.sigmoid()
            mass = mass + p.amax(1).sum()
            total = total + (value * (p * (1 - p)).sqrt() * random_signs(p, generator)).sum()
        elif tap.kind == "box":
            total = total + project_sides(value, confidence[tap.name], generator)
        elif tap.kind == "mask" and prototypes is not None:
            total = total + project_masks(value, prototypes, confidence[tap.name], generator)
        elif tap.kind == "keypoint":
            sure = confidence[tap.name]
            total = total + project_keypoints(value, tap.numbers, sure, generator)
        elif tap.kind == "angle":
            weight = (ANGLE * confidence[tap.name]).sqrt().unsqueeze(1)
            total = total + (value * weight * random_signs(own, generator)).sum()
        elif tap.kind == "anchor":
            added, found = project_anchors(value, tap, prototypes, generator)
            total, mass = total + added, mass + found
        elif tap.kind == "proto":
            moments = coefficient_moments(taps, fixed, confidence)
            plain = plain + project_prototypes(value, moments, generator)
        elif tap.kind == "logits":
            plain = plain + project_distribution(value, generator) / len(value) ** 0.5
        else:
            spread = own.std().clamp_min(1e-6) * own.numel() ** 0.5
            plain = plain + (value * random_signs(own, generator)).sum() / spread
    return total / mass.sqrt() + plain


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
    value: Tensor, tap: Tap, prototypes: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Project all numbers of an anchor head's map; also return its confidence."""
    parts = torch.unflatten(value, 1, (-1, tap.numbers))
    end = tap.numbers - tap.coefficients
    p = parts[:, :, :end].detach().sigmoid()
    sure = p[:, :, 4] * p[:, :, 5:].amax(2)
    weight = (p * (1 - p)).sqrt()
    weight[:, :, 5:] *= p[:, :, 4:5].sqrt()
    weight[:, :, :4] = (BOX / SIDES * sure.unsqueeze(2)).sqrt() * (p * (1 - p))[:, :, :4]
    total = (parts[:, :, :end] * weight * random_signs(p, generator)).sum()
    if prototypes is not None and tap.coefficients:
        masks = parts[:, :, end:].transpose(1, 2).flatten(2, 3)
        total = total + project_masks(masks, prototypes, sure.flatten(1, 2), generator)
    return total, sure.sum()


def project_masks(
    value: Tensor, prototypes: Tensor, sure: Tensor, generator: torch.Generator
) -> Tensor:
    """Project mask coefficients, [N, E, ...], so that the prototypes' pixels count, [N, E, h, w].

    `sure` is [N, ...].
    """
    gram = prototype_moments(prototypes)
    size = measure_squares(value.detach().movedim(1, -1), gram)
    noise = torch.einsum("nef,nf...->ne...", root_of(gram), random_signs(value.detach(), generator))
    weight = (sure / size.clamp(min=EPS)).sqrt().unsqueeze(1)
    return (value * noise * weight).sum()


def project_prototypes(value: Tensor, moments: Tensor, generator: torch.Generator) -> Tensor:
    """Project prototypes, [N, E, h, w], as coefficients of the moments [N, E, E] read them."""
    fixed = value.detach()
    size = measure_squares(fixed.movedim(1, -1), moments).sum((1, 2)) * len(fixed)
    noise = torch.einsum("nef,nfhw->nehw", root_of(moments), random_signs(fixed, generator))
    return (value * noise / size.clamp(min=EPS).sqrt().view(-1, 1, 1, 1)).sum()


def root_of(gram: Tensor) -> Tensor:
    """Return a matrix L with L L' = gram, for second moments [N, E, E]; a ridge keeps it finite."""
    ridge = EPS + 1e-3 * gram.diagonal(dim1=1, dim2=2).mean(1)
    eye = torch.eye(gram.shape[1], dtype=gram.dtype)
    root: Tensor = torch.linalg.cholesky(gram + ridge.view(-1, 1, 1) * eye)
    return root


def project_keypoints(
    value: Tensor, numbers: int, sure: Tensor, generator: torch.Generator
) -> Tensor:
    """Project keypoints, [N, K * numbers, h, w]; `sure` is [N, h, w]."""
    points = torch.unflatten(value, 1, (-1, numbers))
    fixed, count = points.detach(), points.shape[1]
    weight = (sure / (2 * count)).sqrt()[:, None, None].expand(fixed.shape).clone()
    p = fixed[:, :, 2:].sigmoid()
    weight[:, :, 2:] = (VISIBLE / count * sure[:, None, None] * p * (1 - p)).sqrt()
    return (points * weight * random_signs(fixed, generator)).sum()


def project_distribution(value: Tensor, generator: torch.Generator) -> Tensor:
    """Project logits of distributions, [N, nc], by divergence and by the error of logits."""
    fixed = value.detach()
    p = fixed.softmax(1)
    noise = p.sqrt() * random_signs(p, generator)
    noise = noise - p * noise.sum(1, keepdim=True)
    own, signs = fixed - fixed.mean(1, keepdim=True), random_signs(p, generator)
    weight = (2 / p.shape[1] / (own.square().mean() + EPS)).sqrt()
    return (value * (noise + weight * (signs - signs.mean(1, keepdim=True)))).sum()
