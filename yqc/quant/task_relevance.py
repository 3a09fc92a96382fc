"""How much masks, keypoints and angles of detections count, beside scores and boxes.

All are measured as a box is, whose coordinate counts with c = score / size: a change of the output
is one of the overlap by which the task's precision is decided, to first order.

    masks       Coefficients and prototypes count by what they make together: the probabilities
                m = sigmoid(coefficients . prototypes) in the box. Pixels flip along the outline,
                some P = 2 (w + h) of them in a mask of A = w h, and each flip takes 1 / A from the
                IoU, whatever its sign. The square of the sum of P errors is P times the sum of
                their squares: c = score sqrt(P) / A, in pixels of the prototypes.
    keypoints   OKS = mean over the K keypoints of exp(-d^2 / (2 area (2 sigma)^2)) (COCO's keypoint
                evaluation): c = score / (2 sigma sqrt(area K)) for x and y. Visibility decides no
                match.
    angles      Two boxes of one size and centre, turned by t, have 1 - probiou = |w/h - h/w| t /
                sqrt(8) (arXiv 2106.06072, with boxes as Gaussians of variance w^2 / 12); shifted by
                d along the width, sqrt(3/2) d / w. So, beside score / w of a centre,
                c = score |w/h - h/w| / sqrt(12): a square has no angle.
"""

import torch
from torch import Tensor

LIKELY = 64
"""Detections of an image whose masks count, the best ones: they cover objects several times over,
and a map of logits each takes memory. Half of it leaves out objects of crowded images."""
VISIBLE = 0.1
"""Weight of a keypoint's visibility, beside the score of its detection. No measure of precision
counts it; half or double trades its exactness for that of places."""
SLENDER = 10.0
"""Ratio of a box's sides from which it counts as no more slender: the linear estimate of what a
turn does ends where the overlap does. Half of it counts long boxes less."""
COCO_SIGMAS = (
    *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
    *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)
"""Deviation of each keypoint of a person in units of the object's size, from COCO's evaluation."""


PROTOTYPE_PIXELS = 4
"""Input pixels, along each side, of a pixel of the prototypes, in all heads of YOLO."""


def find_sigmas(count: int) -> Tensor:
    """Return the deviations that OKS allows `count` keypoints: COCO's for 17, else 1 / count."""
    return torch.tensor(COCO_SIGMAS if count == len(COCO_SIGMAS) else (1 / count,) * count)


def weigh_keypoints(
    points: Tensor, score: Tensor, size: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return keypoints, [N, A, K*D], and their weights; scores [N, A, 1], sizes [N, A, 2]."""
    count, numbers = shape
    scale = size.prod(-1, keepdim=True).sqrt()
    place = score / scale / (2 * find_sigmas(count) * count**0.5)
    weights = place.unsqueeze(-1).repeat(1, 1, 1, numbers)
    weights[..., 2:] = VISIBLE * score.unsqueeze(-1) / count**0.5
    return points, weights.flatten(2)


def weigh_angles(angle: Tensor, score: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Return angles in radians, [N, A, 1], and their weights; scores [N, A, 1], sizes [N, A, 2]."""
    ratio = (size.amax(-1, keepdim=True) / size.amin(-1, keepdim=True)).clamp(max=SLENDER)
    return angle, score * (ratio - 1 / ratio) / 12**0.5


def widths_along_axes(size: Tensor, angle: Tensor) -> Tensor:
    """Return how wide rotated boxes are at their centres along x and y: [N, A, 2].

    Of the Gaussian that stands for a box, it is the deviation along the axis with the other
    coordinate fixed, in the units of width and height. Sizes are [N, A, 2], angles [N, A, 1].
    """
    cos2, sin2 = angle.cos().square(), angle.sin().square()
    across = size.clamp(min=1).square().reciprocal()
    w, h = across[..., :1], across[..., 1:]
    return torch.cat((cos2 * w + sin2 * h, sin2 * w + cos2 * h), -1).rsqrt()


def weigh_masks(
    box: Tensor, score: Tensor, coefficients: Tensor, prototypes: Tensor, *, corners: bool
) -> tuple[Tensor, Tensor]:
    """Return the masks of the likely detections of each image, and their weights.

    Args:
        box: [N, A, 4], in input pixels: corners, or centre, width and height.
        score: the best score of each, [N, A, 1].
        coefficients: [N, A, E].
        prototypes: [N, E, h, w], a pixel for four by four of the input.
        corners: whether boxes are given by their corners.

    Returns:
        Probabilities [N, M, h, w] of the M likeliest, and weights of the same shape, 0 outside of
        boxes.
    """
    count = min(LIKELY, box.shape[1])
    best, chosen = score.squeeze(-1).topk(count, 1)
    picked = [
        values.gather(1, chosen.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
        for values in (box.detach() / PROTOTYPE_PIXELS, coefficients)
    ]
    masks = torch.einsum("nme,nehw->nmhw", picked[1], prototypes).sigmoid()
    first, second = picked[0][..., :2], picked[0][..., 2:]
    low, high = (first, second) if corners else (first - second / 2, first + second / 2)
    sides = (high - low).clamp(min=1)
    c = best * (2 * sides.sum(2)).sqrt() / sides.prod(2)
    inside = [
        (at >= low[:, :, i : i + 1]) & (at < high[:, :, i : i + 1])
        for i, n in enumerate(reversed(prototypes.shape[2:]))
        for at in [torch.arange(n) + 0.5]
    ]
    within = inside[1].unsqueeze(3) & inside[0].unsqueeze(2)
    return masks, c.view(*c.shape, 1, 1) * within
