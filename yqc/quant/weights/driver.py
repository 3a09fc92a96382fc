"""All layers of a graph: what they see is gathered, and each is rounded in graph order."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from yqc.errors import PassError
from yqc.graph import Call
from yqc.graph.values import TensorSpec
from yqc.progress import Progress
from yqc.quant.datafree import REACH, follow
from yqc.quant.weights.allocate import Options, measure
from yqc.quant.weights.grid import Grid
from yqc.quant.weights.layer import Rounded, round_layer
from yqc.quant.weights.scheme import Rounding, Scheme
from yqc.quant.weights.solve import Moments
from yqc.quant.weights.stakes import Stakes, evenly, stakes
from yqc.quant.weights.walk import Collector, Statistics, Walk

MEMORY = 1_200_000_000
"""Bytes that values of all images may take while they wait for their readers."""
PER_COLUMN = 16
"""Samples of a layer's inputs for each column of its weight."""
FEWEST, MOST = 8192, 65536
NEIGHBOURS = 0.7
"""Correlation of a channel's pixels within a kernel, where there is no data to tell."""


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
    weighted: bool = True
    """Whether samples count by what they matter to the detections."""


@dataclass(frozen=True)
class Outcome:
    """One rounded layer."""

    rounded: Rounded
    bias: Tensor | None
    """float32 [R]."""
    error: float
    """Squared error of the output relative to its variance, as the moments tell it."""
    deviation: Tensor
    """Standard deviation of each output channel, float32 [R]."""
    worth: Tensor | None = None
    """Mean squared derivative of what is detected by each output channel, float32 [R]."""

    def parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and plain values that `restored` makes this outcome of."""
        grid = self.rounded.grid
        optional = {"bias": self.bias, "worth": self.worth, "zero": grid.zero, "table": grid.table}
        tensors = {
            "levels": self.rounded.levels.to(torch.int16),
            "scale": grid.scale,
            "deviation": self.deviation,
        }
        tensors |= {name: t for name, t in optional.items() if t is not None}
        return tensors, {"error": self.error, "block": grid.block, "levels": grid.levels}

    @classmethod
    def restored(
        cls, kept: dict[str, Tensor], about: dict[str, Any], scheme: Scheme, shape: tuple[int, ...]
    ) -> "Outcome":
        """Undo `parts`."""
        zero, table = kept.get("zero"), kept.get("table")
        grid = Grid(kept["scale"], int(about["block"]), int(about["levels"]), zero, table)
        levels = kept["levels"].float() if table is None else kept["levels"].long()
        rounded = Rounded(scheme, shape, levels, grid)
        deviation, error = kept["deviation"], float(about["error"])
        return cls(rounded, kept.get("bias"), error, deviation, kept.get("worth"))


class Keeper(Protocol):
    """Keeps rounded layers over a kill."""

    def load(self, node: fx.Node, scheme: Scheme, shape: tuple[int, ...]) -> Outcome | None:
        """Return a layer that was rounded before."""
        ...

    def save(self, node: fx.Node, outcome: Outcome) -> None:
        """Keep a rounded layer."""
        ...


Work = Callable[[fx.Node, nn.Conv2d, Statistics, "Tensor | None"], "Outcome | None"]
"""Gets a convolution, its inputs' statistics and its outputs' worth; may return how to round it."""

Gathered = dict[fx.Node, "tuple[Statistics, Tensor | None]"]
"""The statistics of each layer's inputs, and what its outputs are worth."""


