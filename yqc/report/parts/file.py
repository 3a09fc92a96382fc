"""The emitted file: its size and work, how it was verified, its speed, and the device."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from yqc.report.contract import Part
from yqc.report.parts.quotients import ratio


@dataclass(frozen=True, kw_only=True)
class SizeParts(Part):
    """Bytes of the weights by cause; together they are all bytes."""

    weights: int
    """Codes, integers or floats of convolutions, linear layers and matrix products."""
    scales: int
    """With zero points."""
    codebooks: int
    biases: int
    """With their scales."""
    rest: int
    """Activations' scales, the decoding, shapes."""


@dataclass(frozen=True, kw_only=True)
class Size(Part):
    """Bytes of weights and file, against 4 and 2 bytes a parameter of the input."""

    params_before: int
    params_after: int | None
    fp32_bytes: int
    fp16_bytes: int
    weight_bytes: int | None
    file_bytes: int | None
    deflated_bytes: int | None = None
    """Of the file in a zip or gzip archive, as downloads and updates are packed."""
    ratio_vs_fp32: float | None
    ratio_vs_fp16: float | None
    file_ratio_vs_fp32: float | None
    parts: SizeParts | None = None

    @classmethod
    def measured(
        cls,
        *,
        params_before: int,
        params_after: int | None,
        weight_bytes: int | None,
        file_bytes: int | None,
        deflated_bytes: int | None = None,
        parts: SizeParts | None = None,
    ) -> Self:
        """Derive the float sizes and the ratios from what was counted."""
        fp32, fp16 = 4 * params_before, 2 * params_before
        return cls(
            params_before=params_before,
            params_after=params_after,
            fp32_bytes=fp32,
            fp16_bytes=fp16,
            weight_bytes=weight_bytes,
            file_bytes=file_bytes,
            deflated_bytes=deflated_bytes,
            ratio_vs_fp32=ratio(fp32, weight_bytes),
            ratio_vs_fp16=ratio(fp16, weight_bytes),
            file_ratio_vs_fp32=ratio(fp32, file_bytes),
            parts=parts,
        )


@dataclass(frozen=True, kw_only=True)
class Compute(Part):
    """Multiply-accumulates of one image."""

    macs_before: int | None
    macs_after: int | None


@dataclass(frozen=True, kw_only=True)
class RoundTripError(Part):
    """Largest differences of the file's output from the graph's, one part of it each."""

    boxes: float | None = None
    """Relative to the largest coordinate."""
    scores: float | None = None
    extra: float | None = None
    """Of mask coefficients, prototypes (relative to the largest) and angles (radians)."""

    @classmethod
    def of(cls, boxes: float, scores: float, values: float = 0.0, extra: float = 0.0) -> Self:
        """Copy the numbers; where `values` of what is no detector differ, there are none."""
        return cls() if values else cls(boxes=boxes, scores=scores, extra=extra)


@dataclass(frozen=True, kw_only=True)
class Verification(Part):
    """The emitted file against the graph, with onnxruntime's own optimisations on and off."""

    optimized: RoundTripError = field(default_factory=RoundTripError)
    unoptimized: RoundTripError = field(default_factory=RoundTripError)
    within_tolerance: bool | None = None
    """None also for a graph that rounds activations to integers, where a difference in the last bit
    of a float may become a whole step, and for one that computes in half, which a runtime may
    compute in float32."""
    not_run: str | None = None
    """Domains of operators that onnxruntime does not have, such as acme.ops: the file was checked
    by the ONNX checker, and neither compared, evaluated nor timed."""


@dataclass(frozen=True, kw_only=True)
class Latency(Part):
    """Milliseconds an image in the target's runtime, float file and compiled file in turn."""

    runtime: Literal["onnxruntime", "openvino"]
    version: str
    """Of the runtime."""
    float_ms: float
    """Median over the rounds."""
    compiled_ms: float
    p10: tuple[float, float]
    """What a tenth of the rounds stay below: float file, compiled file."""
    p90: tuple[float, float]
    ratio: float
    """`float_ms` / `compiled_ms`: above 1 the compiled file is the faster one."""
    interval: tuple[float, float]
    """95 % interval of the ratio, by paired bootstrap over the rounds."""
    rounds: int
    threads: int
    load_ms: tuple[float, float]
    """Milliseconds to open a file and make it ready to run: float file, compiled file."""
    machine: str | None = None
    """Where it was taken, if that was another machine than that of `environment`."""

    @property
    def loads_slowly(self) -> bool:
        """Whether the compiled file takes more than twice as long to load as the float file."""
        return self.load_ms[1] > 2 * self.load_ms[0]


@dataclass(frozen=True, kw_only=True)
class Unfit(Part):
    """A node of the file that a device does not take."""

    node: str
    op: str
    limit: str
    """The key of the device's file that it is beyond: `operators`, `limits.kernel`."""
    what: str
    """How it is beyond that."""
    remedy: str | None
    """The pass or recipe that would remove it; None if there is none."""
    fix: str
    """What to do about it."""


def _count_kinds(what: str, nodes: Sequence[Unfit]) -> str:
    """Name the operators of nodes, with their numbers where there are several."""
    counts = Counter(one.op for one in nodes)
    number = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    if what.endswith("has no"):
        kinds = ", ".join(f"{op} ({count})" for op, count in counts.items())
        return f"{number}: {what} {kinds}"
    return f"{number}: {what} ({', '.join(filter(None, counts)) or 'the file'})"


@dataclass(frozen=True, kw_only=True)
class DeviceFit(Part):
    """What of the file a device does not take, by the limits of the device's own file."""

    path: str
    """Of the device's file."""
    sha256: str
    base: str
    """The target whose rules hold where the device's file is silent."""
    decode: Literal["full", "scores", "raw"]
    """How much of the decoding the device is to run."""
    inserted: tuple[str, ...]
    """Exact rewrites that were put into the pipeline for it."""
    nodes: int
    """Of the file."""
    unfit_before: int
    """How many nodes the device would not take of the float model's file."""
    unfit: tuple[Unfit, ...]
    """The nodes of this file that it does not take, in graph order."""
    slow_activations: int
    """Activations that it has, and that its file does not name among the fast ones."""
    swap: str | None
    """The recipe that swaps activations for one that it has, or for a fast one; None where that
    would change no node."""

    @property
    def groups(self) -> list[tuple[str, str]]:
        """What does not fit: kinds of nodes with their numbers, and what to do about them."""
        found: dict[tuple[str, str], list[Unfit]] = {}
        for one in self.unfit:
            what = "the device has no" if one.limit == "operators" else one.what
            found.setdefault((what, one.fix), []).append(one)
        return [(_count_kinds(what, nodes), fix) for (what, fix), nodes in found.items()]
