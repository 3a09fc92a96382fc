"""What a pass is, what a recipe is, and the context that both work in."""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from yqc.facts import OutputForm
from yqc.pipeline.options import check_options, format_item
from yqc.pipeline.records import Records, Rewrite
from yqc.pipeline.space import Space
from yqc.progress import Progress, Silent, Stage
from yqc.targets import DecodeForm, Target, find_target

if TYPE_CHECKING:  # torch takes seconds to import, and listing passes must not
    import networkx as nx
    from torch import Tensor, fx

JUDGES = 32
"""Calibration images, the first, on which the agreement of two graphs is judged, at most.

Half of them judge in half the time, by half as many detections; double was not measured.
"""


class Cache(Protocol):
    """Keeps what an interrupted compile needs to go on; see `yqc.job.work`."""

    def load(self, name: str) -> "tuple[dict[str, Tensor], dict[str, Any]] | None":
        """Return the tensors and plain values kept under a name, or None."""
        ...

    def save(self, name: str, tensors: "dict[str, Tensor]", about: "dict[str, Any]") -> None:
        """Keep tensors and plain values under a name, whole or not at all."""
        ...


PAUSE = 15.0
"""Shortest time between two savings of unfinished work, in seconds. Half of it loses less work when
a process is killed; double writes half as much to the disk."""
LONGEST = 45.0
"""Longest time: with what a saving itself takes, a kill loses less than a minute."""


@dataclass
class Pause:
    """The time between two savings of unfinished work: ten times what a saving takes.

    It is between `PAUSE` and `LONGEST` seconds.
    """

    _last: float = field(default_factory=time.monotonic)
    _took: float = 0.0

    def is_over(self) -> bool:
        """Return whether it is time to save again."""
        return time.monotonic() - self._last >= max(PAUSE, min(LONGEST, 10 * self._took))

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Take the time of a saving."""
        began = time.monotonic()
        yield
        self._last = time.monotonic()
        self._took = self._last - began


@dataclass(frozen=True)
class Workload:
    """Sizes by which passes foresee their times."""

    images: int
    """Calibration images; 0 without data."""
    judged: int
    """Those among them on which agreement is measured."""
    forward: float
    """Seconds to find the objects of an image with the float model, on the machine of reference."""
    columns: int
    """Columns of all convolutions' weights (inputs times area of the kernel), 100 more for each."""