@dataclass
class Rounder:
    """Rounds the chosen convolutions of a graph.

    Args:
        gm: the float graph; it is only read.
        convs: the convolutions, in graph order.
        plan: how each is to be stored.
        settings: how they are rounded.
        progress: shown a layer at a time.
        seed: of samples and signs.
        keeper: where rounded layers are kept and found again.
    """

    gm: fx.GraphModule
    convs: Sequence[Call[nn.Conv2d]]
    plan: dict[fx.Node, Scheme]
    settings: Settings
    progress: Progress
    seed: int = 0
    keeper: Keeper | None = None
    outcomes: dict[fx.Node, Outcome] = field(default_factory=dict)

    def with_data(self, images: Sequence[Tensor]) -> dict[fx.Node, Outcome]:
        """Round with what calibration images show.

        Args:
            images: float16 or float32 [1, 3, H, W] each.
        """
        self._walk(images, self.one, "rounding weights")
        return self.outcomes

    def _walk(self, images: Sequence[Tensor], work: Work, label: str) -> None:
        """Send images through the graph and do some work at every chosen convolution."""
        generator = torch.Generator().manual_seed(self.seed)
        batches = batched(self.gm, images)
        chosen = {conv.node: conv for conv in self.convs}

        def samples(node: fx.Node) -> int:
            columns = chosen[node].module.weight[0].numel()
            wanted = min(max(PER_COLUMN * columns, FEWEST), MOST)
            return math.ceil(wanted / len(images))

        known: dict[fx.Node, Stakes] = {}
        if self.settings.weighted:
            with self.progress.task("weighing what matters", len(batches)) as advance:
                known = stakes(self.gm, chosen, _counted(batches, advance), samples, generator)
        with self.progress.task(label, len(chosen)) as advance:

            def visit(
                node: fx.Node, conv: nn.Conv2d, plain: list[Tensor], rounded: list[Tensor]
            ) -> tuple[Tensor, Tensor | None] | None:
                if node not in chosen:
                    return None
                outcome = self._kept(node, conv) if work == self.one else None
                if outcome is None:
                    collector = Collector(conv)
                    for i, (x, other) in enumerate(zip(plain, rounded, strict=True)):
                        if node in known:
                            at, weight = known[node].positions[i], known[node].weights[i]
                        else:
                            shape = (len(x), *node.meta["yqc.value"].shape[1:])
                            at, weight = evenly(shape, samples(node), generator)
                        collector.add(x, other, at, weight)
                    worth = known[node].energy if node in known else None
                    seen = collector.result()
                    if not (seen.covariance.isfinite().all() and seen.cross.isfinite().all()):
                        raise PassError(
                            f"the inputs of {node} are not finite on the calibration images; the "
                            "checkpoint is damaged, or its training diverged"
                        )
                    outcome = work(node, conv, seen, worth)
                    if self.keeper and outcome:
                        self.keeper.save(node, outcome)
                advance(1)
                return (outcome.rounded.weight, outcome.bias) if outcome else None

            Walk(self.gm, batches, torch.float16).run(self.convs[-1].node, visit)

    def _kept(self, node: fx.Node, conv: nn.Conv2d) -> Outcome | None:
        """Return a layer that was rounded before a kill."""
        if self.keeper is None:
            return None
        kept = self.keeper.load(node, self.plan[node], tuple(conv.weight.shape))
        if kept:
            self.outcomes[node] = kept
        return kept

    def sensitivities(self, images: Sequence[Tensor]) -> list[Options]:
        """Measure what every scheme does to every layer, each for itself, on the float graph.

        Args:
            images: float16 or float32 [1, 3, H, W] each.
        """
        found: list[Options] = []

        def look(
            node: fx.Node, conv: nn.Conv2d, seen: Statistics, worth: Tensor | None
        ) -> Outcome | None:
            moments = seen.damped(self.settings.damp)
            found.append(measure(node, conv, seen.covariance, moments, worth))
            return None

        self._walk(images, look, "measuring sensitivities")
        return found

    def statistics(self, images: Sequence[Tensor]) -> "Gathered":
        """Gather what every layer sees in the float graph, to round with it more than once.

        Args:
            images: float16 or float32 [1, 3, H, W] each.
        """
        found: Gathered = {}

        def keep(
            node: fx.Node, _: nn.Conv2d, seen: Statistics, worth: Tensor | None
        ) -> Outcome | None:
            found[node] = seen, worth
            return None

        self._walk(images, keep, "gathering statistics")
        return found

    def with_statistics(self, gathered: "Gathered") -> dict[fx.Node, Outcome]:
        """Round every layer for itself, by statistics that were gathered before."""
        with self.progress.task("rounding weights", len(self.convs)) as advance:
            for conv in self.convs:
                self.one(conv.node, conv.module, *gathered[conv.node])
                advance(1)
        return self.outcomes

    def without_data(self) -> dict[fx.Node, Outcome]:
        """Round with what the batch norms tell of the inputs, each layer for itself."""
        known = follow(self.gm)
        with self.progress.task("rounding weights", len(self.convs)) as advance:
            for conv in self.convs:
                source = known.get(conv.node.all_input_nodes[0])
                groups, columns = conv.module.groups, conv.module.weight[0].numel()
                kernel = conv.module.weight[0, 0].numel()
                if source is None:
                    mean, variance = torch.zeros(groups, columns), torch.ones(groups, columns)
                else:
                    spread = ((source.high - source.low) / (2 * REACH)).square()
                    both = (source.mean, spread.clamp(min=1e-12))
                    mean, variance = (t.repeat_interleave(kernel).view(groups, -1) for t in both)
                covariance = torch.stack([neighbours(v, kernel) for v in variance])
                nothing = torch.zeros_like(covariance)
                self.one(
                    conv.node, conv.module, Statistics(covariance, nothing, mean, mean, 0), None
                )
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
        if settings.rounding == "gptq":
            target = seen.target(w, seen.damped(settings.caution), settings.trust)
        rounded = round_layer(
            target, moments, self.plan[node], settings.rounding, tuple(conv.weight.shape), worth
        )
        q = rounded.grid.values(rounded.levels)
        bias = conv.bias if settings.rounding == "nearest" else seen.bias(w, q, conv.bias)
        plain = Moments(seen.covariance)
        signal = plain.errors(w).clamp(min=1e-30)
        error = float(plain.errors(w - q).sum() / signal.sum())
        bias = None if bias is None else bias.detach().clone()
        self.outcomes[node] = Outcome(rounded, bias, error, signal.sqrt(), worth)
        return self.outcomes[node]


