"""Pick the best detections inside the graph, in place of non-maximum suppression."""

from collections.abc import Sequence

import torch
from torch import Tensor

MAX_DET = 300
"""Most detections of an end-to-end head that records no `max_det`: the default of YOLOv10 and
Ultralytics. More rows cost a larger TopK and later stages, fewer lose objects in crowds."""


def pick_best(
    boxes: Tensor,
    scores: Tensor,
    limit: int = MAX_DET,
    extra: Sequence[Tensor] = (),
    *,
    agnostic: bool = False,
) -> Tensor:
    """Pick the best pairs of cell and class (Wang et al. 2024, YOLOv10).

    First the cells with the highest best score, then, among all their classes, the highest scores;
    a cell may appear with several classes.

    Args:
        boxes: `f32[N, 4, A]`.
        scores: `f32[N, nc, A]`.
        limit: how many to pick at most.
        extra: further numbers of each cell, `f32[N, E, A]` each.
        agnostic: whether each cell is picked once, with its best class.

    Returns:
        `f32[N, min(limit, A), 6 + E]`: the box, its score, its class, its further numbers, by
        falling score.
    """
    if agnostic:
        return pick_cells(boxes, scores, limit, extra)
    nc, k = scores.shape[1], min(limit, scores.shape[2])
    _, cells = torch.topk(scores.amax(1), k, 1)
    cells = cells.unsqueeze(1)  # [N, 1, k]
    candidates = torch.gather(scores, 2, cells.repeat(1, nc, 1)).transpose(1, 2)  # [N, k, nc]
    top, index = torch.topk(candidates.flatten(1), k, 1)
    position, classes = index // nc, index % nc
    box, *more = (
        gather_cells(gather_cells(part, cells), position.unsqueeze(1)) for part in (boxes, *extra)
    )
    rows = (box, top.unsqueeze(1), classes.unsqueeze(1).to(torch.float32), *more)
    return torch.cat(rows, 1).transpose(1, 2)


def gather_cells(values: Tensor, cells: Tensor) -> Tensor:
    """Gather `f32[N, C, A]` at the cells `i64[N, 1, k]`: `f32[N, C, k]`."""
    return torch.gather(values, 2, cells.repeat(1, values.shape[1], 1))


def pick_cells(boxes: Tensor, scores: Tensor, limit: int, extra: Sequence[Tensor] = ()) -> Tensor:
    """Pick the cells with the highest best score, each with its best class; see `pick_best`."""
    values, labels = torch.topk(scores, 1, 1)  # [N, 1, A] each
    top, cells = torch.topk(values, min(limit, scores.shape[2]), 2)
    box, *more = (gather_cells(part, cells) for part in (boxes, *extra))
    classes = torch.gather(labels, 2, cells).to(torch.float32)
    return torch.cat((box, top, classes, *more), 1).transpose(1, 2)
