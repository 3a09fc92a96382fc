"""Distances between the raw outputs that tasks beyond detection have; they are 0 where two agree.

    coefficients   the relative error of the mask's logits that the teacher's prototypes make of
                   them: for an error d of coefficients c, sqrt(d' G d / c' G c), with the second
                   moments G = mean of p p' over the prototypes' pixels p
    prototypes     the same with both exchanged: G is the mean of c c', weighted by confidence
    masks          KL of Bernoulli distributions of the pixels of the likeliest objects, within
                   their boxes, over the area of the mask: both of the above in one, where the
                   outline is, which decides the overlap
    keypoints      absolute error of x and y, in cells or halves of them; KL of Bernoulli
                   distributions of the visibility
    angles         absolute error
    logits         KL of the distributions of a classifier, and squared error of its logits (Kim et
                   al., Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in
                   Knowledge Distillation, IJCAI 2021)

Coefficients, keypoints and angles are weighted by the teacher's confidence at each position.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
OUTLINE = 8.0
"""Weight of the divergence of masks, over their areas: an outline that is off by a tenth of the
area then costs about as much as a box that is off by a cell. `relu,int8` of YOLOv8n-seg in 780
steps: masks lose 3.9 %, without this term 8.5 %; boxes 3.1 % with both. Half or double was not
measured."""
LIKELY = 16
"""Objects of an image whose masks are compared. Half of it leaves out objects of full scenes,
double takes twice the time."""
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


def outline_loss(
    taps: Sequence[Tap],
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    confidence: Mapping[str, Tensor],
) -> Tensor:
    """Compare the masks of the teacher's likeliest objects pixel by pixel: a sum of objects.

    0 for a head whose maps hold no boxes as distances beside coefficients.
    """
    sides = (_collect_masks(taps, maps, confidence) for maps in (student, teacher))
    ours, theirs = sides
    if ours is None or theirs is None:
        return torch.zeros(())
    count = min(LIKELY, theirs.sure.shape[1])
    best, chosen = theirs.sure.topk(count, 1)
    logits = [
        torch.einsum(
            "nek,nehw->nkhw",
            side.coefficients.gather(2, chosen.unsqueeze(1).expand(-1, side.channels, -1)),
            side.prototypes,
        )
        for side in (ours, theirs)
    ]
    boxes = theirs.boxes.gather(2, chosen.unsqueeze(1).expand(-1, 4, -1))
    height, width = theirs.prototypes.shape[2:]
    x, y = (torch.arange(n, device=boxes.device) + 0.5 for n in (width, height))
    left, top, right, bottom = boxes.unsqueeze(-1).unbind(1)
    across, down = (x >= left) & (x < right), (y >= top) & (y < bottom)
    within = down.unsqueeze(3) & across.unsqueeze(2)
    p = logits[1].sigmoid()
    cross, own = (F.binary_cross_entropy_with_logits(z, p, reduction="none") for z in logits)
    area = (p * within).sum((2, 3)).clamp(min=1)
    return OUTLINE * (((cross - own) * within).sum((2, 3)) / area * best).sum()


class _Masks(NamedTuple):
    """What masks are made of: A positions of all levels."""

    coefficients: Tensor
    """[N, E, A]."""
    boxes: Tensor
    """Left, top, right, bottom in pixels of the prototypes, [N, 4, A]."""
    sure: Tensor
    """[N, A]."""
    prototypes: Tensor
    """[N, E, h, w]."""

    @property
    def channels(self) -> int:
        return self.prototypes.shape[1]


def _collect_masks(
    taps: Sequence[Tap], maps: Sequence[Tensor], confidence: Mapping[str, Tensor]
) -> _Masks | None:
    """Gather all levels of a head; None if it has no masks, or boxes in another form."""
    by_kind: dict[str, list[Tensor]] = {}
    for tap, raw in zip(taps, maps, strict=True):
        by_kind.setdefault(tap.kind, []).append(raw.float())
    masks, boxes, protos = (by_kind.get(kind, []) for kind in ("mask", "box", "proto"))
    if not masks or len(masks) != len(boxes) or len(protos) != 1:
        return None
    sure = [confidence[tap.name].flatten(1) for tap in taps if tap.kind == "mask"]
    scale = protos[0].shape[2]
    return _Masks(
        torch.cat([one.flatten(2) for one in masks], 2),
        torch.cat([_decode_sides(one, scale / one.shape[2]) for one in boxes], 2),
        torch.cat(sure, 1),
        protos[0],
    )


def _decode_sides(raw: Tensor, scale: float) -> Tensor:
    """Return corners, [N, 4, h * w], of distances to four sides, [N, 4 * bins, h, w], in cells."""
    sides = torch.unflatten(raw.detach(), 1, (4, -1))
    bins = torch.arange(sides.shape[2], device=raw.device, dtype=raw.dtype)
    far = (sides.softmax(2) * bins.view(-1, 1, 1)).sum(2) if len(bins) > 1 else sides.squeeze(2)
    height, width = raw.shape[2:]
    y, x = (torch.arange(n, device=raw.device) + 0.5 for n in (height, width))
    near = torch.stack([x.expand(height, width), y.unsqueeze(1).expand(height, width)])
    corners = torch.cat([near - far[:, :2], near + far[:, 2:]], 1)
    return (scale * corners).flatten(2)


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
