"""One pruning under way: a graph, its channels, saliency, and pruned copies to compare."""

import copy
import hashlib
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from torch import Tensor, fx, nn

from yqc.errors import PassError
from yqc.graph.channels.groups import dependencies, find_channels
from yqc.graph.channels.sets import ChannelBlock, Channels
from yqc.graph.compare import fingerprint
from yqc.graph.memory import as_weights, batched, channels_last
from yqc.graph.noise import image_shape, make_noise
from yqc.graph.values import list_specs
from yqc.pipeline import format_value
from yqc.pipeline.base import JUDGES, Context
from yqc.pruning.correction import Correction
from yqc.pruning.custom_scores import score_by_function
from yqc.pruning.gradient_scores import score_by_curvature, score_by_slope
from yqc.pruning.options import PruningOptions
from yqc.pruning.reconstruction_scores import score_by_reconstruction
from yqc.pruning.selection import (
    GroupLimits,
    Slice,
    cut_slices,
    keep_without,
    rank_within_groups,
    select_share,
)
from yqc.pruning.sizes import SizeCounter
from yqc.pruning.statistics import measure_moments, measure_relevance
from yqc.pruning.surgery import Keep, remove_channels
from yqc.pruning.weight_scores import (
    Saliency,
    score_by_bn_scale,
    score_by_magnitude,
    score_randomly,
)
from yqc.pruning.without_data import absorb_means
from yqc.registered import CRITERIA

IMAGES = 16
"""Largest number of images for covariances and correction. On a YOLOv8n of 320 px with 60 % of its
parameters removed, the agreement is 0.9996 with 16, 8 and 32; the time of a trial is proportional
to it."""
PROBED = 8
"""Number of these images from which gradients are taken. On the same model the distance of the head
is 0.0049; with half of them 0.0052, with double 0.0051."""
COMPARED = 4
"""Number of these images on which criteria are compared: their distances differ by a factor of 100
and more on the same model. More would only take longer."""
LANES = 16
"""Channels that AVX-512 processes at once, in float32. onnxruntime rearranges tensors whose number
of channels is no multiple of it, which takes longer than what is saved. Half of it is the width of
AVX2; double would allow fewer selections and gain nothing on these processors."""
LANES_DIVISORS = (2, 4, 8, 16)
"""Values of `round_to` that may be raised to `LANES` for speed."""
MEMORY = 2.5e9
"""Bytes of tensors that a correction may hold, estimated. Half of it corrects on fewer images where
these are large; double needs 5 GB, which small machines do not have."""


@dataclass(frozen=True)
class Trial:
    """A pruned and corrected copy of a graph; its nodes do not have their new shapes."""

    gm: fx.GraphModule
    keep: Keep
    removed: float
    error: float | None
    """Distance of the head's outputs from those of the whole graph, after correction."""


