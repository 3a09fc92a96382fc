"""Round all layers of a graph, each against inputs from the layers that are rounded already."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, fx, nn

from yqc.graph import Call
from yqc.graph.compare import fingerprint
from yqc.graph.values import TensorSpec
from yqc.pipeline.base import Cache
from yqc.progress import Progress
from yqc.quant.weights.layer import round_weight
from yqc.quant.weights.rounded import RoundedLayer
from yqc.quant.weights.rounding import InputMoments
from yqc.quant.weights.scheme import Rounding, Scheme
from yqc.quant.weights.statistics import InputStatistics
from yqc.quantizing.weights.inputs import LayerInputs, NewWeight, statistics_from_batch_norms


@dataclass(frozen=True)
class RoundingSettings:
    """How layers are rounded."""

    rounding: Rounding = "gptq"
    damp: float = 0.01
    """Share of the mean diagonal that is added to the moments before rounding, as in GPTQ."""
    trust: float = 0.75
    """Share of the correction for earlier layers' errors that is applied. With 0 errors add up from
    layer to layer; with 1 layers fit the noise of the sampled inputs."""
    caution: float = 0.1
    """Damping of that correction. More of it weakens the correction where inputs vary little, less
    of it fits noise there."""


@dataclass
class Rounder:
    """Rounds the chosen convolutions of a graph."""

    gm: fx.GraphModule
    """The float graph; it is only read."""
    convs: Sequence[Call[nn.Conv2d]]
    """In graph order."""
    plan: dict[fx.Node, Scheme]
    settings: RoundingSettings
    progress: Progress
    cache: Cache | None = None
    """Of the compile: rounded layers are kept there, one entry each, and found again."""
    layers: dict[fx.Node, RoundedLayer] = field(default_factory=dict)

    def with_data(self, inputs: LayerInputs) -> dict[fx.Node, RoundedLayer]:
        """Round by the inputs of the same convolutions on calibration images, in graph order."""

        def work(
            node: fx.Node, conv: nn.Conv2d, seen: InputStatistics, relevance: Tensor | None
        ) -> NewWeight:
            layer = self.round_one(node, conv, seen, relevance)
            if self.cache:
                self.cache.save(f"{prefix}-{node.name}", *layer.to_parts())
            return layer.rounded.weight, layer.bias

        def stored(node: fx.Node, conv: nn.Conv2d) -> NewWeight | None:
            """Return a layer that was rounded before an interruption."""
            kept = self.cache.load(f"{prefix}-{node.name}") if self.cache else None
            if kept is None:
                return None
            shape = tuple(conv.weight.shape)
            layer = self.layers[node] = RoundedLayer.from_parts(*kept, self.plan[node], shape)
            return layer.rounded.weight, layer.bias

        prefix = self.cache_prefix() if self.cache else ""
        inputs.walk(work, "rounding weights", stored)
        return self.layers

    def cache_prefix(self) -> str:
        """Begin the names of the cache's entries by a hash of graph, plan and settings."""
        plan = sorted((node.name, str(scheme)) for node, scheme in self.plan.items())
        about = f"{fingerprint(self.gm)} {plan} {self.settings}"
        return f"rounded-{hashlib.blake2b(about.encode(), digest_size=8).hexdigest()}"

    def without_data(self) -> dict[fx.Node, RoundedLayer]:
        """Round every layer on its own, by statistics that follow from the batch norms."""
        statistics = statistics_from_batch_norms(self.gm, self.convs)
        with self.progress.task("rounding weights", len(self.convs)) as advance:
            for conv, seen in zip(self.convs, statistics, strict=True):
                self.round_one(conv.node, conv.module, seen, None)
                advance(1)
        return self.layers

    def round_one(
        self, node: fx.Node, conv: nn.Conv2d, seen: InputStatistics, relevance: Tensor | None
    ) -> RoundedLayer:
        """Round one layer, keep and return it."""
        settings = self.settings
        w = conv.weight.detach().flatten(1)
        moments = seen.damped(settings.damp)
        target = w
        if settings.rounding in {"gptq", "adaround"}:
            target = seen.corrected(w, seen.damped(settings.caution), settings.trust)
        rounded = round_weight(
            target, moments, self.plan[node], settings.rounding, tuple(conv.weight.shape), relevance
        )
        q = rounded.grid.values(rounded.levels)
        bias = conv.bias if settings.rounding == "nearest" else seen.bias(w, q, conv.bias)
        plain = InputMoments(seen.covariance)
        signal, noise = plain.errors(w).clamp(min=1e-30), plain.errors(w - q).clamp(min=0)
        self.layers[node] = RoundedLayer(
            rounded,
            None if bias is None else bias.detach().clone(),
            float(noise.sum() / signal.sum()),
            signal.sqrt(),
            relevance,
            None if relevance is None else float((noise * relevance).sum() * positions_of(node)),
        )
        return self.layers[node]


def positions_of(node: fx.Node) -> int:
    """Return the number of positions of a convolution's output; 1 if its shape is not known."""
    value = node.meta.get("yqc.value")
    return value.shape[2] * value.shape[3] if isinstance(value, TensorSpec) else 1
