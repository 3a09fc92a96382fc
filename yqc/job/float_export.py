"""Save the rewritten float graph with `torch.export`, for training loops outside yqc.

What is saved is the last graph before anything was quantized. Batch norms that only quantization
wanted folded stand in it unfolded, since they are what fine-tuning wants; a `fold-bn` that the
pipeline names is respected.
"""

import copy
import warnings
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from yqc.errors import EmitError, first_line
from yqc.graph import calls
from yqc.graph.half import holds_half
from yqc.graph.values import empty
from yqc.pipeline.base import Context
from yqc.pipeline.pipeline import Pipeline
from yqc.pipeline.step import Step, Watcher


class LastFloat(Watcher):
    """Keeps the last graph that nothing in it quantizes.

    Args:
        pipeline: as it was written; decides whether batch norms may be folded.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.gm = fx.GraphModule(nn.Module(), fx.Graph())
        self._fold = any(step.name == "fold-bn" for step in pipeline.steps)
        self._passed = False

    @property
    def is_now(self) -> bool:
        """Whether that is the graph as it is now."""
        return not self._passed

    def start(self, gm: fx.GraphModule, ctx: Context) -> None:  # the watcher's
        """Keep the graph before the first pass."""
        self.gm = copy.deepcopy(gm)

    def after(self, step: Step) -> None:
        """Keep the graph if it is still float, and has not lost its batch norms unasked."""
        had = bool(calls(self.gm, nn.BatchNorm2d)) and not self._fold
        lost = had and not calls(step.gm, nn.BatchNorm2d)
        self._passed = self._passed or lost or is_quantized(step.gm)
        if step.record.changed and not self._passed:
            self.gm = copy.deepcopy(step.gm)


def is_quantized(gm: fx.GraphModule) -> bool:
    """Return whether a graph holds quantizers, observers that are to become some, or halves."""
    if holds_half(gm):
        return True
    own = any(str(n.target).startswith("yqc.") for n in gm.graph.nodes if n.op == "call_function")
    return own or any(type(m).__module__.startswith("yqc.") for m in gm.modules())


def save_exported(gm: fx.GraphModule, path: Path) -> None:
    """Save a float graph with `torch.export.save`, for any batch size where the graph allows it.

    The program infers: batch norms use their statistics. Parameters keep their names.

    Raises:
        EmitError: torch cannot export it, or the exported program computes something else.
    """
    example = _images(gm)
    gm = copy.deepcopy(gm).eval()
    for parameter in gm.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    try:
        program = _export(gm, example)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tensors that share memory
            torch.export.save(program, path)
    except OSError:
        raise
    except Exception as error:
        reason = first_line(error)
        raise EmitError(f"torch cannot export the float graph: {reason}; leave pt2 out") from error


def _export(gm: fx.GraphModule, example: Tensor) -> torch.export.ExportedProgram:
    batch = {0: torch.export.Dim("batch", min=1)}
    try:
        pair = torch.cat((example, example))  # one image would be taken for a constant
        return torch.export.export(gm, (pair,), dynamic_shapes=(batch,))
    except Exception:  # noqa: BLE001  # many types; a graph that holds its batch size stays so
        return torch.export.export(gm, (example,))


def _images(gm: fx.GraphModule) -> Tensor:
    node = next(n for n in gm.graph.nodes if n.op == "placeholder")
    return torch.zeros_like(empty(node))