class PruningTask:
    """A graph and pruned copies of it; the graph itself stays as it is until `adopt`."""

    def __init__(self, gm: fx.GraphModule, ctx: Context, options: PruningOptions) -> None:
        self.gm, self.ctx, self.options = gm, ctx, options
        self.channels = pin_excluded(find_channels(gm), options.keep, options.only)
        self.sizes = SizeCounter(gm, self.channels, options.of)
        self._saliency: dict[str, Saliency] = {}

    @cached_property
    def images(self) -> tuple[Tensor, ...]:
        """Calibration images: as many as fit into memory, at most `IMAGES`.

        The first ones are left for the agreement where there are more. Without data, seeded noise;
        none for a graph that takes no images.
        """
        if self.ctx.calibration is None:
            return make_noise(self.gm, self.ctx.seed) if image_shape(self.gm) else ()
        count = max(4, min(IMAGES, int(MEMORY / estimate_bytes(self.gm))))
        return tuple(deque(islice(self.ctx.calibration(), JUDGES + count), maxlen=count))

    def pinned(self) -> list[tuple[fx.Node, str]]:
        """List the groups of channels that must stay: a node that makes them, and the reason."""
        return [(self.maker(block), block.pin) for block in self.channels.blocks if block.pin]

    def dependencies(self) -> list[str]:
        """List the dependencies of channels, one a line, with the reason beside what is pinned."""
        return dependencies(self.channels)

    def score(self, criterion: str) -> Saliency:
        """Score all sets; the lower, the sooner a set is removed. Scores are computed once."""
        if criterion not in self._saliency:
            self._saliency[criterion] = self._find_saliency(criterion)
        return self._saliency[criterion]

    def _find_saliency(self, criterion: str) -> Saliency:
        """Return a saliency that was kept before an interruption, or compute and keep it."""
        cache, name = self.ctx.cache, f"saliency-{criterion}-{self.hash}"
        if cache and (kept := cache.load(name)) is not None:
            return kept[0]["saliency"].numpy()
        with channels_last(self.gm):
            found = self._compute_saliency(criterion)
        if cache:
            cache.save(name, {"saliency": torch.from_numpy(found)}, {})
        return found

    @cached_property
    def hash(self) -> str:
        """Hash the graph and the options, for names in the cache."""
        if self.ctx.cache is None:
            return ""
        about = f"{fingerprint(self.gm)} {self.options}"
        return hashlib.blake2b(about.encode(), digest_size=8).hexdigest()

    def _compute_saliency(self, criterion: str) -> Saliency:
        gm, channels, seed = self.gm, self.channels, self.ctx.seed
        if criterion in {"l1", "l2"}:
            return score_by_magnitude(gm, channels, int(criterion[1]))
        if criterion == "bn-scale":
            return score_by_bn_scale(gm, channels)
        if criterion == "random":
            return score_randomly(channels, seed)
        images = [as_weights(image, gm) for image in self.images]
        some = images[:PROBED]
        if (added := CRITERIA.find(criterion)) is not None:
            return score_by_function(gm, channels, added, self.ctx, some)
        if criterion in {"taylor", "hessian"}:
            by_slope = criterion == "taylor"
            loss = (
                score_by_slope(gm, channels, some)
                if by_slope
                else score_by_curvature(gm, channels, some, seed)
            )
            return loss / self._saving
        moments = measure_moments(gm, channels, batched(gm, images), seed)
        relevance = measure_relevance(gm, channels, batched(gm, some), seed)
        return score_by_reconstruction(gm, channels, moments, relevance) / self._saving

    @cached_property
    def _saving(self) -> Saliency:
        """What removing each set saves; scores that are losses are divided by it."""
        saving = self.sizes.saving()
        least: Saliency = np.maximum(saving, saving.max(initial=1.0) * 1e-9)
        return least

    def slices(self, criterion: str, limits: GroupLimits | None = None) -> list[Slice]:
        """Return the removable slices of channels, the least salient first."""
        saliency, blocks = self.score(criterion), self.channels.blocks
        if self.options.scope == "layer":
            saliency = rank_within_groups(blocks, saliency)
        return cut_slices(blocks, saliency, limits or self.options.limits)

    def largest_share(self, limits: GroupLimits | None = None) -> float:
        """Return the largest share that can be removed."""
        nothing = np.zeros(self.channels.count)
        every = cut_slices(self.channels.blocks, nothing, limits or self.options.limits)
        return self.sizes.share_removed(keep_without(self.channels.count, every))

    def select(self, criterion: str, ratio: float) -> Keep:
        """Select what stays so that the share `ratio` is removed, as nearly as rounding allows.

        A share of multiply-accumulates is removed for speed: the channels that stay in a group are
        then a multiple of `LANES`, if the share can be reached so.

        Raises:
            PassError: that much cannot be removed; the message names the largest share.
        """
        limits = self.options.limits
        wide = replace(limits, round_to=LANES, small=0)
        for_speed = self.options.of == "macs" and limits.round_to in LANES_DIVISORS
        if for_speed and self.largest_share(wide) >= ratio:
            keep = select_share(self.sizes, self.slices(criterion, wide), ratio)
            if abs(self.sizes.share_removed(keep) - ratio) <= ratio / 100:
                return keep
        if self.largest_share() < ratio:
            limits = replace(limits, round_to=1)
            if (most := self.largest_share(limits)) < ratio:
                raise PassError(
                    f"ratio={ratio:g} of {self.options.of} is impossible: the highest possible is "
                    f"{math.floor(most * 1000) / 1000:g} ({self._explain_limit()})"
                )
        keep = select_share(self.sizes, self.slices(criterion, limits), ratio)
        reached = self.sizes.share_removed(keep)
        if abs(reached - ratio) > ratio / 100 and limits.round_to > 1:
            one = self.slices(criterion, replace(limits, round_to=1))
            finer = self.sizes.share_removed(select_share(self.sizes, one, ratio))
            self.ctx.warn(
                f"prune: rounding to {limits.round_to} channels reaches {reached:.3f} of "
                f"{self.options.of} instead of {ratio:g} (round_to=1 would reach {finer:.3f})"
            )
        return keep

    def select_nearest(self, criterion: str, share: float) -> Keep:
        """Select what stays so that about `share` is removed, as rounding allows."""
        return select_share(self.sizes, self.slices(criterion), share)

    def _explain_limit(self) -> str:
        limits, pinned = self.options.limits, sum(b.count for b in self.channels.blocks if b.pin)
        return (
            f"{pinned} of {self.channels.count} channel groups must stay, "
            f"max_per_layer={limits.max_per_layer:g}, min_channels={limits.min_channels}"
        )

    def try_removal(self, keep: Keep, *, images: int | None = None) -> Trial:
        """Prune a copy of the graph and correct it on at most `images` images."""
        pruned = copy.deepcopy(self.gm)
        remove_channels(pruned, self.channels, keep, shapes=False)
        cache = self.ctx.cache
        digest = hashlib.blake2b(keep.tobytes(), digest_size=8).hexdigest() if cache else ""
        name = f"trial-{self.hash}-{digest}-{images}"
        if cache and (kept := cache.load(name)) is not None:
            load_tensors(pruned, kept[0])
            return Trial(pruned, keep, self.sizes.share_removed(keep), kept[1]["error"])
        error = None
        if self.images and not keep.all():
            correction = Correction(self.gm, pruned, self.channels, keep, self.ctx.seed)
            with channels_last(self.gm, pruned):
                error = correction.run(as_weights(torch.cat(self.images[:images]), self.gm))
        elif not keep.all():
            absorb_means(self.gm, pruned, self.channels, keep)
        if cache:
            cache.save(name, pruned.state_dict(), {"error": error})
        return Trial(pruned, keep, self.sizes.share_removed(keep), error)

    def best_criterion(self, ratio: float) -> str:
        """Return the criterion whose trial comes closest to the graph as it is."""
        if not self.images:
            return "l2"
        criteria = ("reconstruction", "l2")
        trials = {
            c: self.try_removal(self.select_nearest(c, ratio), images=COMPARED) for c in criteria
        }
        return min(criteria, key=lambda c: trials[c].error or 0.0)

    def measure_agreement(self, trial: Trial) -> float | None:
        """Return the agreement of a trial with the float original, 0..1; None without data.

        Where detections cannot be compared, one minus the distance of the head's outputs.
        """
        found = None if self.ctx.agreement is None else self.ctx.agreement(trial.gm)
        if found is not None:
            return found
        if self.ctx.calibration is None or trial.error is None:
            return None
        return max(0.0, 1 - trial.error)

    def adopt(self, trial: Trial) -> list[tuple[fx.Node, str]]:
        """Turn the graph into a trial; return the nodes whose channels became fewer, and how."""
        gm, channels = self.gm, self.channels
        remove_channels(gm, channels, trial.keep)
        for path in {str(n.target) for n in gm.graph.nodes if n.op == "call_module"}:
            gm.set_submodule(path, trial.gm.get_submodule(path))
        left = [int(trial.keep[b.first : b.first + b.count].sum()) for b in channels.blocks]
        return [
            (self.maker(block), f"{block.count} channels -> {stay}")
            for block, stay in zip(channels.blocks, left, strict=True)
            if stay < block.count
        ]

    def maker(self, block: ChannelBlock) -> fx.Node:
        """Return a node that makes the channels of a group."""
        targets = {self.channels.slots[place].target for place, _ in block.places}
        nodes = self.gm.graph.nodes
        found = (n for n in nodes if n.op == "call_module" and str(n.target) in targets)
        return next(found, self.gm.graph.output_node())


