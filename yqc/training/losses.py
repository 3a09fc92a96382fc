"""How far a student is from its teacher, on raw outputs; each loss is 0 where they agree.

A detector's map is background almost everywhere. A position counts by the teacher's confidence
there, so the sum over all positions is divided by the sum of confidences: the loss is per object.

    scores    KL of Bernoulli distributions, sum over positions and classes
    boxes     KL of the distributions of each side's distance (LD, Zheng et al. 2022), or the
              distance's absolute error, weighted by confidence
    anchors   the same for objectness, for classes weighted by objectness, and for the four numbers
              of a box by absolute error of their sigmoids
    features  squared error over the teacher's variance, channel by channel
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from yqc.training.heads import Tap

SIDES = 4
BOX = 8.0
"""Weight of an anchor's box beside its scores."""
EPS = 1e-6


def distance(
    taps: Sequence[Tap], student: Sequence[Tensor], teacher: Sequence[Tensor], features: float
) -> Tensor:
    """Return the loss of one batch, float32, a scalar.

    Args:
        taps: what the tensors are.
        student: a tensor a tap.
        teacher: the same, without gradients.
        features: weight of the features.
    """
    pairs = list(zip(taps, student, teacher, strict=True))
    pairs = [(tap, s.float(), t.float()) for tap, s, t in pairs]
    sure = sum(_confidence(tap, t).sum() for tap, _, t in pairs if tap.kind in {"cls", "anchor"})
    mass = torch.as_tensor(sure, device=pairs[0][1].device).clamp(min=1.0)
    total = pairs[0][1].new_zeros(())
    for i, (tap, s, t) in enumerate(pairs):
        if tap.kind == "box":
            total = total + box_loss(s, t, _confidence(*pairs[i + 1][::2])) / mass
        elif tap.kind == "cls":
            total = total + bernoulli(s, t).sum() / mass
        elif tap.kind == "anchor":
            total = total + anchor_loss(s, t, tap.numbers) / mass
        else:
            weight = features if tap.kind == "feature" else 1.0
            total = total + weight * feature_loss(s, t)
    return total


def _confidence(tap: Tap, teacher: Tensor) -> Tensor:
    """Return the teacher's confidence at each position of a map: [N, h, w] or [N, na, h, w]."""
    if tap.kind == "cls":
        return teacher.sigmoid().amax(1)
    parts = torch.unflatten(teacher, 1, (-1, tap.numbers)).sigmoid()
    sure: Tensor = parts[:, :, 4] * parts[:, :, 5:].amax(2)
    return sure


def bernoulli(student: Tensor, teacher: Tensor) -> Tensor:
    """KL of the teacher's Bernoulli distributions to the student's, both given as logits."""
    p = teacher.sigmoid()
    return p * (F.logsigmoid(teacher) - F.logsigmoid(student)) + (1 - p) * (
        F.logsigmoid(-teacher) - F.logsigmoid(-student)
    )


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


def anchor_loss(student: Tensor, teacher: Tensor, numbers: int) -> Tensor:
    """Compare boxes, objectness and classes of an anchor head, [N, na * numbers, h, w]."""
    s, t = (torch.unflatten(x, 1, (-1, numbers)) for x in (student, teacher))
    object_ = t[:, :, 4].sigmoid()
    sure = object_ * t[:, :, 5:].sigmoid().amax(2)
    box = (s[:, :, :4].sigmoid() - t[:, :, :4].sigmoid()).abs().mean(2)
    classes = bernoulli(s[:, :, 5:], t[:, :, 5:]).sum(2)
    objects = bernoulli(s[:, :, 4], t[:, :, 4])
    total: Tensor = (objects + object_ * classes + BOX * sure * box).sum()
    return total


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over channels of the squared error over the teacher's variance.

    A channel that hardly varies counts as if it had a tenth of the mean variance.
    """
    others = [d for d in range(teacher.ndim) if d != 1]
    error = (student - teacher).square().mean(others)
    spread = (teacher - teacher.mean(others, keepdim=True)).square().mean(others)
    return (error / (spread + 0.1 * spread.mean() + EPS)).mean()
