"""Round the weights of a graph to codes of variable length within a number of bytes.

One price on bits is for the whole graph (`yqc.quant.weights.rice_layer`). It is first found for
weights that are rounded to nearest, whose entropy is known for a few prices after one walk over few
images. Then layers are rounded in graph order, each against inputs from the layers rounded before,
and the price follows what the codes of the layers so far have taken, so that the last layer ends at
the bytes that are allowed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx, nn

from yqc.errors import PassError
from yqc.graph import Call
from yqc.graph.compare import fingerprint
from yqc.pipeline.base import Cache
from yqc.progress import Progress
from yqc.quant.weights.rice import START, Planes, choose_low
from yqc.quant.weights.rice_layer import (
    RiceSteps,
    RiceWeight,
    conditional_variance,
    round_rice,
)
from yqc.quant.weights.rounding import InputMoments
from yqc.quant.weights.statistics import InputStatistics
from yqc.quantizing.weights.inputs import LayerInputs, NewWeight, statistics_from_batch_norms
from yqc.quantizing.weights.rice_coding import RiceCoding, RiceLayer
from yqc.quantizing.weights.rice_steps import GRID, StepChoices, middle_price
from yqc.quantizing.weights.rounder import RoundingSettings, positions_of

ESTIMATE_IMAGES = 16
"""Images of the first walk: variances of inputs from few images rank prices as well as from all;
time grows in proportion."""
PRIOR = 0.03
"""Share of the weights by which the estimate counts beside the layers rounded so far. Less follows
the first, small layers too closely, more leaves an error of the estimate to the last ones."""
MARGIN = 0.0005
"""Share of the bytes that a walk leaves free, since the last layers end it only about there."""
WALKS = 6
"""Walks at most; the second one ends within 0.1 % as a rule. Each leaves twice as much free as the
one before: of small nets two walks differ by 0.2 % though their aims do by less."""


@dataclass
class RiceRounder:
    """Rounds the chosen convolutions of a graph to codes of variable length."""

    gm: fx.GraphModule
    """The float graph; it is only read."""
    convs: Sequence[Call[nn.Conv2d]]
    """In graph order."""
    settings: RoundingSettings
    progress: Progress
    inputs: LayerInputs | None
    """Their inputs on calibration images; None: by the batch norms before them."""
    cache: Cache | None = None
    """Of the compile: rounded layers are kept there, one entry each, and found again."""
    rules: dict[fx.Node, RiceSteps] = field(default_factory=dict)
    choices: dict[fx.Node, StepChoices] = field(default_factory=dict)
    bits: dict[fx.Node, Tensor] = field(default_factory=dict)
    """Estimated bits of each layer at each of its steps."""
    planes: Planes = START
    centre: float = 0.0
    """Binary logarithm of the price at the middle of the grid."""

    def estimate(self) -> None:
        """Measure what each layer takes at each price, on the float graph."""
        variances: dict[fx.Node, Tensor] = {}

        def measure(
            node: fx.Node, conv: nn.Conv2d, seen: InputStatistics, relevance: Tensor | None
        ) -> NewWeight | None:
            w, moments = conv.weight.detach().flatten(1), seen.damped(self.settings.damp)
            v = self._relevance(node, w, moments, relevance)
            variances[node] = conditional_variance(moments)
            self.rules[node] = RiceSteps.of(w, v, variances[node])
            return None

        if self.inputs is None:
            for conv, seen in zip(
                self.convs, statistics_from_batch_norms(self.gm, self.convs), strict=True
            ):
                measure(conv.node, conv.module, seen, None)
        else:
            batches = max(1, ESTIMATE_IMAGES // len(self.inputs.batches[0]))
            self.inputs.walk(measure, "measuring inputs", batches=batches)
        rows = {c.node: c.module.weight.detach().flatten(1) for c in self.convs}
        self.centre = middle_price(self.rules, rows)
        for node, rule in self.rules.items():
            made = StepChoices.of(rows[node], rule, variances[node], self.centre)
            self.choices[node], self.bits[node] = made, made.bits(None)

    def nearest(self, size: int) -> RiceCoding:
        """Round all layers to nearest, at the price at which they take about `size` bytes.

        Planes are found for them by turns, and the estimates follow the planes.
        """
        for _ in range(2):
            price = self._price(list(self.bits), 8.0 * size)
            layers = {}
            for conv in self.convs:
                w, node = conv.module.weight.detach(), conv.node
                made = self.rules[node].nearest(w.flatten(1), self._step(node, price))
                weight = RiceWeight(tuple(w.shape), made.levels, made.scale, made.exponents)
                bias = conv.module.bias
                kept = None if bias is None else bias.detach().clone()
                layers[node] = RiceLayer(weight, kept, 0.0, None, 0.0)
            coding = RiceCoding.of(layers)
            self.planes = coding.planes
            self.bits = {node: one.bits(self.planes) for node, one in self.choices.items()}
        return replace(coding, rounded=False)

    def round(self, size: int) -> RiceCoding:
        """Round all layers so that their codes take at most `size` bytes.

        Raises:
            PassError: the codes cannot be as short as that.
        """
        self.nearest(size)  # finds planes for this size
        aim = size * (1 - MARGIN)
        for turn in range(WALKS):
            coding = RiceCoding.of(self._walk(8 * aim))
            self.planes = coding.planes
            self.progress.note(f"{coding.bytes} bytes of codes; {size} are allowed")
            if coding.bytes <= size:
                return coding
            # The first walk had the planes of weights rounded to nearest, the next has its own.
            aim = size if turn == 0 else aim * size / coding.bytes
            aim *= 1 - MARGIN * 2 ** (turn + 1)
        raise PassError(
            f"the codes of the weights take {coding.bytes} bytes, and the budget leaves {size}; "
            "allow more bytes, or prune first"
        )

    def _walk(self, bits: float) -> dict[fx.Node, RiceLayer]:
        """Round the layers in graph order so that their codes end at a number of bits."""
        layers: dict[fx.Node, RiceLayer] = {}
        waiting = [conv.node for conv in self.convs]
        spent = expected = PRIOR * bits
        left = bits
        prefix = self._cache_prefix(bits)

        def work(
            node: fx.Node, conv: nn.Conv2d, seen: InputStatistics, relevance: Tensor | None
        ) -> NewWeight:
            price = self._price(waiting, left * expected / spent)
            made = self._round_one(node, conv, seen, relevance, price)
            if self.cache:
                self.cache.save(f"{prefix}-{node.name}", *made.to_parts())
            return take(node, made)

        def stored(node: fx.Node, _: nn.Conv2d) -> NewWeight | None:
            """Return a layer that was rounded before an interruption."""
            kept = self.cache.load(f"{prefix}-{node.name}") if self.cache else None
            return None if kept is None else take(node, RiceLayer.from_parts(*kept))

        def take(node: fx.Node, made: RiceLayer) -> NewWeight:
            nonlocal left, spent, expected
            layers[node] = made
            expected += self._bits_at([node], made.price)
            spent, left = spent + made.bits, left - made.bits
            waiting.remove(node)
            return made.weight.weight, made.bias

        if self.inputs is not None:
            self.inputs.walk(work, "rounding weights", stored)
            return layers
        statistics = statistics_from_batch_norms(self.gm, self.convs)
        with self.progress.task("rounding weights", len(self.convs)) as advance:
            for conv, seen in zip(self.convs, statistics, strict=True):
                work(conv.node, conv.module, seen, None)
                advance(1)
        return layers

    def _cache_prefix(self, bits: float) -> str:
        """Begin the names of the cache's entries by a hash of what decides the layers."""
        if self.cache is None:
            return ""
        images = 0 if self.inputs is None else self.inputs.count
        nodes = " ".join(conv.node.name for conv in self.convs)
        about = f"{fingerprint(self.gm)} {nodes} {self.settings} {images} {bits!r} {self.planes}"
        return f"rice-{hashlib.blake2b(about.encode(), digest_size=8).hexdigest()}"

    def _round_one(
        self,
        node: fx.Node,
        conv: nn.Conv2d,
        seen: InputStatistics,
        relevance: Tensor | None,
        price: float,
    ) -> RiceLayer:
        settings, w = self.settings, conv.weight.detach().flatten(1)
        moments = seen.damped(settings.damp)
        target = seen.corrected(w, seen.damped(settings.caution), settings.trust)
        v = self._relevance(node, w, moments, relevance)
        weight = round_rice(
            target,
            moments,
            v,
            price,
            self._step(node, price),
            self.planes,
            tuple(conv.weight.shape),
        )
        q = weight.weight.flatten(1)
        bias = seen.bias(w, q, conv.bias)
        plain = InputMoments(seen.covariance)
        signal, noise = plain.errors(w).clamp(min=1e-30), plain.errors(w - q).clamp(min=0)
        return RiceLayer(
            weight,
            None if bias is None else bias.detach().clone(),
            float(noise.sum() / signal.sum()),
            None if relevance is None else float((noise * relevance).sum() * positions_of(node)),
            choose_low(weight.counts, self.planes)[1],
            price,
        )

    def _relevance(
        self, node: fx.Node, w: Tensor, moments: InputMoments, relevance: Tensor | None
    ) -> Tensor:
        """Return the relevance of each channel [R], times positions.

        Where it is not known, layers count alike: by the error relative to the output's variance.
        """
        if relevance is not None:
            return relevance * positions_of(node)
        return torch.full((len(w),), 1 / max(float(moments.errors(w).sum()), 1e-30))

    def _choice(self, node: fx.Node, price: float) -> int:
        """Return which step of a layer has the least damage plus price times bits."""
        return int((self.choices[node].damage + price * self.bits[node]).argmin())

    def _step(self, node: fx.Node, price: float) -> float:
        return self.choices[node].steps[self._choice(node, price)]

    def _bits_at(self, nodes: Sequence[fx.Node], price: float) -> float:
        """Return the estimated bits of layers at a price."""
        return sum(float(self.bits[node][self._choice(node, price)]) for node in nodes)

    def _price(self, nodes: Sequence[fx.Node], bits: float) -> float:
        """Return the price at which layers take a number of bits, by the estimate."""
        low, high = self.centre + GRID[0], self.centre + GRID[-1]
        damage = torch.stack([self.choices[node].damage for node in nodes])
        sizes = torch.stack([self.bits[node] for node in nodes])
        for _ in range(20):
            middle = (low + high) / 2
            best = (damage + 2.0**middle * sizes).argmin(1, keepdim=True)
            fits = float(sizes.gather(1, best).sum()) <= bits
            low, high = (low, middle) if fits else (middle, high)
        return float(2.0**high)
