"""Compare an emitted file under onnxruntime with the fx graph that it was emitted from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from yqc.facts import OutputForm
from yqc.graph.half import half_kernels
from yqc.graph.values import list_tensors
from yqc.onnx_file import name_or_bytes

OutputArray: TypeAlias = NDArray[Any]
Numbers: TypeAlias = NDArray[np.float64]

BOX = 4
"""Numbers of a box."""
PLAIN = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
OPTIMISED = ort.GraphOptimizationLevel.ORT_ENABLE_ALL


RUN_HERE = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Domains of operators that onnxruntime has."""


def list_unknown_domains(model: onnx.ModelProto) -> list[str]:
    """List the domains of a model's operators that onnxruntime has no kernels for."""
    return sorted({node.domain for node in model.graph.node} - RUN_HERE)


@dataclass(frozen=True)
class Deviation:
    """The largest differences between two runs of a model; NaN if a number was not finite."""

    boxes: float = 0.0
    """Of coordinates of boxes and keypoints, as a fraction of the largest box coordinate."""
    scores: float = 0.0
    """Of scores, visibilities and probabilities, absolute."""
    values: float = 0.0
    """Of the outputs of anything that is no detector, as a fraction of the largest value."""
    extra: float = 0.0
    """Of angles in radians, and of mask coefficients and prototypes as a fraction of the largest
    value of their kind, or absolute where that is below 1."""


@dataclass(frozen=True)
class RoundTrip:
    """How far onnxruntime is from the fx graph."""

    plain: Deviation
    """Without onnxruntime's graph optimisations."""
    optimised: Deviation
    """With all of them. Far larger than `plain`: a fusion or kernel of the runtime is at fault."""

    def within(
        self,
        boxes: float = 1e-3,
        scores: float = 1e-3,
        values: float = 1e-3,
        extra: float = 1e-3,
    ) -> bool:
        """Return whether both runs agree with the graph to these tolerances; NaN never does."""
        return all(
            d.boxes <= boxes and d.scores <= scores and d.values <= values and d.extra <= extra
            for d in (self.plain, self.optimised)
        )


def roundtrip(
    gm: fx.GraphModule,
    model: onnx.ModelProto | Path,
    example: Tensor | Sequence[Tensor],
    form: OutputForm | None = None,
) -> RoundTrip:
    """Run a graph in PyTorch and its file in onnxruntime, plain and optimised, and compare.

    A file with a dynamic batch runs a batch of twice the example's size, its second half mirrored:
    what the file computes for one image must not depend on another. The form says what the
    outputs are; rows of an end-to-end one are matched, since near ties may swap. Without a form,
    all outputs are compared number by number.
    """
    batches = [(example,) if isinstance(example, Tensor) else tuple(example)]
    sessions = [open_session(model, level) for level in (PLAIN, OPTIMISED)]
    if any(isinstance(value.shape[0], str) for value in sessions[0].get_inputs() if value.shape):
        batches.append(tuple(tensor.flip(-1) for tensor in batches[0]))
    with torch.no_grad(), half_kernels(gm):
        want = _joined([tuple(list_tensors(gm(*batch))) for batch in batches])
    given = _joined(batches)
    return RoundTrip(*(compare_outputs(want, run_session(s, given), form) for s in sessions))


def compare_runs(want: object, got: object, form: OutputForm | None = None) -> Deviation:
    """Compare what two graphs return for the same inputs; `form` as in `roundtrip`."""
    sides = [[tensor.numpy(force=True) for tensor in list_tensors(side)] for side in (want, got)]
    return compare_outputs(sides[0], sides[1], form)


def _joined(batches: Sequence[tuple[Tensor, ...]]) -> list[OutputArray]:
    if len(batches) == 1:
        return [tensor.numpy(force=True) for tensor in batches[0]]
    return [torch.cat(tensors).numpy(force=True) for tensors in zip(*batches, strict=True)]


def open_session(
    model: onnx.ModelProto | Path, level: ort.GraphOptimizationLevel = OPTIMISED
) -> ort.InferenceSession:
    """Load a model into onnxruntime, on the CPU, with as many threads as PyTorch uses."""
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    source = name_or_bytes(model) if isinstance(model, Path) else model.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run_session(loaded: ort.InferenceSession, inputs: Sequence[OutputArray]) -> list[OutputArray]:
    """Run a loaded model and return its outputs."""
    names = [value.name for value in loaded.get_inputs()]
    return list(loaded.run(None, dict(zip(names, inputs, strict=True))))


