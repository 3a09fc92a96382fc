"""Round the weights of a graph to codes of variable length within a number of bytes.

One price on bits is for the whole graph (`yqc.quant.weights.rice_layer`). It is first found for
weights that are rounded to nearest, whose entropy is known for a few prices after one walk over few
images. Then layers are rounded in graph order, each against inputs from the layers rounded before,
and the price follows what the codes of the layers so far have taken, so that the last layer ends at
the bytes that are allowed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx, nn

from yqc.errors import PassError
from yqc.graph import Call
from yqc.progress import Progress
from yqc.quant.weights.rice import START, Planes, choose_low, code_network, packed_size
from yqc.quant.weights.rice_layer import (
    SLOPE,
    RiceSteps,
    RiceWeight,
    by_row,
    channel_factors,
    conditional_variance,
    round_rice,
)
from yqc.quant.weights.rounding import InputMoments
from yqc.quant.weights.statistics import InputStatistics
from yqc.quantizing.weights.inputs import LayerInputs, NewWeight, statistics_from_batch_norms
from yqc.quantizing.weights.rounder import RoundingSettings, positions_of

ESTIMATE_IMAGES = 16
"""Images of the first walk: variances of inputs from few images rank prices as well as from all;
time grows in proportion."""
GRID = torch.arange(-12.0, 12.0, 0.5).tolist()
"""Prices whose steps are tried for the estimate, in powers of two from the price of about four
bits: each is a quarter of a bit. Twice as far apart, layers end an eighth of a bit from the best
step, which costs less than 1 % of damage."""
SAMPLE = 1 << 16
"""Weights of a layer that the estimate looks at, whole rows, at most; time grows in proportion."""
FOUR_BITS = 4.0
"""Deviations of the weights in steps at four bits of entropy: log2(4) + 2 for a normal
distribution."""
PRIOR = 0.03
"""Share of the weights by which the estimate counts beside the layers rounded so far. Less follows
the first, small layers too closely, more leaves an error of the estimate to the last ones."""
MARGIN = 0.0005
"""Share of the bytes that a walk leaves free, since the last layers end it only about there."""
WALKS = 4
"""Walks at most; the second one ends within 0.1 % as a rule."""


@dataclass(frozen=True)
class RiceLayer:
    """One rounded layer."""

    weight: RiceWeight
    bias: Tensor | None
    """float32 [R]."""
    error: float
    """Squared error of the output relative to its variance, by the inputs' moments."""
    damage: float | None
    """Error weighted by relevance, over all positions; None if relevance is not known."""
    bits: float
    """Bits of its codes with the planes that were known when it was rounded."""


@dataclass(frozen=True)
class RiceCoding:
    """Rounded layers with their codes."""

    layers: dict[fx.Node, RiceLayer]
    planes: Planes
    low: dict[fx.Node, int]
    """The Rice parameter of each."""
    rounded: bool = True
    """Whether they were rounded by their inputs, and not to nearest for a draft."""

    @property
    def bytes(self) -> int:
        """Bytes of the codes of all layers."""
        return sum(
            packed_size(layer.weight.counts, self.low[node], self.planes)
            for node, layer in self.layers.items()
        )

    @property
    def count(self) -> int:
        """How many weights."""
        return sum(layer.weight.levels.numel() for layer in self.layers.values())

    @classmethod
    def of(cls, layers: dict[fx.Node, RiceLayer]) -> "RiceCoding":
        """Choose planes and Rice parameters for rounded layers."""
        planes, lows = code_network([layer.weight.counts for layer in layers.values()])
        return cls(layers, planes, dict(zip(layers, lows, strict=True)))


@dataclass(frozen=True)
class StepChoices:
    """What the steps that are tried do to one layer, rounded to nearest."""

    steps: list[float]
    """From fine to coarse."""
    damage: Tensor
    """float64 [steps]."""
    counts: list[Tensor]
    """How often each rank occurs in the sampled rows."""
    share: float
    """Weights of the layer a sampled one stands for."""

    @classmethod
    def of(cls, w: Tensor, rule: RiceSteps, variance: Tensor, centre: float) -> "StepChoices":
        """Try steps on weights [R, C] whose inputs have conditional variances [B, C]."""
        stride = max(1, w.numel() // SAMPLE)
        weight = rule.relevance[::stride].unsqueeze(1) * by_row(variance, len(w))[::stride]
        steps, counts, damage = [rule.step(2.0 ** (centre + at)) for at in GRID], [], []
        share = w.numel() / w[::stride].numel()
        some = replace(rule, exponents=rule.exponents[::stride])
        for step in steps:
            made = some.nearest(w[::stride], step)
            counts.append(made.counts)
            error = (made.weight - w[::stride]).square_().mul_(weight)
            damage.append(share * float(error.sum()))
        return cls(steps, torch.tensor(damage).double(), counts, share)

    def bits(self, planes: Planes | None) -> Tensor:
        """Return the bits of the layer at each step: float64 [steps]; by entropy without planes."""
        sizes = [_entropy(c) if planes is None else choose_low(c, planes)[1] for c in self.counts]
        return self.share * torch.tensor(sizes).double()


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
        self.centre = _centre(self.rules, rows)
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
        for _ in range(WALKS):
            coding = RiceCoding.of(self._walk(8 * aim))
            self.planes = coding.planes
            self.progress.note(f"{coding.bytes} bytes of codes; {size} are allowed")
            if coding.bytes <= size:
                return coding
            aim *= (size / coding.bytes) * (1 - MARGIN)
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

        def work(
            node: fx.Node, conv: nn.Conv2d, seen: InputStatistics, relevance: Tensor | None
        ) -> NewWeight:
            nonlocal left, spent, expected
            price = self._price(waiting, left * expected / spent)
            made = layers[node] = self._round_one(node, conv, seen, relevance, price)
            expected += self._bits_at([node], price)
            spent, left = spent + made.bits, left - made.bits
            waiting.remove(node)
            return made.weight.weight, made.bias

        if self.inputs is not None:
            self.inputs.walk(work, "rounding weights")
            return layers
        statistics = statistics_from_batch_norms(self.gm, self.convs)
        with self.progress.task("rounding weights", len(self.convs)) as advance:
            for conv, seen in zip(self.convs, statistics, strict=True):
                work(conv.node, conv.module, seen, None)
                advance(1)
        return layers

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


def _centre(steps: dict[fx.Node, RiceSteps], rows: dict[fx.Node, Tensor]) -> float:
    """Return the binary logarithm of the price at which weights take about four bits."""
    total, weights = 0.0, 0
    for node, one in steps.items():
        w = rows[node]
        deviation = float((w / channel_factors(one.exponents).unsqueeze(1)).square().mean().sqrt())
        step = max(deviation, 1e-20) / FOUR_BITS
        total += w.numel() * math.log2(SLOPE * one.mean * step * step)
        weights += w.numel()
    return total / weights


def _entropy(counts: Tensor) -> float:
    """Return the bits of integers by the counts of their ranks, each on its own (order 0)."""
    counts = counts[counts > 0].double()
    return float((counts * (counts.sum() / counts).log2()).sum())
