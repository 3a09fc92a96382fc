"""Rounding all layers of a graph, each against what is rounded already."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, fx, nn

from yqc.graph import Call
from yqc.graph.values import TensorSpec
from yqc.progress import Progress
from yqc.quant.weights.layer import round_layer
from yqc.quant.weights.rounded import Keeper, Outcome
from yqc.quant.weights.rounding import Moments
from yqc.quant.weights.scheme import Rounding, Scheme
from yqc.quantizing.weights.inputs import Gathered, New, Sight, told
from yqc.quantizing.weights.walk import Statistics


@dataclass(frozen=True)
class Settings:
    """How layers are rounded."""

    rounding: Rounding = "gptq"
    damp: float = 0.01
    """Share of the mean diagonal that is added to the moments before rounding."""
    trust: float = 0.75
    """Share of the correction for earlier layers' errors that is applied."""
    caution: float = 0.1
    """Damping of that correction."""


@dataclass
class Rounder:
    """Rounds the chosen convolutions of a graph.

    Args:
        gm: the float graph; it is only read.
        convs: the convolutions, in graph order.
        plan: how each is to be stored.
        settings: how they are rounded.
        progress: shown a layer at a time.
        keeper: where rounded layers are kept and found again.
    """

    gm: fx.GraphModule
    convs: Sequence[Call[nn.Conv2d]]
    plan: dict[fx.Node, Scheme]
    settings: Settings
    progress: Progress
    keeper: Keeper | None = None
    outcomes: dict[fx.Node, Outcome] = field(default_factory=dict)

    def with_data(self, sight: Sight) -> dict[fx.Node, Outcome]:
        """Round with what calibration images show, in graph order.

        Args:
            sight: of the same graph and convolutions.
        """

        def work(node: fx.Node, conv: nn.Conv2d, seen: Statistics, worth: Tensor | None) -> New:
            outcome = self.one(node, conv, seen, worth)
            if self.keeper:
                self.keeper.save(node, outcome)
            return outcome.rounded.weight, outcome.bias

        sight.walk(work, "rounding weights", self._kept)
        return self.outcomes

    def _kept(self, node: fx.Node, conv: nn.Conv2d) -> New | None:
        """Return a layer that was rounded before a kill."""
        if self.keeper is None:
            return None
        kept = self.keeper.load(node, self.plan[node], tuple(conv.weight.shape))
        if kept is None:
            return None
        self.outcomes[node] = kept
        return kept.rounded.weight, kept.bias

    def with_statistics(self, gathered: Gathered) -> dict[fx.Node, Outcome]:
        """Round every layer for itself, by statistics that were gathered before."""
        with self.progress.task("rounding weights", len(self.convs)) as advance:
            for conv in self.convs:
                self.one(conv.node, conv.module, *gathered[conv.node])
                advance(1)
        return self.outcomes

    def without_data(self) -> dict[fx.Node, Outcome]:
        """Round with what the batch norms tell of the inputs, each layer for itself."""
        with self.progress.task("rounding weights", len(self.convs)) as advance:
            for conv, seen in zip(self.convs, told(self.gm, self.convs), strict=True):
                self.one(conv.node, conv.module, seen, None)
                advance(1)
        return self.outcomes

    def one(
        self, node: fx.Node, conv: nn.Conv2d, seen: Statistics, worth: Tensor | None
    ) -> Outcome:
        """Round one layer and keep the outcome."""
        settings = self.settings
        w = conv.weight.detach().flatten(1)
        moments = seen.damped(settings.damp)
        target = w
        if settings.rounding in {"gptq", "adaround"}:
            target = seen.target(w, seen.damped(settings.caution), settings.trust)
        rounded = round_layer(
            target, moments, self.plan[node], settings.rounding, tuple(conv.weight.shape), worth
        )
        q = rounded.grid.values(rounded.levels)
        bias = conv.bias if settings.rounding == "nearest" else seen.bias(w, q, conv.bias)
        plain = Moments(seen.covariance)
        signal, noise = plain.errors(w).clamp(min=1e-30), plain.errors(w - q).clamp(min=0)
        self.outcomes[node] = Outcome(
            rounded,
            None if bias is None else bias.detach().clone(),
            float(noise.sum() / signal.sum()),
            signal.sqrt(),
            worth,
            None if worth is None else float((noise * worth).sum() * places(node)),
        )
        return self.outcomes[node]


def places(node: fx.Node) -> int:
    """Return how many places a convolution's output map has; 1 if its shape is not known."""
    value = node.meta.get("yqc.value")
    return value.shape[2] * value.shape[3] if isinstance(value, TensorSpec) else 1
