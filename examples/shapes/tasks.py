"""Nets of the further tasks: the trained detector with another head on it, and their losses."""

import math
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from loss import (
    BOX_GAIN,
    SPREAD_GAIN,
    Answers,
    Match,
    Objects,
    answers,
    assign,
    box_losses,
    distribution_focal,
    share_points,
)
from model import BINS, STRIDES, ShapesNet
from torch import Tensor, nn
from torch.nn import functional

from yqc.models.heads import ClassifyHead, OrientedHead, PoseHead, SegmentHead
from yqc.models.heads.segment import Proto

PROTOTYPES, HIDDEN = 8, 10
"""Mask prototypes and the channels of the branch that makes them: what a file of 1 MB has room for
beside the detector. Twice the prototypes would make a file of 1.05 MB."""
MASK_GAIN, POINT_GAIN, TURN_GAIN = 6.0, 6.0, 6.0


class TaskNet(ShapesNet):
    """The detector with a head of a further task in place of its own."""

    task: ClassVar[str]
    about: ClassVar[dict[str, Any]] = {}
    """What a model file says of the task beyond its name."""

    def __init__(self, classes: int, widths: tuple[int, ...] = (24, 32, 48)) -> None:
        super().__init__(classes)
        self.detect = self.make_head(classes, widths)
        self.detect.stride = tuple(map(float, STRIDES))
        self.detect.finish()

    def make_head(
        self, classes: int, widths: tuple[int, ...]
    ) -> SegmentHead | PoseHead | OrientedHead:
        """Make the head for maps of these channels."""
        raise NotImplementedError

    def read(self, images: Tensor) -> tuple[list[Tensor], Answers, Tensor]:
        """Return the maps, the answers, and the head's further numbers, float32 [N, P, E]."""
        maps = self.features(images)
        levels = self.detect.raw(maps)
        more = torch.cat([level[2].flatten(2) for level in levels], 2).transpose(1, 2)
        return maps, answers([level[:2] for level in levels], STRIDES), more

    def losses(self, images: Tensor, objects: Objects) -> dict[str, Tensor]:
        """Return the losses on a batch."""
        maps, answer, more = self.read(images)
        match = Match.of(answer, objects, *assign(answer, objects))
        own = self.own_loss(maps, answer, more[match.picture, match.point], objects, match)
        return box_losses(answer, objects, match) | {self.task: own}

    def own_loss(
        self, maps: list[Tensor], answer: Answers, more: Tensor, objects: Objects, match: Match
    ) -> Tensor:
        """Return the loss of the further numbers `more`, [k, E], of the points that are matched."""
        raise NotImplementedError