def neighbours(variance: Tensor, kernel: int) -> Tensor:
    """Return a covariance [C, C] in which a channel's pixels within a kernel are alike."""
    block = torch.full((kernel, kernel), NEIGHBOURS)
    block.fill_diagonal_(1.0)
    mixed = torch.kron(torch.eye(len(variance) // kernel), block)
    root = variance.sqrt()
    return mixed * root.unsqueeze(1) * root.unsqueeze(0)


def batched(
    gm: fx.GraphModule, images: Sequence[Tensor], memory: int = 500_000_000
) -> list[Tensor]:
    """Join images to batches whose values, kept for a backward pass, fit into some memory."""
    one = sum(
        4 * math.prod(spec.shape)
        for node in gm.graph.nodes
        if isinstance(spec := node.meta.get("yqc.value"), TensorSpec) and node.op != "get_attr"
    )
    size = max(1, min(8, memory // max(one, 1)))
    return [torch.cat(list(images[i : i + size])) for i in range(0, len(images), size)]


def affordable(gm: fx.GraphModule, memory: int = MEMORY) -> int:
    """Return for how many images a walk's values fit into memory, from the graph's shapes."""
    alive: dict[fx.Node, int] = {}
    left = {node: set(node.users) for node in gm.graph.nodes}
    peak = 1
    for node in gm.graph.nodes:
        spec = node.meta.get("yqc.value")
        if isinstance(spec, TensorSpec) and node.op != "get_attr":
            alive[node] = 2 * 2 * math.prod(spec.shape)  # two forms, two bytes
        peak = max(peak, sum(alive.values()))
        for source in node.all_input_nodes:
            left[source].discard(node)
            if not left[source]:
                alive.pop(source, None)
    return max(1, memory // peak)


def _counted(batches: Sequence[Tensor], advance: Callable[[int], None]) -> "Sequence[Tensor]":
    class Counting(Sequence[Tensor]):
        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, i: int) -> Tensor:  # type: ignore[override]
            if i:
                advance(1)
            return batches[i]

    return Counting()
