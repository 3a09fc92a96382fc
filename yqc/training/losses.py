"""Compute the distance of a student from its teacher on raw outputs; it is 0 where they agree.

A detector's map is background almost everywhere. A position is weighted by the teacher's confidence
there, and the sum over all positions is divided by the sum of confidences: the loss is per object.

    scores    KL of Bernoulli distributions, sum over positions and classes
    boxes     KL of the distributions of each side's distance (LD, Zheng et al. 2022), or the
              distance's absolute error, weighted by confidence
    anchors   KL of Bernoulli distributions for objectness; where an object can be, also for
              classes, weighted by objectness, and the absolute error of the sigmoids of a box
    others    masks, keypoints, angles, a classifier's logits: see `task_losses`
    features  squared error over the teacher's variance, channel by channel; where activations
              were swapped, less its mean
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from yqc.training.heads import Tap, find_confidence
from yqc.training.task_losses import (
    angle_loss,
    coefficient_moments,
    keypoint_loss,
    logit_loss,
    mask_loss,
    outline_loss,
    proto_loss,
    prototype_moments,
    relative_error,
)

SIDES = 4
BOX = 8.0
"""Weight of an anchor's box relative to its scores. Not measured: half of it lets boxes drift,
double lets scores drift."""
SURE = 1e-3
"""Anchors of less objectness in the teacher have no loss of box and class: mAP is measured on
detections from this confidence on. They are nearly all of the anchors, so a lower value costs time;
a higher one ignores detections that count."""
EPS = 1e-6


def distance(
    taps: Sequence[Tap], student: Sequence[Tensor], teacher: Sequence[Tensor], features: float
) -> Tensor:
    """Return the loss of one batch, a float32 scalar: student and teacher have a tensor a tap.

    `features` is the weight of the features.
    """
    objects = mass = plain = torch.zeros((), device=student[0].device)
    confidence = find_confidence(taps, teacher)
    grams = [
        prototype_moments(t) for tap, t in zip(taps, teacher, strict=True) if tap.kind == "proto"
    ]
    for tap, raw, wanted in zip(taps, student, teacher, strict=True):
        s, t = raw.float(), wanted.float()
        if tap.kind == "anchor":
            loss, count = anchor_loss(s, t, tap.numbers, tap.coefficients, grams)
            objects, mass = objects + loss, mass + count
        elif tap.name in confidence:
            sure = confidence[tap.name]
            objects = objects + level_loss(tap, s, t, sure, grams)
            mass = mass + sure.sum() if tap.kind == "cls" else mass
        elif tap.kind == "proto":
            plain = plain + proto_loss(s, t, coefficient_moments(taps, teacher, confidence))
        elif tap.kind == "logits":
            plain = plain + logit_loss(s, t)
        else:
            left = t if tap.kept is None else t.index_select(1, tap.kept.to(t.device))
            weight = features * tap.weight if tap.kind == "feature" else 1.0
            plain = plain + weight * feature_loss(s, left, centered=tap.centered)
    if grams:
        objects = objects + outline_loss(taps, student, teacher, confidence)
    return objects / mass.clamp(min=1.0) + plain


def level_loss(tap: Tap, s: Tensor, t: Tensor, sure: Tensor, grams: Sequence[Tensor]) -> Tensor:
    """Compare one map of a level, float32 [N, ..., h, w], whose confidence is `sure`, [N, h, w].

    `grams` has the moments of the teacher's prototypes, if it has prototypes.
    """
    if tap.kind == "cls":
        return bernoulli_divergence(s, t).sum()
    if tap.kind == "mask":
        return mask_loss(s, t, grams[0], sure)
    if tap.kind == "keypoint":
        return keypoint_loss(s, t, tap.numbers, sure)
    return angle_loss(s, t, sure) if tap.kind == "angle" else box_loss(s, t, sure)


def bernoulli_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the KL divergence from teacher to student of Bernoulli distributions, as logits."""
    p = teacher.sigmoid()
    cross, own = (
        F.binary_cross_entropy_with_logits(logits, p, reduction="none")
        for logits in (student, teacher)
    )
    return cross - own


def box_loss(student: Tensor, teacher: Tensor, sure: Tensor) -> Tensor:
    """Compare distances to the four sides, [N, 4 * bins, h, w]; `sure` is [N, h, w]."""
    s, t = (torch.unflatten(x, 1, (SIDES, -1)) for x in (student, teacher))
    if s.shape[2] == 1:
        plain: Tensor = ((s - t).abs().squeeze(2).mean(1) * sure).sum()
        return plain
    logs = s.log_softmax(2), t.log_softmax(2)
    divergence = (logs[1].exp() * (logs[1] - logs[0])).sum(2).mean(1)
    bins = torch.arange(s.shape[2], device=s.device, dtype=s.dtype).view(1, 1, -1, 1, 1)
    ends = [(log.exp() * bins).sum(2) for log in logs]
    apart = (ends[0] - ends[1]).abs().mean(1)
    total: Tensor = ((divergence + apart) * sure).sum()
    return total


def anchor_loss(
    student: Tensor,
    teacher: Tensor,
    numbers: int,
    coefficients: int = 0,
    grams: Sequence[Tensor] = (),
) -> tuple[Tensor, Tensor]:
    """Compare boxes, objectness and classes of an anchor head, [N, na * numbers, h, w].

    The last `coefficients` of the numbers make masks with prototypes, whose moments `grams` has.

    Returns:
        The loss, and the sum of the teacher's confidences.
    """
    s, t = (torch.unflatten(x, 1, (-1, numbers)).movedim(2, -1) for x in (student, teacher))
    end = numbers - coefficients
    objects = bernoulli_divergence(s[..., 4].float(), t[..., 4].float()).sum()
    here = t[..., 4].float().sigmoid() >= SURE
    masks = relative_error(s[..., end:], t[..., end:], grams[0])[here] if coefficients else 0.0
    s, t = s[here].float(), t[here].float()
    object_ = t[:, 4].sigmoid()
    sure = object_ * t[:, 5:end].sigmoid().amax(1)
    box = (s[:, :4].sigmoid() - t[:, :4].sigmoid()).abs().mean(1)
    classes = bernoulli_divergence(s[:, 5:end], t[:, 5:end]).sum(1)
    return objects + (object_ * classes + sure * (BOX * box + masks)).sum(), sure.sum()


def feature_loss(student: Tensor, teacher: Tensor, *, centered: bool = False) -> Tensor:
    """Return the squared error over the teacher's variance, averaged over channels.

    A tenth of the mean variance is added to each channel's, for those that hardly vary. If
    `centered`, the mean error of each channel counts nothing.
    """
    others = [d for d in range(teacher.ndim) if d != 1]
    off = student - teacher
    if centered:
        off = off - off.mean(others, keepdim=True)
    error = off.square().mean(others)
    spread = (teacher - teacher.mean(others, keepdim=True)).square().mean(others)
    return (error / (spread + 0.1 * spread.mean() + EPS)).mean()