@dataclass
class Context:
    """What passes are given beside the graph, and where they record what they do.

    Every argument has a default, so `Context()` is enough to run one pass by hand.
    """

    example: "Tensor | None" = None
    """Example input, float32 [1,3,H,W] in 0..1: the first calibration image, or seeded noise."""
    calibration: Callable[[], Iterable["Tensor"]] | None = None
    """Starts a new stream of calibration images, float32 [1,3,H,W] in 0..1; None without data."""
    original: "fx.GraphModule | None" = None
    """The float graph as it was traced; not to be changed. None when a pass is run by hand."""
    train: "tuple[Path, ...]" = ()
    """All training images that may be learned from."""
    agreement: "Callable[[fx.GraphModule], float | None] | None" = None
    """AP at IoU 0.5 of a graph against `original` on calibration images; None without data.

    It returns None where `original` finds nothing in these images.
    """
    costliest: "Callable[[fx.GraphModule, int], tuple[str, ...]] | None" = None
    """Paths of the so many convolutions whose quantization alone costs most; None by hand."""
    form: OutputForm | None = None
    """What the graph's outputs are; None for a graph that is no YOLO model's."""
    cache: Cache | None = None
    """Where long work leaves what it needs to go on after a kill; None when that is not asked."""
    device: str = "cpu"
    seed: int = 0
    target: str = "onnxruntime"
    """Name of the target to compile for; `rules` has what it wants."""
    decode: DecodeForm = "full"
    """How much of the decoding stays in the file: `full`, `scores` or `raw`."""
    progress: Progress = field(default_factory=Silent)
    upcoming: tuple[str, ...] = ()
    """Names of the passes after this one, in order: those of its `reads_upcoming`."""
    records: Records = field(default_factory=Records, repr=False)
    """What passes recorded so far; the pipeline's."""

    @property
    def rules(self) -> Target:
        """What the target wants of a file."""
        return find_target(self.target)

    def rewrote(self, node: "fx.Node", what: str) -> None:
        """Record that `node` was rewritten, and what became of it: call it after each rewrite."""
        self.records.rewrote(node, what)

    def skipped(self, node: "fx.Node", why: str) -> None:
        """Record that a pass looked at `node`, a near-match, and left it alone."""
        self.records.skips.append((node.name, why))

    def measured(self, node: "fx.Node", **numbers: float) -> None:
        """Record named numbers of a node, such as `error=0.02`; the report keeps them as they are.

        Raises:
            PassError: one is not finite, or no number.
        """
        self.records.measured(node, numbers)

    def images(self, gm: "fx.GraphModule", count: int = 8) -> "Iterator[Tensor]":
        """Yield the first calibration images, float32 [1, C, H, W]; noise where there are none."""
        from yqc.graph.noise import make_noise  # noqa: PLC0415  # torch takes seconds to import

        stream = self.calibration() if self.calibration else make_noise(gm, self.seed)
        return islice(stream, count)

    def outputs(
        self, gm: "fx.GraphModule", nodes: "Sequence[fx.Node]", images: int = 8
    ) -> "Iterator[dict[fx.Node, Any]]":
        """Yield what nodes compute for each of the first calibration images, copied."""
        from yqc.pipeline.layer_values import watch_outputs  # noqa: PLC0415

        return watch_outputs(gm, nodes, self.images(gm, images))

    def inputs(
        self, gm: "fx.GraphModule", nodes: "Sequence[fx.Node]", images: int = 8
    ) -> "Iterator[dict[fx.Node, Any]]":
        """Yield the first input of nodes for each of the first calibration images, copied."""
        sources = {node: node.all_input_nodes[0] for node in nodes}
        for found in self.outputs(gm, list(dict.fromkeys(sources.values())), images):
            yield {node: found[source] for node, source in sources.items()}

    def gradients(
        self, gm: "fx.GraphModule", nodes: "Sequence[fx.Node]", images: int = 8
    ) -> "Iterator[dict[fx.Node, Tensor]]":
        """Yield, for each image, the gradients of a label-free loss by what nodes compute.

        The loss is a random projection of the detections. The mean of the squared gradient over
        images is the relevance of a value: the squared change of the detections per squared change
        of the value, in the units of `yqc.quant.relevance`.
        """
        from yqc.pipeline.layer_values import watch_gradients  # noqa: PLC0415

        return watch_gradients(gm, nodes, self.images(gm, images), self.form, self.seed)

    def says(self, sentence: str) -> None:
        """Record what the pass did as a whole; the report shows it beside the pass."""
        self.records.says.append(sentence)

    def warn(self, sentence: str) -> None:
        """Record what the user must know or act on; the report shows it among the warnings."""
        if sentence not in self.records.warnings:
            self.records.warnings.append(sentence)

    def chose(self, action: "Pass") -> None:
        """Record the pass with the options that it chose itself, so that it can be repeated."""
        self.records.chosen = action

    @property
    def rewrites(self) -> list[Rewrite]:
        """The rewrites of all passes so far."""
        return self.records.rewrites

    @property
    def skips(self) -> list[tuple[str, str]]:
        """The refused near-matches of all passes so far: name of the node at fault, and why."""
        return self.records.skips

    @property
    def values(self) -> list[tuple[str, dict[str, float]]]:
        """The numbers that passes recorded so far: name of the node, and its numbers by name."""
        return self.records.values

    @property
    def warnings(self) -> list[str]:
        """The warnings of all passes so far."""
        return self.records.warnings

    def example_for(self, gm: "fx.GraphModule") -> "Tensor":
        """Return the example input, or noise in 0..1 from the seed, in the shape `gm` takes."""
        if self.example is not None:
            return self.example
        import torch  # noqa: PLC0415  # takes seconds, and listing passes must not

        value = next(n for n in gm.graph.nodes if n.op == "placeholder").meta["yqc.value"]
        return torch.rand(value.shape, generator=torch.Generator().manual_seed(self.seed))


