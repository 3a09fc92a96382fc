"""The losses of a detector whose box sides are distributions, from their papers.

- Assignment of points to objects: task-aligned assignment (Feng et al., "TOOD", ICCV 2021,
  section 3.2).
- Boxes: the complete IoU (Zheng et al., "Distance-IoU Loss", AAAI 2020, equations 8
  to 11).
- Sides as distributions over whole strides: distribution focal loss (Li et al., "Generalized Focal
  Loss", NeurIPS 2020, equation 6).
- Classes: binary cross entropy against the quality of the assignment, so that a score predicts an
  IoU.

Shapes: N pictures, P points (all levels, strides rising), G objects (padded), C classes, R bins of
a side.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

SCORE_POWER, IOU_POWER, CANDIDATES = 0.5, 6.0, 10
BOX_GAIN, CLASS_GAIN, SPREAD_GAIN = 6.0, 0.6, 1.5


@dataclass(frozen=True)
class Objects:
    """The objects of a batch, padded to the picture with most objects."""

    classes: Tensor
    """int64 [N, G]."""
    boxes: Tensor
    """float32 [N, G, 4], x0 y0 x1 y1 in pixels."""
    there: Tensor
    """bool [N, G], false where padded."""
    owner: Tensor | None = None
    """int8 [N, H, W], the object that each pixel shows, or -1; None where masks are not needed."""
    points: Tensor | None = None
    """float32 [N, G, 8, 2], x y in pixels: four extreme points, then the corners of a rectangle."""


@dataclass(frozen=True)
class Answers:
    """The outputs of the head at every point, before the sigmoid."""

    sides: Tensor
    """float32 [N, P, 4, R], logits over the distance to left, top, right, bottom in strides."""
    classes: Tensor
    """float32 [N, P, C], logits."""
    points: Tensor
    """float32 [P, 2], x y in pixels."""
    strides: Tensor
    """float32 [P], in pixels."""

    def boxes(self) -> Tensor:
        """The expected boxes, float32 [N, P, 4], x0 y0 x1 y1 in pixels."""
        bins = torch.arange(self.sides.shape[-1], dtype=self.sides.dtype)
        near, far = (self.sides.softmax(-1) @ bins * self.strides[:, None]).chunk(2, -1)
        return torch.cat((self.points - near, self.points + far), -1)


def answers(levels: list[tuple[Tensor, ...]], strides: tuple[int, ...]) -> Answers:
    """Line up the raw maps ([N, 4R, h, w], [N, C, h, w]) of all levels, row by row."""
    points = []
    for (maps, _), stride in zip(levels, strides, strict=True):
        rows, columns = (torch.arange(n) for n in maps.shape[-2:])
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        points.append((torch.stack((x, y), -1).reshape(-1, 2) + 0.5) * stride)
    sides = torch.cat([maps.flatten(2) for maps, _ in levels], 2)
    return Answers(
        sides=sides.reshape(len(sides), 4, -1, sides.shape[-1]).permute(0, 3, 1, 2),
        classes=torch.cat([maps.flatten(2) for _, maps in levels], 2).transpose(1, 2),
        points=torch.cat(points),
        strides=torch.cat(
            [torch.full((len(p),), float(s)) for p, s in zip(points, strides, strict=True)]
        ),
    )


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes x0 y0 x1 y1 in [..., 4], broadcast."""
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(0)
    both = sides.prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return both / (areas - both).clamp(1e-6)


