"""What the convolutions of a graph see on calibration images, gathered in one walk over the graph.

Samples of a layer's inputs are taken where the output matters most to the detections (`stakes`);
that is measured once, however often the graph is walked.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor, fx, nn

from yqc.errors import PassError
from yqc.graph import Call
from yqc.graph.memory import batched
from yqc.graph.values import TensorSpec
from yqc.progress import Progress
from yqc.quant.relevance import Layout
from yqc.quant.weights.sampling import Stakes, stakes
from yqc.quantizing.distribution import follow
from yqc.quantizing.weights.walk import Collector, Statistics, Walk

MEMORY = 1_200_000_000
"""Bytes that values of all images may take while they wait for their readers."""
PER_COLUMN = 16
"""Samples of a layer's inputs for each column of its weight."""
FEWEST, MOST = 8192, 32768
NEIGHBOURS = 0.7
"""Correlation of a channel's pixels within a kernel, where there is no data to tell."""

New = tuple[Tensor, "Tensor | None"]
"""A weight and a bias."""
Work = Callable[[fx.Node, nn.Conv2d, Statistics, "Tensor | None"], "New | None"]
"""Gets a convolution, its inputs' statistics and its outputs' worth; may return how to round it."""
Known = Callable[[fx.Node, nn.Conv2d], "New | None"]
"""Gets a convolution; returns how it is rounded if that is known already."""
Gathered = dict[fx.Node, "tuple[Statistics, Tensor | None]"]
"""The statistics of each layer's inputs, and what its outputs are worth."""


class Sight:
    """Calibration images, and what chosen convolutions see of them.

    Args:
        gm: the float graph; it is only read.
        convs: the convolutions, in graph order.
        images: float16 or float32 [1, 3, H, W] each.
        layout: how the graph's output is laid out, None if it is no detector's.
        progress: shown a layer at a time.
        seed: of samples.
    """

    def __init__(
        self,
        gm: fx.GraphModule,
        convs: Sequence[Call[nn.Conv2d]],
        images: Sequence[Tensor],
        layout: Layout | None,
        progress: Progress,
        seed: int = 0,
    ) -> None:
        self.gm, self.chosen = gm, {conv.node: conv for conv in convs}
        self.batches, self.count = batched(gm, images), len(images)
        self.layout, self.progress, self.seed = layout, progress, seed

    def samples(self, node: fx.Node) -> int:
        """Return how many positions of an image are sampled for a convolution."""
        columns = self.chosen[node].module.weight[0].numel()
        return math.ceil(min(max(PER_COLUMN * columns, FEWEST), MOST) / self.count)

    @cached_property
    def stakes(self) -> dict[fx.Node, Stakes]:
        """What the outputs of each convolution are worth, and where it is sampled."""
        with self.progress.task("weighing what matters", len(self.batches)) as advance:

            def counted() -> Iterator[Tensor]:
                for batch in self.batches:
                    yield batch
                    advance(1)

            nodes = list(self.chosen)
            return stakes(self.gm, nodes, counted(), self.layout, self.samples, self.seed)

    def walk(
        self, work: Work, label: str, known: Known | None = None, batches: int | None = None
    ) -> None:
        """Send images through the graph and do some work at every chosen convolution.

        Args:
            work: called at each convolution, in graph order; what it returns takes the place of the
                convolution's weight and bias for what follows.
            label: for people.
            known: asked first; where it answers, nothing is gathered.
            batches: how many of the batches to send; all of them if None.

        Raises:
            PassError: what a convolution sees is not finite.
        """
        some, worths = self.batches[:batches], self.stakes
        with self.progress.task(label, len(self.chosen)) as advance:

            def visit(
                node: fx.Node, conv: nn.Conv2d, plain: list[Tensor], rounded: list[Tensor]
            ) -> New | None:
                if node not in self.chosen:
                    return None
                new = known(node, conv) if known else None
                if new is None:
                    seen = collected(conv, plain, rounded, worths[node])
                    if not (seen.covariance.isfinite().all() and seen.cross.isfinite().all()):
                        raise PassError(
                            f"the inputs of {node} are not finite on the calibration images; the "
                            "checkpoint is damaged, or its training diverged"
                        )
                    new = work(node, conv, seen, worths[node].energy)
                advance(1)
                return new

            Walk(self.gm, some, torch.float16).run(list(self.chosen)[-1], visit)

    def statistics(self, batches: int | None = None) -> Gathered:
        """Gather what every convolution sees in the float graph."""
        found: Gathered = {}

        def keep(node: fx.Node, _: nn.Conv2d, seen: Statistics, worth: Tensor | None) -> New | None:
            found[node] = seen, worth
            return None

        self.walk(keep, "gathering statistics", batches=batches)
        return found


def collected(
    conv: nn.Conv2d, plain: Sequence[Tensor], rounded: Sequence[Tensor], known: Stakes
) -> Statistics:
    """Return the statistics of a convolution's inputs, of both graphs, a batch at a time."""
    collector = Collector(conv)
    for i, (x, other) in enumerate(zip(plain, rounded, strict=True)):
        collector.add(x, other, known.positions[i], known.weights[i])
    return collector.result()


def told(gm: fx.GraphModule, convs: Sequence[Call[nn.Conv2d]]) -> Iterator[Statistics]:
    """Tell what convolutions see by the batch norms before them, where there are no images."""
    known = follow(gm)
    for conv in convs:
        source = known.get(conv.node.all_input_nodes[0])
        groups, columns = conv.module.groups, conv.module.weight[0].numel()
        kernel = conv.module.weight[0, 0].numel()
        if source is None:
            mean, variance = torch.zeros(groups, columns), torch.ones(groups, columns)
        else:
            both = (source.mean, source.deviation.square().clamp(min=1e-12))
            mean, variance = (t.repeat_interleave(kernel).view(groups, -1) for t in both)
        covariance = torch.stack([neighbours(v, kernel) for v in variance])
        yield Statistics(covariance, torch.zeros_like(covariance), mean, mean, 0)


def neighbours(variance: Tensor, kernel: int) -> Tensor:
    """Return a covariance [C, C] in which a channel's pixels within a kernel are alike."""
    block = torch.full((kernel, kernel), NEIGHBOURS)
    block.fill_diagonal_(1.0)
    mixed = torch.kron(torch.eye(len(variance) // kernel), block)
    root = variance.sqrt()
    return mixed * root.unsqueeze(1) * root.unsqueeze(0)


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