def load_tensors(gm: fx.GraphModule, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors into a graph by name, also those that it had none for, such as new biases."""
    for name, tensor in tensors.items():
        path, _, attribute = name.rpartition(".")
        module = gm.get_submodule(path)
        if attribute in dict(module.named_buffers(recurse=False)):
            module.register_buffer(attribute, tensor)
            continue
        old = dict(module.named_parameters(recurse=False))
        trained = next(iter(old.values())).requires_grad if old else True
        trained = old[attribute].requires_grad if attribute in old else trained
        module.register_parameter(attribute, nn.Parameter(tensor, requires_grad=trained))


def pin_excluded(channels: Channels, keep: tuple[str, ...], only: tuple[str, ...]) -> Channels:
    """Pin the groups that patterns, module paths with * as a wildcard, exclude.

    Groups that a module of `keep` makes stay, and so do those that none of `only`, if given, makes.
    """
    if not keep and not only:
        return channels
    pins = list(channels.pins)
    blocks: list[ChannelBlock] = []
    for block in channels.blocks:
        slots = [channels.slots[place] for place, _ in block.places]
        makers = [s.target for s in slots if s.side != "in"]
        why = block.pin
        if not why and any(_matches(m, keep) for m in makers):
            why = f"keep={format_value(keep)} names it"
        if not why and only and not any(_matches(m, only) for m in makers):
            why = f"only={format_value(only)} does not name it"
        pins[block.first : block.first + block.count] = [why] * block.count
        blocks.append(replace(block, pin=why))
    return replace(channels, pins=tuple(pins), blocks=tuple(blocks))


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, p) or path.startswith(f"{p}.") for p in patterns)


def estimate_bytes(gm: fx.GraphModule) -> float:
    """Estimate the bytes of tensors that two runs of a graph hold at a time, for one image."""
    sizes = [
        math.prod(spec.shape) * 4
        for node in gm.graph.nodes
        for spec in list_specs(node.meta.get("yqc.value"))
    ]
    return 16.0 * max(sizes, default=1)
