"""How much a change of a detector's outputs counts.

A detector's loss of precision is what rounding does to the scores and boxes of objects, and nearly
all of an image is background. So errors are weighted by the squared gradient of the outputs, the
diagonal of the Gauss-Newton matrix: for outputs o_k that count with c_k,

    relevance(y_i) = sum over k of c_k^2 (d o_k / d y_i)^2  =  E (d (r . o) / d y_i)^2

for independent r_k of mean 0 and variance c_k^2, so one backward pass an image estimates it without
bias (Hutchinson 1990). The sigmoid's slope makes the scores of background count little by itself;
a box counts with its best score, and in units of its own width and height. Here are the outputs
o_k, the weights c_k and the projection r . o; `yqc.quantizing.relevance` differentiates it.
"""

from typing import Any

import torch
from torch import Tensor

from yqc.facts import Layout, OutputForm
from yqc.graph.values import list_tensors


def split_boxes_and_scores(output: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """Split a decoded output into boxes, their sizes and scores.

    The output is `yolov5` [N, A, 5+nc], `yolov8` [N, 4+nc, A], or `end2end` [N, A, 6].

    Returns:
        Box coordinates in pixels [N, A, 4], the boxes' sizes in the same order [N, A, 4], and
        scores [N, A, nc], or [N, A, 1] for `end2end`.
    """
    rows = output.transpose(1, 2) if layout == "yolov8" else output
    box = rows[..., :4]
    if layout == "end2end":
        return box, (box[..., 2:] - box[..., :2]).repeat(1, 1, 2), rows[..., 4:5]
    scores = rows[..., 4:] if layout == "yolov8" else rows[..., 4:5] * rows[..., 5:]
    return box, box[..., 2:].repeat(1, 1, 2), scores


def weight_outputs(output: Any, form: OutputForm | None) -> list[tuple[Tensor, Tensor]]:  # noqa: ANN401  # nests of tensors
    """List the outputs o_k of a graph with their weights c_k, without gradients, which broadcast.

    Without a form all outputs are taken as they are, each in units of its deviation.
    """
    if form is None:
        floats = [o for o in list_tensors(output) if o.is_floating_point()]
        return [(o, 1 / o.detach().std().clamp(min=1e-12)) for o in floats]
    box, size, score = split_boxes_and_scores(output, form.layout)
    best = score.detach().amax(-1, keepdim=True)
    return [(score, torch.ones(())), (box, best / size.detach().clamp(min=1))]


def project_outputs(output: Any, form: OutputForm | None, generator: torch.Generator) -> Tensor:  # noqa: ANN401  # nests of tensors
    """Return one random projection r . o of a graph's outputs, a scalar to differentiate."""
    total = torch.zeros(())
    for values, weight in weight_outputs(output, form):
        total = total + (values * weight * torch.randn(values.shape, generator=generator)).sum()
    return total