def complete_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU less the squared distance of the centres and a difference of the aspects, at most 1."""
    overlap = iou(a, b)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    distance = apart.square().sum(-1) / hull.square().sum(-1).clamp(1e-6)
    lean = [torch.atan2(*(box[..., 2:] - box[..., :2]).clamp(1e-6).unbind(-1)) for box in (a, b)]
    aspect = 4 / math.pi**2 * (lean[0] - lean[1]).square()
    with torch.no_grad():
        weight = aspect / (1 - overlap + aspect).clamp(1e-6)
    return overlap - distance - weight * aspect


@torch.no_grad()
def assign(answer: Answers, objects: Objects) -> tuple[Tensor, Tensor]:
    """Assign points to objects by their boxes: a point may answer for those that it lies in."""
    boxes = objects.boxes[:, :, None]
    inside = torch.minimum(answer.points - boxes[..., :2], boxes[..., 2:] - answer.points)
    overlap = iou(boxes, answer.boxes()[:, None])
    return share_points(answer.classes, objects, inside.amin(-1) > 0, overlap)


@torch.no_grad()
def share_points(
    logits: Tensor, objects: Objects, inside: Tensor, overlap: Tensor
) -> tuple[Tensor, Tensor]:
    """Share points out among objects, with a quality for each.

    `inside` and `overlap`, [N, G, P], say which points lie in an object and how well their boxes
    cover it. An object takes the `CANDIDATES`
    points with the highest score^0.5 * IoU^6; a point wanted by several objects goes to the one
    that its box covers best. The quality is that product, scaled for each object so that its best
    point gets the object's best IoU.

    Returns:
        int64 [N, P], the object's index, or -1; float32 [N, P], the quality in 0..1, 0 where there
        is no object.
    """
    allowed = inside & objects.there[..., None]
    overlap = overlap * allowed
    index = objects.classes[..., None].expand(-1, -1, logits.shape[1])
    score = logits.sigmoid().transpose(1, 2).gather(1, index)
    fit = (score**SCORE_POWER * overlap**IOU_POWER + 1e-12) * allowed
    best = fit.topk(min(CANDIDATES, fit.shape[-1]), -1).indices
    taken = torch.zeros_like(allowed).scatter_(-1, best, value=True) & allowed
    covered, owner = torch.where(taken, overlap, -1.0).max(1)
    owner = torch.where(covered >= 0, owner, -1)
    own = taken & (torch.arange(allowed.shape[1])[:, None] == owner[:, None])
    fit, overlap = fit * own, overlap * own
    top, reach = fit.amax(-1, keepdim=True), overlap.amax(-1, keepdim=True)
    return owner, (fit * reach / top.clamp(1e-12)).amax(1)


def detection_loss(answer: Answers, objects: Objects) -> dict[str, Tensor]:
    """The three losses, each summed over the points and divided by the sum of their qualities."""
    return box_losses(answer, objects, Match.of(answer, objects, *assign(answer, objects)))


@dataclass(frozen=True)
class Match:
    """The points, k in all pictures, that answer for an object."""

    picture: Tensor
    """int64 [k]."""
    point: Tensor
    """int64 [k]."""
    number: Tensor
    """int64 [k], the object in its picture."""
    weight: Tensor
    """float32 [k], the quality."""
    whole: Tensor
    """The sum of all qualities, at least 1."""
    classes: Tensor
    """The loss of the scores of all points."""

    @classmethod
    def of(cls, answer: Answers, objects: Objects, owner: Tensor, quality: Tensor) -> "Match":
        """Take what `share_points` returned."""
        picture, point = (owner >= 0).nonzero(as_tuple=True)
        number, weight = owner[picture, point], quality[picture, point]
        whole = quality.sum().clamp(1.0)
        wanted = torch.zeros_like(answer.classes)
        wanted[picture, point, objects.classes[picture, number]] = weight
        loss = functional.binary_cross_entropy_with_logits(answer.classes, wanted, reduction="sum")
        return cls(picture, point, number, weight, whole, CLASS_GAIN * loss / whole)

    def mean(self, losses: Tensor) -> Tensor:
        """The mean of losses [k] by quality."""
        return (losses * self.weight).sum() / self.whole


def box_losses(answer: Answers, objects: Objects, match: Match) -> dict[str, Tensor]:
    """The losses of boxes and scores for points that are assigned."""
    picture, point, number = match.picture, match.point, match.number
    boxes = objects.boxes[picture, number]
    near = 1 - complete_iou(answer.boxes()[picture, point], boxes)
    place, stride = answer.points[point], answer.strides[point, None]
    sides = torch.cat((place - boxes[:, :2], boxes[:, 2:] - place), -1) / stride
    spread = distribution_focal(answer.sides[picture, point], sides).mean(-1)
    return {
        "box": BOX_GAIN * match.mean(near),
        "class": match.classes,
        "spread": SPREAD_GAIN * match.mean(spread),
    }


def distribution_focal(logits: Tensor, sides: Tensor) -> Tensor:
    """Cross entropy of logits [..., R] with the two bins next to each side [...], by nearness."""
    last = logits.shape[-1] - 1
    sides = sides.clamp(0, last - 0.01)
    low = sides.floor().long()
    share = sides - low
    log = logits.log_softmax(-1)
    below = log.gather(-1, low[..., None])[..., 0]
    above = log.gather(-1, low[..., None] + 1)[..., 0]
    return -(below * (1 - share) + above * share)
