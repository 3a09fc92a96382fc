"""Picking the best detections inside the graph, in place of non-maximum suppression."""

import torch
from torch import Tensor

LIMIT = 300
"""How many detections an end-to-end head gives at most, as its projects train and export it."""


def best(boxes: Tensor, scores: Tensor, limit: int = LIMIT) -> Tensor:
    """Pick the best pairs of cell and class (Wang et al. 2024, YOLOv10).

    First the cells with the highest best score, then, among all their classes, the highest scores;
    a cell may appear with several classes.

    Args:
        boxes: `f32[N, 4, A]`.
        scores: `f32[N, nc, A]`.
        limit: how many to pick at most.

    Returns:
        `f32[N, min(limit, A), 6]`: the box, its score, its class, by falling score.
    """
    nc, k = scores.shape[1], min(limit, scores.shape[2])
    _, cells = torch.topk(scores.amax(1), k, 1)
    cells = cells.unsqueeze(1)  # [N, 1, k]
    candidates = torch.gather(scores, 2, cells.repeat(1, nc, 1))  # [N, nc, k]
    top, index = torch.topk(candidates.flatten(1), k, 1)
    classes, position = index // k, index % k
    chosen = torch.gather(boxes, 2, cells.repeat(1, 4, 1))
    chosen = torch.gather(chosen, 2, position.unsqueeze(1).repeat(1, 4, 1))
    rows = (chosen, top.unsqueeze(1), classes.unsqueeze(1).to(torch.float32))
    return torch.cat(rows, 1).transpose(1, 2)
