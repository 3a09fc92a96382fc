"""Inputs of chosen convolutions: on calibration images, or by the batch norms before them.

Inputs are sampled at output positions by their relevance (`yqc.quant.weights.sampling`); that is
measured once, however often the graph is walked.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor, fx, nn

from yqc.errors import PassError
from yqc.facts import OutputForm
from yqc.graph import Call, last_uses
from yqc.graph.compare import fingerprint
from yqc.graph.memory import batched
from yqc.graph.values import TensorSpec
from yqc.pipeline.base import Cache, Pause, Workload
from yqc.progress import Progress, Stage
from yqc.quant.weights.sampling import OutputSamples
from yqc.quant.weights.statistics import InputStatistics, StatisticsCollector
from yqc.quantizing.distribution import follow_distributions
from yqc.quantizing.relevance import measure_node_relevance
from yqc.quantizing.weights.walk import TwinWalk

MEMORY = 1_200_000_000
"""Bytes that values of all images may take while they wait for their readers. It limits the number
of images; half of it halves them at large input sizes."""
PER_COLUMN = 16
"""Samples of a layer's inputs for each column of its weight. A covariance of C columns takes a few
times C samples to be better than its ridge; more take time in proportion."""
FEWEST, MOST = 8192, 32768
"""Limits of the samples of a layer's inputs."""
NEIGHBOURS = 0.7
"""Correlation of a channel's pixels within a kernel, assumed where there is no data. With 0 pixels
are independent, with 1 the covariance has no inverse."""

BASE = 100
"""Columns that a layer of none would take as long as. With 0 small layers look like no work, with
1000 large ones like all others (layers of YOLOv8n: a second for 27 columns, 12 for 1152)."""
RELEVANCE, FIRST_WALK, ROUNDING = 1.3, 2.3e-4, 1.0e-3
"""How long the tasks take (YOLOv8n at 320 px): relevance in times of finding an image's objects,
the walks in seconds a column."""

NewWeight = tuple[Tensor, "Tensor | None"]
LayerWork = Callable[[fx.Node, nn.Conv2d, InputStatistics, "Tensor | None"], "NewWeight | None"]
"""Takes a convolution, its inputs' statistics and its outputs' relevance; returns a new weight, or
None."""
KnownWeight = Callable[[fx.Node, nn.Conv2d], "NewWeight | None"]
"""Takes a convolution; returns its rounded weight if that is known already."""


def foresee_rounding(
    work: Workload, first: str = "measuring sensitivities"
) -> tuple[Stage, Stage, Stage]:
    """Foresee the tasks of rounding weights by images; `first` is the label of the first walk."""
    return (
        Stage("measuring relevance", RELEVANCE * work.forward * work.images),
        Stage(first, FIRST_WALK * work.columns),
        Stage("rounding weights", ROUNDING * work.columns),
    )


class LayerInputs:
    """Calibration images, and the inputs of chosen convolutions on them.

    The float graph is only read; convolutions are in graph order, images float16 or float32
    [1, 3, H, W] each. The form is that of the graph's outputs, None if it is no detector's.
    """

    def __init__(
        self,
        gm: fx.GraphModule,
        convs: Sequence[Call[nn.Conv2d]],
        images: Sequence[Tensor],
        form: OutputForm | None,
        progress: Progress,
        seed: int = 0,
        cache: Cache | None = None,
    ) -> None:
        self.cache = cache
        self.gm, self.chosen = gm, {conv.node: conv for conv in convs}
        self.batches, self.count = batched(gm, images), len(images)
        self.form, self.progress, self.seed = form, progress, seed

    def samples_of(self, node: fx.Node) -> int:
        """Return how many positions of an image are sampled for a convolution."""
        columns = self.chosen[node].module.weight[0].numel()
        return math.ceil(min(max(PER_COLUMN * columns, FEWEST), MOST) / self.count)

    @cached_property
    def samples(self) -> dict[fx.Node, OutputSamples]:
        """Sampled positions of each convolution's outputs, with their relevance."""
        generators = [torch.Generator().manual_seed(self.seed) for _ in range(2)]
        found = {node: OutputSamples() for node in self.chosen}
        name = "" if self.cache is None else self._name_samples()
        done = 0 if self.cache is None else restore_samples(self.cache, name, found, generators)
        images = (batch.float() for batch in self.batches[done:])
        measured = measure_node_relevance(
            self.gm, found, images, self.form, self.seed, generators[0]
        )
        pause = Pause()
        with self.progress.task("measuring relevance", len(self.batches)) as advance:
            advance(done)
            for number, batch in enumerate(measured, start=done + 1):
                for node, (_, relevance) in batch.items():
                    found[node].add(relevance.flatten(2), self.samples_of(node), generators[1])
                batch.clear()  # free it before the next one is computed
                last = number == len(self.batches)
                if self.cache is not None and (pause.is_over() or last):
                    with pause.measured():
                        save_samples(self.cache, name, found, generators, number)
                advance(1)
        return found

    def _name_samples(self) -> str:
        """Name the entry of the samples in the cache."""
        nodes = " ".join(node.name for node in self.chosen)
        about = f"{fingerprint(self.gm)} {nodes} {self.count} {self.form} {self.seed}"
        return f"samples-{hashlib.blake2b(about.encode(), digest_size=8).hexdigest()}"

    def walk(
        self,
        work: LayerWork,
        label: str,
        known: KnownWeight | None = None,
        batches: int | None = None,
        skip: Callable[[fx.Node], bool] = lambda _: False,
    ) -> None:
        """Send images through the graph and do some work at every chosen convolution.

        Args:
            work: called at each convolution, in graph order; the weight and bias that it returns
                replace the convolution's for the nodes that follow.
            label: of the progress bar.
            known: called first; where it returns a weight, no statistics are gathered.
            batches: number of batches to send; all of them if None.
            skip: returns whether nothing is to be done at a convolution.

        Raises:
            PassError: an input of a convolution is not finite.
        """
        some, samples = self.batches[:batches], self.samples
        sizes = {node: BASE + one.module.weight[0].numel() for node, one in self.chosen.items()}
        with self.progress.task(label, sum(sizes.values())) as advance:

            def visit(
                node: fx.Node, conv: nn.Conv2d, plain: list[Tensor], rounded: list[Tensor]
            ) -> NewWeight | None:
                if node not in self.chosen:
                    return None
                if skip(node):
                    advance(sizes[node])
                    return None
                new = known(node, conv) if known else None
                if new is None:
                    collector = StatisticsCollector(conv)
                    sampled = samples[node].positions, samples[node].weights
                    for batch in zip(plain, rounded, *sampled, strict=False):
                        collector.add(*batch)
                    seen = collector.result()
                    if not (seen.covariance.isfinite().all() and seen.cross.isfinite().all()):
                        raise PassError(
                            f"the inputs of {node} are not finite on the calibration images; the "
                            "checkpoint is damaged, or its training diverged"
                        )
                    new = work(node, conv, seen, samples[node].relevance)
                advance(sizes[node])
                return new

            TwinWalk(self.gm, some, torch.float16).run(list(self.chosen)[-1], visit)


