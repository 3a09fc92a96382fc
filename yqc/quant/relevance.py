"""How much a change of a model's outputs counts.

A detector's loss of precision is what rounding does to the scores and boxes of objects, and nearly
all of an image is background. So errors are weighted by the squared gradient of the outputs, the
diagonal of the Gauss-Newton matrix: for outputs o_k that count with c_k,

    relevance(y_i) = sum over k of c_k^2 (d o_k / d y_i)^2  =  E (d (r . o) / d y_i)^2

for independent r_k of mean 0 and variance c_k^2, so one backward pass an image estimates it without
bias (Hutchinson 1990). The sigmoid's slope makes the scores of background count little by itself;
a box counts with its best score, and in units of its own width and height. Masks, keypoints and
angles count with that score, too (`yqc.quant.task_relevance`).

A classifier's best class changes where differences of logits do. Its probabilities p count with
c = 1 / sqrt(p): the sum of c^2 (dp)^2 is then, to second order, twice the Kullback-Leibler
divergence, which does not change if all logits move alike, and vanishes where the image is decided.

Here are the outputs o_k, the weights c_k and the projection r . o; `yqc.quantizing.relevance`
differentiates it.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from yqc.facts import OutputForm
from yqc.graph.values import list_tensors
from yqc.quant.task_relevance import weigh_angles, weigh_keypoints, weigh_masks, widths_along_axes

LEAST_PROBABILITY = 1e-8
"""Probabilities count as no smaller, so that their weights stay finite. Half or double changes
nothing: the slope of such a probability is as small as itself."""


class Rows(NamedTuple):
    """The detections of an output before suppression, a row each."""

    box: Tensor
    """Coordinates in pixels, [N, A, 4]."""
    size: Tensor
    """Width or height of the box in the direction of each coordinate, in pixels, [N, A, 4]."""
    score: Tensor
    """[N, A, nc], or [N, A, 1] for `end2end`."""
    extra: Tensor
    """Coefficients, keypoints or angle, [N, A, E]."""


def split_rows(output: Tensor, form: OutputForm) -> Rows:
    """Split a decoded output of boxes, of any layout (`yqc.facts.Layout`), into its parts."""
    rows = output.transpose(1, 2) if form.layout == "yolov8" else output
    end = rows.shape[-1] - form.extra
    box, extra = rows[..., :4], rows[..., end:]
    if form.layout == "end2end":
        score = rows[..., 4:5]
    else:
        score = rows[..., 4:end] if form.layout == "yolov8" else rows[..., 4:5] * rows[..., 5:end]
    if form.task == "obb":
        size = torch.cat((widths_along_axes(box[..., 2:], extra), box[..., 2:]), -1)
    elif form.layout == "end2end":
        size = (box[..., 2:] - box[..., :2]).repeat(1, 1, 2)
    else:
        size = box[..., 2:].repeat(1, 1, 2)
    return Rows(box, size, score, extra)


def weight_outputs(output: Any, form: OutputForm | None) -> list[tuple[Tensor, Tensor]]:  # noqa: ANN401  # nests of tensors
    """List the outputs o_k of a graph with their weights c_k, without gradients, which broadcast.

    Scores or probabilities come first. Without a form all outputs are taken as they are, each in
    units of its deviation.
    """
    tensors = list_tensors(output)
    if form is None:
        floats = [o for o in tensors if o.is_floating_point()]
        return [(o, 1 / o.detach().std().clamp(min=1e-12)) for o in floats]
    if form.layout == "classes":
        return [(tensors[0], tensors[0].detach().clamp(min=LEAST_PROBABILITY).rsqrt())]
    rows = split_rows(tensors[0], form)
    best, size = rows.score.detach().amax(-1, keepdim=True), rows.size.detach().clamp(min=1)
    found = [(rows.score, torch.ones(())), (rows.box, best / size)]
    if form.task == "segment":
        corners = form.layout == "end2end"
        found.append(weigh_masks(rows.box, best, rows.extra, tensors[1], corners=corners))
    elif form.kpt_shape is not None:
        found.append(weigh_keypoints(rows.extra, best, size[..., 2:], form.kpt_shape))
    elif form.task == "obb":
        found.append(weigh_angles(rows.extra, best, size[..., 2:]))
    return found


def project_outputs(output: Any, form: OutputForm | None, generator: torch.Generator) -> Tensor:  # noqa: ANN401  # nests of tensors
    """Return one random projection r . o of a graph's outputs, a scalar to differentiate."""
    total = torch.zeros(())
    for values, weight in weight_outputs(output, form):
        total = total + (values * weight * torch.randn(values.shape, generator=generator)).sum()
    return total
