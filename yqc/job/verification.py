"""Verification of numbers: weights are finite, and a file computes what its graph does."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor, fx

from yqc.emit import Deviation, RoundTrip, compare_runs, roundtrip
from yqc.emit.loaded import list_decoded, list_unpacked
from yqc.emit.roundtrip import list_unknown_domains
from yqc.errors import EmitError
from yqc.facts import OutputForm
from yqc.graph.compare import first_not_finite, perturbed
from yqc.graph.half import half_kernels, holds_half, widened
from yqc.graph.values import KEY
from yqc.job.layers import rounds_activations
from yqc.pipeline.watchers import NOISE
from yqc.targets import Target

FLOOR = 1e-3
"""Differences of boxes (as a share of the largest coordinate), scores, and what `Deviation.extra`
counts, that always pass.

The contract of the ONNX form; trained models differ by 1e-6 to 1e-5. Half of it refuses no model
that was tried; at double, a detection could move by a pixel.
"""

ROUNDED = 4.0
"""Largest difference of a graph that rounds activations from its file, as a multiple of the graph's
distance from the float original.

A last place can become a whole step, and steps add up: one step behind the first layer of
`examples/shapes/shapes.yqc` ends in scores that differ 2.98 times as much. Half of it refuses that
file; double lets a file pass that is eight times as far from its graph as the graph from the model.
"""

HALVED = 2.0
"""Largest distance of a file from its half graph computed in float32, as a multiple of the distance
of the half graph itself.

