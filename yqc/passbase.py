"""What a pass is, what a recipe is, and the context that both work in."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from yqc.options import show
from yqc.progress import Progress, Silent

if TYPE_CHECKING:  # torch takes seconds to import, and listing passes must not
    from torch import Tensor, fx

Target = Literal["generic", "ort", "openvino", "tensorrt"]
TARGETS: tuple[Target, ...] = get_args(Target)


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
    agreement: "Callable[[fx.GraphModule], float] | None" = None
    """AP at IoU 0.5 of a graph against `original` on calibration images; None without data."""
    device: str = "cpu"
    seed: int = 0
    target: Target = "generic"
    """The runtime to compile for."""
    progress: Progress = field(default_factory=Silent)
    rewrites: list[Rewrite] = field(default_factory=list)
    skips: list[tuple[str, str]] = field(default_factory=list)
    """Near-matches that were refused: name of the node at fault, and why."""
    warnings: list[str] = field(default_factory=list)
    running: str = ""
    """Name of the pass that is running."""

    def rewrote(self, node: "fx.Node", what: str) -> None:
        """Record that `node` was rewritten, and what became of it."""
        caller = sys._getframe(1)  # noqa: SLF001  # inspect.stack reads source files: too slow here
        where = f"{caller.f_code.co_filename.rpartition('/')[2]}:{caller.f_lineno}"
        self.rewrites.append(Rewrite(node.name, what, where, self.running))

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