class _Named(ABC):
    name: ClassVar[str]
    """What the pipeline text calls it."""

    def __post_init__(self) -> None:
        """Hold the options to their types and bounds; a pass that has this, too, calls it."""
        check_options(self, self.name)

    def __str__(self) -> str:
        return format_item(self.name, self)

    @classmethod
    def space(cls) -> Space | None:
        """Return where `yqc tune` may put the pass, and with which options; None: nowhere."""
        return None

    @classmethod
    def summary(cls) -> str:
        """Return what the pass does: the first line of its module's docstring, or of its own."""
        doc = sys.modules[cls.__module__].__doc__ or ""
        first = doc.strip().partition("\n")[0]
        if first.startswith(f"{cls.name}:"):
            return first.removeprefix(f"{cls.name}:").strip()
        return (cls.__doc__ or "").strip().partition("\n")[0]


class Pass(_Named):
    """One rewrite of a graph. A pass is a frozen dataclass; its fields are its options.

    What a graph is known to be is a set of states: those of `yqc.State`, and any other words. The
    pipeline checks the order of passes by them before it runs.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    """States without which the pass cannot run."""
    excludes: ClassVar[frozenset[str]] = frozenset()
    """States in which the pass cannot run, or has nothing to work on."""
    provides: ClassVar[frozenset[str]] = frozenset()
    """States that the graph has after it."""
    removes: ClassVar[frozenset[str]] = frozenset()
    """States that the graph has no longer after it."""
    keeps_numbers: ClassVar[bool] = False
    """The graph computes the same before and after, up to float rounding; this is checked."""
    tolerance: ClassVar[float | None] = None
    """Largest change of the graph's outputs that the pass may make, as a share of the largest
    output; more is an error. None: any change may be made, unless the numbers are kept."""
    trains: ClassVar[bool] = False
    """It can work on the device that is asked for; the other passes work on the CPU."""
    needs_images: ClassVar[bool] = False
    """It cannot do anything without data; this is checked before any work starts."""

    reads_upcoming: ClassVar[frozenset[str]] = frozenset()
    """Names of passes that decide, by coming later, what it does: `ctx.upcoming` has those alone,
    and the pass is not run again in a pipeline that goes on in another way."""
    reads_images: ClassVar[bool] = False
    """It reads calibration images where there are some; too few are refused before any work."""

    @abstractmethod
    def run(self, gm: "fx.GraphModule", ctx: Context) -> None:
        """Rewrite `gm` in place."""

    once: ClassVar[bool] = False
    """Of several in a pipeline only the last runs, where the earlier ones come from recipes."""

    def needs(self) -> frozenset[str]:
        """Return what this pass, with these options, requires."""
        return self.requires

    def explain(self, gm: "fx.GraphModule", ctx: Context) -> list[str] | None:
        """Describe what the pass would do to `gm`, one line each; None: it is run to find out."""
        return None

    def foresee(self, work: Workload) -> Sequence[Stage]:
        """Return the tasks that the pass will show, in order, and how long each will take.

        They are those that take long; the seconds are those on one machine, see `yqc.progress`.
        """
        return ()

    def drawing(self, gm: "fx.GraphModule", ctx: Context) -> "nx.Graph[str] | None":
        """Return a networkx graph of what the pass looks at, or None."""
        return None


@dataclass(frozen=True)
class Given:
    """What a recipe knows when it expands."""

    target: str = "onnxruntime"
    has_data: bool = False
    """Whether there are calibration images."""
    can_train: bool = False
    """Whether there are training images and a float original to learn from."""

    @property
    def rules(self) -> Target:
        """What the target wants of a file."""
        return find_target(self.target)


class Recipe(_Named):
    """A name for a sequence of passes. A frozen dataclass too; its fields are its options."""

    @abstractmethod
    def expand(self, given: Given) -> str:
        """Return the pipeline text that the recipe stands for."""