def compare_outputs(
    want: Sequence[OutputArray], got: Sequence[OutputArray], form: OutputForm | None = None
) -> Deviation:
    """Compare two lists of outputs."""
    if [a.shape for a in want] != [a.shape for a in got]:
        return Deviation(math.nan, math.nan, math.nan)
    if form is None:
        pairs = zip(_float64(want), _float64(got), strict=True)
        return Deviation(values=float(np.max([_relative(a, b) for a, b in pairs])))
    if form.layout == "raw":  # numbers of the order of 1: logits, distances in strides
        pairs = zip(_float64(want), _float64(got), strict=True)
        apart = [_largest(a - b) / max(1.0, _largest(a)) for a, b in pairs]
        return Deviation(values=float(np.max(apart)))
    (a, *more_a), (b, *more_b) = _float64(want), _float64(got)
    if form.layout == "classes":
        return Deviation(scores=_largest(a - b))
    if form.layout == "yolov8":
        a, b = a.swapaxes(1, 2), b.swapaxes(1, 2)
    compare = _compare_rows if form.layout == "end2end" else _compare_columns
    found = compare(a, b, form)
    maps = [_distance(x, y, "values") for x, y in zip(more_a, more_b, strict=True)]
    return replace(found, extra=float(np.max([found.extra, *maps])))


def _kinds_of(form: OutputForm, width: int) -> dict[str, list[int]]:
    """Return the columns of a detection that are coordinates, scores, and other numbers."""
    first = width - form.extra
    found = {"coordinates": list(range(BOX)), "scores": list(range(BOX, first)), "values": []}
    if form.layout == "end2end":
        found["scores"] = [BOX]
    if form.kpt_shape is None:
        found["values"] = list(range(first, width))
    else:
        for column in range(first, width):
            is_seen = (column - first) % form.kpt_shape[1] == 2  # noqa: PLR2004  # x, y, visibility
            found["scores" if is_seen else "coordinates"].append(column)
    return found


def _compare_columns(
    want: Numbers, got: Numbers, form: OutputForm, largest: float | None = None
) -> Deviation:
    """Compare rows of detections one by one; `largest` is the largest box coordinate if known."""
    parts = {
        kind: (want[..., columns], got[..., columns])
        for kind, columns in _kinds_of(form, want.shape[-1]).items()
    }
    scale = (_largest(want[..., :BOX]) if largest is None else largest) or 1.0
    boxes = _largest(np.subtract(*parts["coordinates"])) / scale
    scores = _largest(np.subtract(*parts["scores"]))
    return Deviation(boxes, scores, extra=_distance(*parts["values"], form.task))


def _distance(want: Numbers, got: Numbers, task: str) -> float:
    """Compare angles absolutely, and other numbers as a fraction of the largest if that is > 1."""
    return _largest(want - got) / (1.0 if task == "obb" else max(1.0, _largest(want)))


def _float64(outputs: Sequence[OutputArray]) -> list[Numbers]:
    """Return outputs in double precision, with NaN for what is not finite."""
    wide = (np.asarray(output, np.float64) for output in outputs)
    return [np.where(np.isfinite(a), a, np.nan) for a in wide]


def _relative(want: Numbers, got: Numbers) -> float:
    return _largest(want - got) / (_largest(want) or 1.0)


def _largest(values: Numbers) -> float:
    return float(np.abs(values).max(initial=0.0))  # NaN if there is one


def _compare_rows(want: Numbers, got: Numbers, form: OutputForm, near: float = 1e-3) -> Deviation:
    """Compare the rows of an end-to-end head, image by image, as sets.

    A row is matched with the one of the same class whose score is within `near` and whose box is
    nearest. Rows whose score is as low as the last one's are not compared: any of their kind may
    stand in their place.
    """
    if np.isnan(want).any() or np.isnan(got).any():
        return Deviation(math.nan, math.nan)
    scores = _largest(np.sort(want[..., BOX]) - np.sort(got[..., BOX]))
    pairs = [_match(a, b, near) for a, b in zip(want, got, strict=True)]
    if any(pair is None for pair in pairs):
        return Deviation(math.inf, scores)
    matched = [np.concatenate(side) for side in zip(*filter(None, pairs), strict=True)]
    found = _compare_columns(matched[0], matched[1], form, _largest(want[..., :BOX]))
    return replace(found, scores=max(scores, found.scores))


def _match(want: Numbers, got: Numbers, near: float) -> tuple[Numbers, Numbers] | None:
    """Pair the rows of one image; None where a row has no partner."""
    free = np.ones(len(got), dtype=bool)
    rows = want[want[:, BOX] > got[:, BOX].min(initial=math.inf) + near]
    partners = []
    for row in rows:
        fits = free & (got[:, BOX + 1] == row[BOX + 1]) & (np.abs(got[:, BOX] - row[BOX]) <= near)
        if not fits.any():
            return None
        distance = np.where(fits, np.abs(got[:, :BOX] - row[:BOX]).max(axis=1), np.inf)
        partners.append(int(distance.argmin()))
        free[partners[-1]] = False
    return rows, got[np.array(partners, int)]
