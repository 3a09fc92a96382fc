"""What a pass is, what a recipe is, and the context that both work in."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args

from yqc.pipeline.options import show
from yqc.progress import Progress, Silent

if TYPE_CHECKING:  # torch takes seconds to import, and listing passes must not
    from torch import Tensor, fx

Target = Literal["generic", "ort", "openvino", "tensorrt"]
TARGETS: tuple[Target, ...] = get_args(Target)
JUDGES = 32
"""So many of the calibration images, the first, at most tell the agreement of two graphs."""


@dataclass(frozen=True)
class Rewrite:
    """One rewrite that a pass made."""

    node: str
    """Name of the node that was rewritten."""
    what: str
    """What became of it."""
    where: str
    """File name and line that recorded it, `fold_bn.py:34`."""
    by: str = ""
    """Name of the pass that was running."""
    made: tuple[str, ...] = ()
    """Names of the nodes that are new since the rewrite before: what this one made."""


class Cache(Protocol):
    """Keeps what an interrupted compile needs to go on; see `yqc.job.cache`."""

    def load(self, name: str) -> "tuple[dict[str, Tensor], dict[str, Any]] | None":
        """Return the tensors and plain values kept under a name, or None."""
        ...

    def save(self, name: str, tensors: "dict[str, Tensor]", about: "dict[str, Any]") -> None:
        """Keep tensors and plain values under a name, whole or not at all."""
        ...


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
    layout: Literal["yolov5", "yolov8", "end2end"] | None = None
    """How a detector's output is laid out; None for any other graph."""
    cache: Cache | None = None
    """Where long work leaves what it needs to go on after a kill; None when that is not asked."""
    device: str = "cpu"
    seed: int = 0
    target: Target = "generic"
    """The runtime to compile for."""
    progress: Progress = field(default_factory=Silent)
    rewrites: list[Rewrite] = field(default_factory=list)
    skips: list[tuple[str, str]] = field(default_factory=list)
    """Near-matches that were refused: name of the node at fault, and why."""
    warnings: list[str] = field(default_factory=list)
    left: dict[str, Any] = field(default_factory=dict)
    """What a pass has measured and a later one wants, too; it measures it again where it is not."""
    running: str = ""
    """Name of the pass that is running."""
    upcoming: tuple[str, ...] = ()
    """Names of the passes that the pipeline runs after this one, in order."""
    settled: "Pass | None" = None
    """The running pass as it can be run again with the same result, where it chose options."""
    _known: "tuple[fx.Graph, set[fx.Node]] | None" = None

    def watch(self, graph: "fx.Graph") -> None:
        """Take note of the nodes that a graph has, so that `rewrote` knows which are new."""
        self._known = graph, set(graph.nodes)

    def rewrote(self, node: "fx.Node", what: str) -> None:
        """Record that `node` was rewritten, and what became of it: call it after each rewrite."""
        caller = sys._getframe(1)  # noqa: SLF001  # inspect.stack reads source files: too slow here
        where = f"{caller.f_code.co_filename.rpartition('/')[2]}:{caller.f_lineno}"
        self.rewrites.append(Rewrite(node.name, what, where, self.running, self._new(node.graph)))

    def _new(self, graph: "fx.Graph") -> tuple[str, ...]:
        """Name the nodes that were not there at the last call, and take note of them."""
        if self._known is None or self._known[0] is not graph:
            return ()
        known = self._known[1]
        new = [node for node in graph.nodes if node not in known]
        known.update(new)
        return tuple(node.name for node in new)

    def skipped(self, node: "fx.Node", why: str) -> None:
        """Record that a pass looked at `node`, a near-match, and left it alone."""
        self.skips.append((node.name, why))

    def example_for(self, gm: "fx.GraphModule") -> "Tensor":
        """Return the example input, or noise in 0..1 from the seed, in the shape `gm` takes."""
        if self.example is not None:
            return self.example
        import torch  # noqa: PLC0415  # takes seconds, and listing passes must not

        value = next(n for n in gm.graph.nodes if n.op == "placeholder").meta["yqc.value"]
        return torch.rand(value.shape, generator=torch.Generator().manual_seed(self.seed))

    def warn(self, message: str) -> None:
        """Record a sentence that the user should read in the report."""
        if message not in self.warnings:
            self.warnings.append(message)


class _Named(ABC):
    name: ClassVar[str]
    """What the pipeline text calls it."""

    def __str__(self) -> str:
        return show(self.name, self)

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

    What a graph is known to be (`bn-folded`, `calibrated`, ...) is a set of words. A pass states
    what it `requires`, `provides` and `removes`; the pipeline checks the order before it runs.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    provides: ClassVar[frozenset[str]] = frozenset()
    removes: ClassVar[frozenset[str]] = frozenset()
    keeps_numbers: ClassVar[bool] = False
    """The graph computes the same before and after, up to float rounding; this is checked."""
    trains: ClassVar[bool] = False
    """It can work on the device that is asked for; the other passes work on the CPU."""
    needs_images: ClassVar[bool] = False
    """It cannot do anything without data; this is checked before any work starts."""

    @abstractmethod
    def run(self, gm: "fx.GraphModule", ctx: Context) -> None:
        """Rewrite `gm` in place."""

    def needs(self) -> frozenset[str]:
        """Return what this pass, with these options, requires."""
        return self.requires


class Recipe(_Named):
    """A name for a sequence of passes. A frozen dataclass too; its fields are its options."""

    @abstractmethod
    def expand(self) -> str:
        """Return the pipeline text that the recipe stands for."""
