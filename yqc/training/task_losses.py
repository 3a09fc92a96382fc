"""Distances between the raw outputs that tasks beyond detection have; they are 0 where two agree.

    coefficients   the relative error of the mask's logits that the teacher's prototypes make of
                   them: for an error d of coefficients c, sqrt(d' G d / c' G c), with the second
                   moments G = mean of p p' over the prototypes' pixels p
    prototypes     the same with both exchanged: G is the mean of c c', weighted by confidence
    keypoints      absolute error of x and y, in cells or halves of them; KL of Bernoulli
                   distributions of the visibility
    angles         absolute error
    logits         KL of the distributions of a classifier, and squared error of its logits (Kim et
                   al., Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in
                   Knowledge Distillation, IJCAI 2021)

Coefficients, keypoints and angles are weighted by the teacher's confidence at each position.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from yqc.training.heads import Tap

ANGLE = 4.0
"""Weight of a turn, in cells a radian: for a box of ten cells with sides of 2 : 1 both change the
overlap alike (`yqc.quant.task_relevance`). Half of it lets angles drift, double lets boxes."""
VISIBLE = 0.1
"""Weight of a keypoint's visibility, which no measure of precision counts. Half or double trades
its exactness for that of places."""
SMOOTH = 1e-2
"""Relative errors below it count by their squares, so that the slope is bounded. Half or double
moves the error from which on it is constant."""
EPS = 1e-6


def mask_loss(student: Tensor, teacher: Tensor, gram: Tensor, sure: Tensor) -> Tensor:
    """Compare coefficients, [N, E, h, w], by moments of prototypes, [N, E, E]; a sum of positions.

    `sure` is [N, h, w].
    """
    error = relative_error(student.movedim(1, -1), teacher.movedim(1, -1), gram)
    return (error * sure).sum()


def relative_error(student: Tensor, teacher: Tensor, gram: Tensor) -> Tensor:
    """Return the error of vectors, [N, ..., E], in the metric `gram` [N, E, E], over their length.

    The result is [N, ...].
    """
    off, size = (measure_squares(x, gram) for x in (student - teacher, teacher))
    return smooth_root(off / (size + EPS * gram.diagonal(dim1=1, dim2=2).mean()))


def measure_squares(x: Tensor, gram: Tensor) -> Tensor:
    """Return x' G x for vectors [N, ..., E]: [N, ...]."""
    flat = x.flatten(1, -2)
    return ((flat @ gram) * flat).sum(-1).view(x.shape[:-1])


def smooth_root(x: Tensor) -> Tensor:
    """Return sqrt(x), smooth at 0."""
    return (x.clamp(min=0) + SMOOTH**2).sqrt() - SMOOTH


def proto_loss(student: Tensor, teacher: Tensor, moments: Tensor) -> Tensor:
    """Compare prototypes, [N, E, h, w], by moments of coefficients, [N, E, E]: a mean of images."""
    off, size = (
        measure_squares(x.movedim(1, -1), moments).mean((1, 2))
        for x in (student - teacher, teacher)
    )
    return smooth_root(off / size.clamp(min=EPS)).mean()


def prototype_moments(prototypes: Tensor) -> Tensor:
    """Return the second moments of prototypes, [N, E, h, w], over their pixels: [N, E, E]."""
    flat = prototypes.float().flatten(2)
    return flat @ flat.mT / flat.shape[2]


def coefficient_moments(
    taps: Sequence[Tap], teacher: Sequence[Tensor], confidence: Mapping[str, Tensor]
) -> Tensor:
    """Return the second moments of coefficients, weighted by confidence, over all levels.

    The maps are those of the taps; the result is [N, E, E].
    """
    total, mass = None, torch.zeros(())
    for tap, t in zip(taps, teacher, strict=True):
        if tap.kind == "mask":
            rows, sure = t.float().flatten(2), confidence[tap.name].flatten(1)
        elif tap.kind == "anchor" and tap.coefficients:
            parts = torch.unflatten(t.float(), 1, (-1, tap.numbers)).transpose(1, 2).flatten(2)
            end = tap.numbers - tap.coefficients
            rows = parts[:, end:]
            sure = parts[:, 4].sigmoid() * parts[:, 5:end].sigmoid().amax(1)
        else:
            continue
        moments = (rows * sure.unsqueeze(1)) @ rows.mT
        total = moments if total is None else total + moments
        mass = mass.to(sure) + sure.sum(1)
    if total is None:
        raise ValueError("there are prototypes, and no map of coefficients")
    return total / mass.clamp(min=EPS).view(-1, 1, 1)


def keypoint_loss(student: Tensor, teacher: Tensor, numbers: int, sure: Tensor) -> Tensor:
    """Compare keypoints, [N, K * numbers, h, w]; `sure` is [N, h, w]; a sum of positions."""
    s, t = (torch.unflatten(x, 1, (-1, numbers)) for x in (student, teacher))
    error = (s[:, :, :2] - t[:, :, :2]).abs().mean((1, 2))
    if numbers > 2:  # noqa: PLR2004  # x, y, visibility
        p = t[:, :, 2].sigmoid()
        cross, own = (
            F.binary_cross_entropy_with_logits(x[:, :, 2], p, reduction="none") for x in (s, t)
        )
        error = error + VISIBLE * (cross - own).mean(1)
    return (error * sure).sum()


def angle_loss(student: Tensor, teacher: Tensor, sure: Tensor) -> Tensor:
    """Compare raw angles, [N, 1, h, w]; `sure` is [N, h, w]; a sum of positions."""
    return ANGLE * ((student - teacher).abs().squeeze(1) * sure).sum()


def logit_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare distributions by their logits, [N, nc]: a mean of images.

    It is the KL divergence from teacher to student, and the squared error of the logits over their
    variance, each image's less its mean: images that are decided have hardly any divergence.
    """
    logs = student.log_softmax(1), teacher.log_softmax(1)
    divergence = (logs[1].exp() * (logs[1] - logs[0])).sum(1).mean()
    off, own = (x - x.mean(1, keepdim=True) for x in (student - teacher, teacher))
    return divergence + off.square().mean() / (own.square().mean() + EPS)
