"""The assertions of `yqc.testing`."""

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
    """What a pass did."""

    context: Context
    step: Step

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
        """Whether the graph is another one than before, by its fingerprint."""
        return self.step.record.changed


def traced(net: nn.Module, shape: Sequence[int]) -> fx.GraphModule:
    """Trace a net in evaluation mode, for an input of a shape."""
    return trace(net.eval(), torch.zeros(*shape))


def run(gm: fx.GraphModule, seed: int = 0) -> list[Tensor]:
    """Run a graph on seeded noise in 0..1 of the shape that it takes; return its outputs."""
    value = next(n for n in gm.graph.nodes if n.op == "placeholder").meta["yqc.value"]
    x = torch.rand(value.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return _tensors(gm(x))


def _tensors(output: object) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    items = output.values() if isinstance(output, dict) else output
    return [t for item in items for t in _tensors(item)] if isinstance(items, Sequence) else []


def apply(action: Pass, gm: fx.GraphModule, context: Context | None = None) -> Applied:
    """Run one pass as a pipeline does: verified, recompiled, with the shapes of new nodes.

    Whatever the pass requires is taken for granted.

    Raises:
        PassError: it fails, leaves no legal graph, or does not keep the numbers and says it does.
    """
    ctx = context or Context()
    (step,) = Pipeline([action]).run(gm, ctx, [Verify()], known=action.needs())
    return Applied(ctx, step)


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
            expected.write_text(got + "\n", encoding="utf-8")
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
