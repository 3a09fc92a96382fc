"""The functions of `yqc.testing`: trace, apply, run, compare."""

import difflib
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from yqc.graph import text
from yqc.graph.compare import max_abs_error
from yqc.models.trace import trace
from yqc.pipeline.base import Context, Pass
from yqc.pipeline.pipeline import Pipeline
from yqc.pipeline.step import Step
from yqc.pipeline.watchers import Verify
from yqc.testing import golden


@dataclass(frozen=True)
class Applied:
    """What a pass, or a pipeline, did to a graph."""

    context: Context
    steps: tuple[Step, ...]

    @property
    def rewrites(self) -> list[tuple[str, str]]:
        """Name of the node and what became of it, in order."""
        return [(r.node, r.what) for r in self.context.rewrites]

    @property
    def skips(self) -> list[tuple[str, str]]:
        """Name of the node at fault and why it was left alone, in order."""
        return list(self.context.skips)

    @property
    def changed(self) -> bool:
        """Whether a pass changed the graph, by its fingerprint."""
        return any(step.record.changed for step in self.steps)


def traced(net: nn.Module, shape: Sequence[int]) -> fx.GraphModule:
    """Trace a net in evaluation mode, for an input of a shape."""
    return trace(net.eval(), torch.zeros(*shape))


def images(gm: fx.GraphModule, count: int = 8, seed: int = 1) -> list[Tensor]:
    """Make seeded noise in 0..1, tensors of the shape that a graph takes."""
    value = next(n for n in gm.graph.nodes if n.op == "placeholder").meta["yqc.value"]
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(value.shape, generator=generator) for _ in range(count)]


def calibrated(gm: fx.GraphModule, count: int = 8) -> Context:
    """Make a context whose example and calibration images are seeded noise for a graph."""
    made = images(gm, count)
    return Context(example=made[0], calibration=lambda: made)


def run(gm: fx.GraphModule, seed: int = 0) -> list[Tensor]:
    """Run a graph on seeded noise in 0..1 of the shape that it takes; return its outputs."""
    with torch.no_grad():
        return _tensors(gm(*images(gm, 1, seed)))


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    items = output.values() if isinstance(output, dict) else output
    return [t for item in items for t in _tensors(item)] if isinstance(items, Sequence) else []


def apply(action: Pass | str, gm: fx.GraphModule, context: Context | None = None) -> Applied:
    """Run a pass, or the text of a pipeline, on a graph: verified, and tidied after every pass.

    Args:
        action: a pass, whose requirements need not be met, or a text such as `fold-bn,int8`.
        gm: the graph, changed in place.
        context: where the passes record; an empty one by default.

    Raises:
        PassError: a pass fails, leaves no legal graph, or does not keep the numbers as it declares.
    """
    ctx = context or Context()
    pipeline = Pipeline.parse(action) if isinstance(action, str) else Pipeline([action])
    known = frozenset() if isinstance(action, str) else action.needs()
    return Applied(ctx, tuple(pipeline.run(gm, ctx, [Verify()], known=known)))


def assert_text(gm: fx.GraphModule, expected: str | Path) -> None:
    """Assert that a graph prints as expected.

    Args:
        gm: the graph.
        expected: its text (indentation and outer empty lines do not matter), or a golden file,
            which `pytest --update-golden` writes.

    Raises:
        AssertionError: it prints otherwise; the message is a diff.
    """
    got = text(gm)
    if isinstance(expected, Path):
        if golden.UPDATE:
            expected.parent.mkdir(parents=True, exist_ok=True)
            expected.write_text(got + "\n", encoding="utf-8", newline="\n")
            return
        if not expected.is_file():
            raise AssertionError(
                f"there is no golden file {expected}; `pytest --update-golden` writes it"
            )
        want, name = expected.read_text(encoding="utf-8").rstrip("\n"), str(expected)
    else:
        want, name = inspect.cleandoc(expected).strip(), "expected"
    if got != want:
        lines = difflib.unified_diff(
            want.splitlines(), got.splitlines(), name, "the graph", lineterm=""
        )
        raise AssertionError("the graph prints otherwise:\n" + "\n".join(lines))


def assert_same_numbers(got: Sequence[Tensor], want: Sequence[Tensor], *, tolerance: float) -> None:
    """Assert that outputs are equal up to a share of the largest value.

    Args:
        got: what `run` returned after the pass.
        want: what it returned before.
        tolerance: allowed difference, as a fraction of the largest value of `want`.

    Raises:
        AssertionError: shapes differ, a value is not finite, or the difference is larger.
    """
    shapes = [[tuple(t.shape) for t in side] for side in (got, want)]
    if shapes[0] != shapes[1]:
        raise AssertionError(f"the shapes are {shapes[0]}, not {shapes[1]}")
    largest = max((float(t.abs().max()) for t in want if t.numel()), default=0.0)
    error = max_abs_error(want, got)
    if not (math.isfinite(error) and error <= tolerance * largest):
        raise AssertionError(
            f"the outputs differ by {error:.3g}, where the largest is {largest:.3g} and "
            f"{tolerance:g} of it are allowed"
        )