A runtime may compute in half, in float32 (onnxruntime and OpenVINO on most CPUs) or some of both;
met were 0.0 to 1.1 on the golden checkpoints. At half of it a correct half kernel that adds up in
another order could be refused; double lets a file pass that rounds two bits more than half.
"""


@dataclass(frozen=True)
class Verified:
    """How far a file is from its graph, and what the runtime adds to that."""

    trip: RoundTrip | None
    """None for a file that cannot be run here."""
    warnings: tuple[str, ...] = ()
    not_run: str = ""
    """Domains of operators that onnxruntime does not have, for which the file was not run."""


def check_weights(gm: fx.GraphModule, file: Path, rules: Target) -> tuple[str, ...]:
    """Say which packed weights a file stores as floats, or onnxruntime decodes at every inference.

    The second is checked for files whose decoder onnxruntime folds. Files that compute in half are
    left out: it widens their weights only as it lays out tensors for its kernels.
    """
    warnings, model = [], onnx.load(file)
    if found := list_unpacked(gm, model):
        warnings.append(f"the file stores packed weights as floats: {', '.join(found)}")
    checked = rules.weights == "seed" and not holds_half(gm) and not list_unknown_domains(model)
    if checked and (found := list_decoded(file)):
        said = "onnxruntime decodes weights at every inference, not when it loads the file"
        warnings.append(f"{said}: {', '.join(found)}")
    return tuple(warnings)


def verify_sizes(
    pairs: Sequence[tuple[fx.GraphModule, fx.GraphModule]],
    file: Path,
    example: Tensor,
    form: OutputForm | None,
    *,
    strict: bool = True,
) -> Verified:
    """Compare a file with its graph and the float original at each size that they were traced for.

    A file with operators that onnxruntime does not have is not run. At another size than the
    example's, a part of it or several of it side by side is the image. Arguments and errors as of
    `verify_file`; the result is that of the first size, with all warnings.
    """
    if domains := find_unknown_domains(file):
        return Verified(None, not_run=domains)
    found = []
    for gm, original in pairs:
        image = next(node for node in gm.graph.nodes if node.op == "placeholder")
        own, shape = example, image.meta[KEY].shape
        if example.shape[1:] != shape[1:]:
            times = (-(-a // b) for a, b in zip(shape[2:], example.shape[2:], strict=True))
            own = example.repeat(1, 1, *times)[:, :, : shape[2], : shape[3]].contiguous()
        found.append(verify_file(gm, original, file, own, form, strict=strict))
    warnings = dict.fromkeys(said for one in found for said in one.warnings)
    return Verified(found[0].trip, tuple(warnings))


def find_unknown_domains(file: Path) -> str:
    """Name the domains of operators of a file that onnxruntime does not have; empty: it runs."""
    return ", ".join(list_unknown_domains(onnx.load(file)))


def verify_file(
    gm: fx.GraphModule,
    original: fx.GraphModule,
    file: Path,
    example: Tensor,
    form: OutputForm | None,
    *,
    strict: bool = True,
) -> Verified:
    """Compare an ONNX file, as onnxruntime computes it, with the graph `gm` that was emitted.

    Differences pass up to a floor, and beyond that up to what rounding explains: in a float graph
    the noise of its weights' last places; in a graph that rounds activations, where a last place
    may become a whole step, a multiple of the graph's distance from the float original; in one that
    computes in half, a multiple of its distance from the same graph computed in float32, from which
    the file is measured, too.

    Args:
        gm: the graph.
        original: the float graph.
        file: the ONNX file.
        example: an input.
        form: of the outputs.
        strict: whether a difference is an error; otherwise it is a warning.

    Raises:
        EmitError: the file computes something else, or numbers that are not finite.
    """
    trip = roundtrip(gm, file, example, form)
    if trip.within(FLOOR, FLOOR, FLOOR, FLOOR):
        return Verified(trip)
    rounds = rounds_activations(gm)
    halved = holds_half(gm) and not rounds
    other = original if rounds else widened(gm) if halved else perturbed(gm)
    with torch.no_grad(), half_kernels(gm):
        outputs, others = gm(example), other(example)
    if _has_nan(compare_runs(outputs, outputs, form)):
        node = first_not_finite(gm, example)
        raise EmitError(f"the graph computes numbers that are not finite, first at {node}")
    noise = compare_runs(outputs, others, form)
    allowed = _allow(noise, ROUNDED if rounds else HALVED if halved else NOISE)
    judged = roundtrip(other, file, example, form) if halved else trip
    if _is_within(judged.plain, allowed) and _is_within(judged.optimised, allowed):
        return Verified(trip)
    if not _is_within(judged.plain, allowed):
        fault = _sentence("the emitted file differs from its graph", judged.plain)
    else:
        said = "the emitted file differs from its graph once onnxruntime optimises it"
        fault = _sentence(said, judged.optimised)
        if rounds:  # kernels without VNNI saturate; the file is right
            fault += "; on x86 CPUs without VNNI, int8{reduce_range=true} avoids saturation"
            strict = False
    if strict or _has_nan(judged.plain):
        raise EmitError(f"{fault}; --no-verify writes it all the same")
    return Verified(trip, (fault,))


def _allow(noise: Deviation, factor: float) -> Deviation:
    """Return the largest differences that pass for a noise."""
    values = vars(noise).values()
    return Deviation(*(max(FLOOR, factor * (0.0 if math.isnan(v) else v)) for v in values))


def _has_nan(found: Deviation) -> bool:
    """Return whether a number was not finite, or shapes differ."""
    return any(map(math.isnan, vars(found).values()))


def _is_within(found: Deviation, allowed: Deviation) -> bool:
    """Return whether no difference is larger than allowed; NaN is."""
    pairs = zip(vars(found).values(), vars(allowed).values(), strict=True)
    return all(value <= most for value, most in pairs)


def _sentence(fault: str, found: Deviation) -> str:
    if _has_nan(found):
        return f"{fault}: it computes numbers that are not finite, or outputs of other shapes"
    if found.values:
        return f"{fault}: by {found.values:.3g} of the largest value"
    boxes, scores = found.boxes, found.scores
    said = f"{fault}: boxes by {boxes:.3g} of the largest coordinate, scores by {scores:.3g}"
    return f"{said}, mask numbers or angles by {found.extra:.3g}" if found.extra else said
