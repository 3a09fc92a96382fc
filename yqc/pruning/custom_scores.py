"""Score sets of channels by a function that a user registered as a criterion.

    @yqc.register_criterion("spread")
    def spread(layer: ScoredLayer) -> Tensor:
        return layer.rows.std(1)

The function scores the output channels of one layer. Scores of a layer are divided by their mean,
so that layers compare; a set's saliency is the mean over the layers that make it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from yqc.errors import PassError
from yqc.graph.calls import call, get_attribute
from yqc.graph.channels.sets import Channels
from yqc.pipeline.base import Context
from yqc.pipeline.layer_values import watch_gradients, watch_outputs
from yqc.pruning.options import DATA_CRITERIA
from yqc.pruning.weight_scores import Saliency, norm_factors, rows_of_weight
from yqc.registered import CRITERIA, Added


@dataclass(frozen=True)
class ScoredLayer:
    """A convolution or linear layer whose output channels are to be scored."""

    path: str
    """Of its module."""
    node: fx.Node
    """Its first call."""
    module: nn.Module
    rows: Tensor
    """Its weight, a row for each output channel, the batch norm behind it folded in: [O, rest]."""
    norm: nn.Module | None
    """The batch norm behind it, if there is one."""
    gm: fx.GraphModule
    ctx: Context
    images: Sequence[Tensor]
    """A few calibration images, float32 [1, C, H, W]; noise without data."""

    def outputs(self) -> Iterator[Tensor]:
        """Yield what the layer computes for each image, float32 [1, O, ...]."""
        for found in watch_outputs(self.gm, [self.node], self.images):
            yield found[self.node]

    def gradients(self) -> Iterator[Tensor]:
        """Yield the gradient of the label-free loss for each image, float32 [1, O, ...]."""
        how = self.ctx.form, self.ctx.seed
        for found in watch_gradients(self.gm, [self.node], self.images, *how):
            yield found[self.node]


Score: TypeAlias = Callable[[ScoredLayer], Tensor]
"""Scores the output channels of a layer, [O]; those of the lowest score are removed first."""
S = TypeVar("S", bound=Score)


@dataclass(frozen=True)
class CustomCriterion:
    """A criterion that a user registered."""

    score: Score
    needs_images: bool = False


def register_criterion(name: str, *, needs_images: bool = False) -> Callable[[S], S]:
    """Register the decorated function as a criterion of `prune`: `prune{criterion=NAME}`.

    It takes a `yqc.pruning.ScoredLayer` and returns a score of each output channel, [O]; channels
    of the lowest scores are removed first. With `needs_images` it is refused without data.

    Raises:
        PipelineError: the name is taken, or is none.
    """

    def register(function: S) -> S:
        criterion = CustomCriterion(function, needs_images=needs_images)
        CRITERIA.register(name, criterion, function.__module__)
        return function

    return register


def find_criterion(added: Added) -> CustomCriterion:
    """Return a registered criterion; an entry point may name a plain function."""
    found = added.value
    return found if isinstance(found, CustomCriterion) else CustomCriterion(found)


def needs_images(criterion: str) -> bool:
    """Return whether a criterion needs calibration images."""
    added = CRITERIA.find(criterion)
    return criterion in DATA_CRITERIA if added is None else find_criterion(added).needs_images


def score_by_function(
    gm: fx.GraphModule, channels: Channels, added: Added, ctx: Context, images: Sequence[Tensor]
) -> Saliency:
    """Score sets by a registered criterion.

    Raises:
        PassError: it returns something else than a finite score of each channel.
    """
    total, members = np.zeros(channels.count), np.zeros(channels.count)
    criterion, factors, nodes = find_criterion(added), norm_factors(gm), first_calls(gm)
    for slot in channels.slots:
        module, node = get_attribute(gm, slot.target), nodes.get(slot.target)
        if node is None or slot.side == "in" or not isinstance(module, _ConvNd | nn.Linear):
            continue
        rows = rows_of_weight(module, len(slot.ids), factors.get(slot.target)).flatten(1)
        norm = find_norm(gm, node)
        layer = ScoredLayer(slot.target, node, module, rows, norm, gm, ctx, images)
        with torch.no_grad():
            scores = torch.as_tensor(criterion.score(layer)).detach().double().flatten()
        if len(scores) != len(slot.ids) or not scores.isfinite().all():
            raise PassError(
                f"criterion {added.name!r} of {added.origin} must return {len(slot.ids)} finite "
                f"scores for {slot.target}, not {list(scores.shape)} such as {scores[:3].tolist()}"
            )
        np.add.at(total, slot.ids, (scores / scores.abs().mean().clamp(min=1e-30)).numpy())
        np.add.at(members, slot.ids, 1)
    scored: Saliency = total / np.maximum(members, 1)
    return scored


def first_calls(gm: fx.GraphModule) -> dict[str, fx.Node]:
    """Return the first call of each module, by its path."""
    found: dict[str, fx.Node] = {}
    for node in gm.graph.nodes:
        if node.op == "call_module":
            found.setdefault(str(node.target), node)
    return found


def find_norm(gm: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the batch norm that reads a node, or None."""
    readers = (call(gm, user, _NormBase) for user in node.users)
    return next((found.module for found in readers if found is not None), None)