class SegmentNet(TaskNet):
    """Finds masks (Bolya et al. 2019, YOLACT)."""

    task = "segment"
    about: ClassVar[dict[str, Any]] = {"coefficients": PROTOTYPES}

    def make_head(self, classes: int, widths: tuple[int, ...]) -> SegmentHead:
        """Make the head, with fewer prototypes than projects have."""
        return SegmentHead(classes, widths, PROTOTYPES, HIDDEN, reg_max=BINS, legacy=True)

    def own_loss(
        self, maps: list[Tensor], answer: Answers, more: Tensor, objects: Objects, match: Match
    ) -> Tensor:
        """Cross entropy of each mask with the object's pixels, averaged within its box."""
        prototypes, owner = cast(Proto, self.detect.proto).of_maps(maps), labelled(objects.owner)
        stride = owner.shape[-1] // prototypes.shape[-1]
        logits = torch.einsum("ke,kehw->khw", more, prototypes[match.picture])
        pixels = owner[match.picture] == match.number[:, None, None]
        wanted = functional.avg_pool2d(pixels[:, None].float(), stride)[:, 0]
        x0, y0, x1, y1 = (objects.boxes[match.picture, match.number] / stride).T[:, :, None]
        place = torch.arange(wanted.shape[-1]) + 0.5
        across, down = ((low < place) & (place < high) for low, high in ((x0, x1), (y0, y1)))
        inside = (down[:, :, None] & across[:, None]).float()
        each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return MASK_GAIN * match.mean((each * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(1))


class PoseNet(TaskNet):
    """Finds the four extreme points."""

    task = "pose"
    about: ClassVar[dict[str, Any]] = {"kpt_shape": [4, 2]}

    def make_head(self, classes: int, widths: tuple[int, ...]) -> PoseHead:
        """Make the head for four keypoints without a visibility: all are seen."""
        return PoseHead(classes, widths, (4, 2), reg_max=BINS, legacy=True)

    def own_loss(
        self, maps: list[Tensor], answer: Answers, more: Tensor, objects: Objects, match: Match
    ) -> Tensor:
        """Mean distance of the keypoints in square roots of the box's area."""
        stride = answer.strides[match.point, None, None]
        cell = answer.points[match.point, None] - stride / 2
        found = more.reshape(-1, 4, 2) * PoseHead.factor * stride + cell
        apart = (found - labelled(objects.points)[match.picture, match.number, :4]).square().sum(-1)
        low, high = objects.boxes[match.picture, match.number].chunk(2, 1)
        scale = (high - low).prod(1, keepdim=True).sqrt()
        return POINT_GAIN * match.mean(((apart + 1e-3).sqrt() / scale).mean(1))


class OrientedNet(TaskNet):
    """Finds turned rectangles."""

    task = "obb"

    def make_head(self, classes: int, widths: tuple[int, ...]) -> OrientedHead:
        """Make the head for boxes with an angle."""
        return OrientedHead(classes, widths, reg_max=BINS, legacy=True)

    def losses(self, images: Tensor, objects: Objects) -> dict[str, Tensor]:
        """The losses of rectangles: probabilistic overlap, and the distances to their sides."""
        _, answer, more = self.read(images)
        found, wanted = self.rectangles(answer, more), rectangles_of(objects)
        from_centre = answer.points - wanted[:, :, None, :2]
        inside = turn_back(from_centre, wanted[:, :, None, 4]).abs() * 2 < wanted[:, :, None, 2:4]
        overlap = gaussian_overlap(wanted[:, :, None], found[:, None])
        shared = share_points(answer.classes, objects, inside.all(-1), overlap)
        match = Match.of(answer, objects, *shared)
        mine = found[match.picture, match.point]
        true = nearest_turn(wanted[match.picture, match.number], mine[:, 4].detach())
        off = turn_back(answer.points[match.point] - true[:, :2], true[:, 4])
        sides = torch.cat((true[:, 2:4] / 2 + off, true[:, 2:4] / 2 - off), 1)
        logits = answer.sides[match.picture, match.point]
        spread = distribution_focal(logits, sides / answer.strides[match.point, None]).mean(-1)
        return {
            "box": BOX_GAIN * match.mean(1 - gaussian_overlap(true, mine)),
            "class": match.classes,
            "spread": SPREAD_GAIN * match.mean(spread),
        }

    def rectangles(self, answer: Answers, more: Tensor) -> Tensor:
        """Decode rectangles of all points, float32 [N, P, 5]: centre, size, angle in radians."""
        angle = cast(OrientedHead, self.detect).angle(more)
        upright = replace(answer, points=torch.zeros_like(answer.points)).boxes()
        low, high = upright.chunk(2, -1)
        centre = answer.points + turn_back((low + high) / 2, -angle[..., 0])
        return torch.cat((centre, high - low, angle), -1)


class ClassifyNet(nn.Module):
    """Names the shape in a picture of 64 x 64 pixels: the detector's stages and a linear layer."""

    task = "classify"

    def __init__(self, classes: int) -> None:
        super().__init__()
        whole = ShapesNet(classes)
        self.stem, self.stage3 = whole.stem, whole.stage3
        self.stage4, self.stage5 = whole.stage4, whole.stage5
        self.classify = ClassifyHead(48, classes)
        self.classify.finish()

    def maps(self, images: Tensor) -> list[Tensor]:
        """The map that is averaged, float32 [N, 48, H / 32, W / 32]."""
        return [self.stage5(self.stage4(self.stage3(self.stem(images))))]

    def forward(self, images: Tensor) -> Tensor:
        """Return probabilities, float32 [N, classes]."""
        probabilities: Tensor = self.classify(self.maps(images))
        return probabilities

    def losses(self, images: Tensor, objects: Objects) -> dict[str, Tensor]:
        """Cross entropy with the class."""
        ((logits,),) = self.classify.raw(self.maps(images))
        return {"class": functional.cross_entropy(logits, objects.classes[:, 0])}


NETS = {net.task: net for net in (SegmentNet, PoseNet, OrientedNet, ClassifyNet)}


def labelled(values: Tensor | None) -> Tensor:
    """Return labels that only pictures of `drawn(..., tasks=True)` have."""
    if values is None:
        raise ValueError("these pictures have no labels of further tasks")
    return values


def rectangles_of(objects: Objects) -> Tensor:
    """Return the objects' rectangles, float32 [N, G, 5]: centre, size, angle in radians."""
    corners = labelled(objects.points)[:, :, 4:]
    along, across = (corners[:, :, i + 1] - corners[:, :, i] for i in (0, 1))
    size = torch.stack((along.norm(dim=-1), across.norm(dim=-1)), -1)
    angle = torch.atan2(along[..., 1], along[..., 0])
    return torch.cat((corners.mean(2), size, angle[..., None]), -1)


def turn_back(points: Tensor, angle: Tensor) -> Tensor:
    """Turn points [..., 2] by minus an angle [...] about the origin."""
    (x, y), cos, sin = points.unbind(-1), angle.cos(), angle.sin()
    return torch.stack((x * cos + y * sin, y * cos - x * sin), -1)


def nearest_turn(boxes: Tensor, angle: Tensor) -> Tensor:
    """Write rectangles [k, 5] with the angle next to `angle`, width and height swapped for it."""
    quarters = ((angle - boxes[:, 4]) / (math.pi / 2)).round()
    size = torch.where((quarters % 2 == 1)[:, None], boxes[:, [3, 2]], boxes[:, 2:4])
    return torch.cat((boxes[:, :2], size, (boxes[:, 4] + quarters * math.pi / 2)[:, None]), 1)


def gaussian_overlap(a: Tensor, b: Tensor) -> Tensor:
    """Return the overlap of rectangles [..., 5] as Gaussians (Llerena et al. 2021, ProbIoU)."""
    (xx1, yy1, xy1), (xx2, yy2, xy2) = covariance(a), covariance(b)
    xx, yy, xy = xx1 + xx2, yy1 + yy2, xy1 + xy2
    x, y = (a[..., :2] - b[..., :2]).unbind(-1)
    area = (xx * yy - xy.square()).clamp(1e-6)
    far = (xx * y.square() + yy * x.square() - 2 * xy * x * y) / area / 4
    alone = ((xx1 * yy1 - xy1.square()) * (xx2 * yy2 - xy2.square())).clamp(1e-9)
    unlike = (area / (4 * alone.sqrt())).clamp(1.0).log() / 2
    return 1 - (1 - (-far - unlike).exp()).clamp(1e-6).sqrt()


def covariance(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the variances along x and y, and the covariance, of rectangles [..., 5]."""
    width, height = (boxes[..., 2:4].clamp(1e-3).square() / 12).unbind(-1)
    cos, sin = boxes[..., 4].cos(), boxes[..., 4].sin()
    along, across = cos.square(), sin.square()
    return (
        width * along + height * across,
        width * across + height * along,
        (width - height) * cos * sin,
    )