def save_samples(
    cache: Cache,
    name: str,
    found: Mapping[fx.Node, OutputSamples],
    generators: Sequence[torch.Generator],
    done: int,
) -> None:
    """Keep the samples of the first `done` batches, and the states of the generators."""
    tensors = {f"generator.{i}": g.get_state() for i, g in enumerate(generators)}
    for node, one in found.items():
        tensors[f"{node.name}.relevance"] = one.relevance
        for number, (at, weight) in enumerate(zip(one.positions, one.weights, strict=True)):
            tensors |= {f"{node.name}.at.{number}": at, f"{node.name}.weight.{number}": weight}
    cache.save(name, tensors, {"done": done})


def restore_samples(
    cache: Cache,
    name: str,
    found: Mapping[fx.Node, OutputSamples],
    generators: Sequence[torch.Generator],
) -> int:
    """Undo `save_samples`; return the number of batches, 0 if nothing is kept."""
    if (kept := cache.load(name)) is None:
        return 0
    tensors, about = kept
    done = int(about["done"])
    for number, generator in enumerate(generators):
        generator.set_state(tensors[f"generator.{number}"])
    for node, one in found.items():
        one.relevance, one.seen = tensors[f"{node.name}.relevance"], done
        one.positions[:] = [tensors[f"{node.name}.at.{i}"] for i in range(done)]
        one.weights[:] = [tensors[f"{node.name}.weight.{i}"] for i in range(done)]
    return done


def statistics_from_batch_norms(
    gm: fx.GraphModule, convs: Sequence[Call[nn.Conv2d]]
) -> Iterator[InputStatistics]:
    """Yield the statistics of convolutions' inputs that follow from the batch norms before them."""
    known = follow_distributions(gm)
    for conv in convs:
        source = known.get(conv.node.all_input_nodes[0])
        groups, columns = conv.module.groups, conv.module.weight[0].numel()
        kernel = conv.module.weight[0, 0].numel()
        if source is None:
            mean, variance = torch.zeros(groups, columns), torch.ones(groups, columns)
        else:
            both = (source.mean, source.deviation.square().clamp(min=1e-12))
            mean, variance = (t.repeat_interleave(kernel).view(groups, -1) for t in both)
        covariance = torch.stack([correlated_covariance(v, kernel) for v in variance])
        yield InputStatistics(covariance, torch.zeros_like(covariance), mean, mean, 0)


def correlated_covariance(variance: Tensor, kernel: int) -> Tensor:
    """Return a covariance [C, C] in which a channel's pixels within a kernel are correlated."""
    block = torch.full((kernel, kernel), NEIGHBOURS)
    block.fill_diagonal_(1.0)
    mixed = torch.kron(torch.eye(len(variance) // kernel), block)
    root = variance.sqrt()
    return mixed * root.unsqueeze(1) * root.unsqueeze(0)


def affordable_images(gm: fx.GraphModule, memory: int = MEMORY) -> int:
    """Return for how many images a walk's values fit into memory, from the graph's shapes."""
    alive: dict[fx.Node, int] = {}
    peak, finished = 1, last_uses(gm.graph.nodes)
    for node in gm.graph.nodes:
        spec = node.meta.get("yqc.value")
        if isinstance(spec, TensorSpec) and node.op != "get_attr":
            alive[node] = 2 * 2 * math.prod(spec.shape)  # two graphs, two bytes a value
        peak = max(peak, sum(alive.values()))
        for source in finished[node]:
            alive.pop(source, None)
    return max(1, memory // peak)
