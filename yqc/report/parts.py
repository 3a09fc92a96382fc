"""The parts of a report: their fields, in this order, are the keys of the JSON contract.

None stands for null: nothing was measured. A trailing underscore is no part of a key (`float_` is
"float"). Bytes are plain counts, mAP is a fraction of 1, every ratio is before / after. Numbers
that follow from others are computed here, by the class methods, and nowhere else.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, Self

from yqc.facts import ModelFacts
from yqc.report.contract import Part


def ratio(before: float | None, after: float | None) -> float | None:
    """Return before / after, or None if one is missing or the quotient is no finite number."""
    if before is None or not after:
        return None
    quotient = before / after
    return quotient if math.isfinite(quotient) else None


def difference(before: float | None, after: float | None) -> float | None:
    """Return before - after, or None if one is missing or the result is no finite number."""
    if before is None or after is None:
        return None
    return before - after if math.isfinite(before - after) else None


@dataclass(frozen=True, kw_only=True)
class ModelInput(Part):
    """The checkpoint that was compiled."""

    path: str
    sha256: str
    family: str
    task: str
    params: int
    """Parameters (not buffers) that its float graph uses."""
    nc: int
    names: tuple[str, ...]
    strides: tuple[int, ...]
    imgsz: tuple[int, int]
    """Height and width of the compiled input, in pixels."""

    @classmethod
    def of(cls, *, path: str, sha256: str, params: int, facts: ModelFacts) -> Self:
        """Take the facts of a model."""
        return cls(
            path=path,
            sha256=sha256,
            family=facts.family,
            task=facts.task,
            params=params,
            nc=facts.nc,
            names=facts.names,
            strides=facts.strides,
            imgsz=facts.size,
        )


@dataclass(frozen=True, kw_only=True)
class DataInput(Part):
    """The data set that was read for calibration, training and evaluation."""

    path: str
    sha256: str
    """Of the description, and of names and contents of images and labels."""
    images: int


@dataclass(frozen=True, kw_only=True)
class LoadedFile(Part):
    """A Python file given by `--load`."""

    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class UsedPlugin(Part):
    """Something that the compile used and that is not yqc's own."""

    kind: str
    """`pass`, `criterion`, `range method`, `observer`, `weight scheme` or `target`."""
    name: str
    origin: str
    """Package and version, or the path of the file that `--load` gave."""
    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PipelineText(Part):
    """The pipeline as it was given, and as it ran once its recipes were expanded."""

    text: str
    expanded: str
    dropped: tuple[str, ...] = ()
    """Steps of recipes that were left out, each with the reason."""


@dataclass(frozen=True, kw_only=True)
class Skip(Part):
    """A near-match that a pass refused, and its reason."""

    node: str
    why: str


@dataclass(frozen=True, kw_only=True)
class NodeNumbers(Part):
    """Numbers by name that a pass recorded of a node."""

    node: str
    numbers: Mapping[str, float]


def number_names(values: Sequence[NodeNumbers]) -> list[str]:
    """List the names of numbers that nodes have, in the order in which they came."""
    return list(dict.fromkeys(name for one in values for name in one.numbers))


@dataclass(frozen=True, kw_only=True)
class PassRecord(Part):
    """What one pass did, took and cost; the defaults are those of a pass that has not run."""

    name: str
    seconds: float | None = None
    rewrites: int = 0
    skips: tuple[Skip, ...] = ()
    says: tuple[str, ...] = ()
    """Sentences of the pass on what it did as a whole."""
    changed: bool = False
    nodes_before: int = 0
    nodes_after: int = 0
    weight_bytes_before: int | None = None
    weight_bytes_after: int | None = None
    max_abs_error: float | None = None
    """At the head's outputs, between the graphs before and after this pass."""
    sqnr_db: float | None = None
    values: tuple[NodeNumbers, ...] = ()
    """Numbers that the pass recorded of single nodes."""


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
class Precision(Part):
    """Average precision of what a task adds to boxes; None where no such object is labelled."""

    map: float | None
    """AP averaged over the overlaps 0.50 to 0.95 in steps of 0.05, and over classes."""
    map50: float | None
    """AP at an overlap of 0.50."""


Main = Literal["map", "mask.map", "keypoints.map", "rotated.map", "top1"]
"""The figure that counts for a task."""


@dataclass(frozen=True, kw_only=True)
class Scores(Part):
    """Accuracy as fractions of 1: COCO's average precision of boxes, and what the task adds.

    None where the images hold no such object, or the task has no such figure.
    """

    map: float | None
    """AP averaged over IoU 0.50 to 0.95 in steps of 0.05, and over classes."""
    map50: float | None
    """AP at IoU 0.50."""
    map75: float | None
    """AP at IoU 0.75."""
    small: float | None
    """`map` of objects under 32 x 32 square pixels."""
    medium: float | None
    """`map` of objects from 32 x 32 to 96 x 96 square pixels."""
    large: float | None
    """`map` of objects over 96 x 96 square pixels."""
    mask: Precision | None = None
    """Of the masks of segmentation."""
    keypoints: Precision | None = None
    """Of keypoints, the overlap being OKS."""
    rotated: Precision | None = None
    """Of oriented boxes, the overlap being ProbIoU (arXiv 2106.06072)."""
    top1: float | None = None
    """Share of images whose likeliest class is the labelled one."""
    top5: float | None = None
    """Share of images whose labelled class is among the five likeliest ones."""

    @classmethod
    def of(cls, scores: "Scores") -> Self:
        """Copy the numbers of scores that know more than these."""
        return cls(**{one.name: getattr(scores, one.name) for one in fields(Scores)})

    def figure(self, main: str) -> float | None:
        """Return the figure of a name such as `map` or `mask.map`."""
        part, _, name = main.rpartition(".")
        owner = getattr(self, part) if part else self
        found: float | None = None if owner is None else getattr(owner, name)
        return found


@dataclass(frozen=True, kw_only=True)
class Agreement(Part):
    """AP of a model's detections with the float model's detections as the ground truth."""

    ap50: float | None
    """AP at IoU 0.50."""
    map: float | None
    """AP averaged over IoU 0.50 to 0.95."""
    top1: float | None = None
    """Of classifiers: the share of images in which both find the same class likeliest."""


Baseline = Literal["measured", "kept"]
"""Where the figures of the float model come from."""


@dataclass(frozen=True, kw_only=True)
class OutputAgreement(Part):
    """How far the outputs of a compiled net are from the float one's, over all images."""

    sqnr_db: float | None
    """Power of the float outputs over that of the error, in decibels, of the output where it is
    lowest; None where nothing differs."""
    max_abs_error: float | None
    """Of all outputs."""


@dataclass(frozen=True, kw_only=True)
class ClassScore(Part):
    """The main figure of one class by both models: its AP, or for a classifier the share found."""

    name: str
    float_: float | None
    """None where no such object is labelled."""
    compiled: float | None


@dataclass(frozen=True, kw_only=True)
class Accuracy(Part):
    """Accuracy of the emitted file beside the float graph's, on the same images."""

    kind: Literal["map", "agreement", "none"]
    images: int
    baseline: Baseline | None = None
    """Whether the float model was evaluated by this compile, or by an earlier one of the same model
    and data; None where nothing was evaluated."""
    float_: Scores | None = None
    compiled: Scores | None = None
    drop: float | None = None
    """Of the main figure, float - compiled."""
    relative_drop: float | None = None
    """`drop` as a share of the float model's figure."""
    interval: tuple[float, float] | None = None
    """95 % interval of `relative_drop`, by paired bootstrap over the images."""
    task: str = "detect"
    main: Main | None = None
    """The figure that counts, by its name within `float` and `compiled`; None without labels."""
    agreement: Agreement | None = None
    outputs: OutputAgreement | None = None
    """Of a net that is no detector: kind `agreement`, and `agreement` has no figures."""
    classes: tuple[ClassScore, ...] = ()
    """The main figure of each class; empty without labels."""

    @classmethod
    def of_outputs(cls, *, images: int, sqnr_db: float | None, max_abs_error: float) -> Self:
        """Compare the outputs of two nets that are no detectors."""
        outputs = OutputAgreement(sqnr_db=sqnr_db, max_abs_error=max_abs_error)
        nothing = Agreement(ap50=None, map=None)
        return cls(kind="agreement", images=images, agreement=nothing, outputs=outputs)

    @classmethod
    def of_map(
        cls,
        *,
        images: int,
        float_: Scores,
        compiled: Scores,
        baseline: Baseline = "measured",
        task: str = "detect",
        main: Main = "map",
        interval: tuple[float, float] | None = None,
        classes: Sequence[ClassScore] = (),
    ) -> Self:
        """Compare two models on labelled images."""
        before, after = Scores.of(float_), Scores.of(compiled)
        figure = before.figure(main)
        drop = difference(figure, after.figure(main))
        return cls(
            kind="map",
            images=images,
            task=task,
            main=main,
            baseline=baseline,
            float_=before,
            compiled=after,
            drop=drop,
            relative_drop=drop / figure if drop is not None and figure else None,
            interval=interval,
            classes=tuple(classes),
        )

    @classmethod
    def of_agreement(
        cls,
        *,
        images: int,
        agreement: Agreement,
        baseline: Baseline = "measured",
        task: str = "detect",
    ) -> Self:
        """Compare two models on images without labels."""
        agreed = Agreement(ap50=agreement.ap50, map=agreement.map, top1=agreement.top1)
        return cls(kind="agreement", images=images, baseline=baseline, agreement=agreed, task=task)

    @classmethod
    def unmeasured(cls, task: str = "detect") -> Self:
        """Make the part of a report without measurements."""
        return cls(kind="none", images=0, task=task)


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
class Layer(Part):
    """How one layer with weights is stored in the file; float32 counts as 32 bits."""

    name: str
    role: str | None
    op: str
    shape: tuple[int, ...]
    weight_bits: float | None
    activation_bits: int | None
    scheme: str | None
    granularity: str | None = None
    rounding: str | None = None
    weight_bytes: int | None
    sqnr_db: float | None = None
    sensitivity: float | None = None
    """Damage: the mean square change of the detections by its rounding; None if not measured."""


@dataclass(frozen=True, kw_only=True)
class Swap(Part):
    """How one activation was swapped for another one: g(a x + b) + m in each channel."""

    node: str
    layer: str
    """Path of the layer before it, which computes a x + b."""
    was: str
    now: str
    error: float | None
    """Mean squared error of the fit, over the variance of what the old activation computes."""
    damage: float | None
    """Mean square change of the detections if it alone is swapped."""
    refitted: bool
    """Whether the weights of the layer were refitted, too."""
    a: tuple[float | None, float | None, float | None]
    """Smallest, mean and largest of all channels; so are b and m."""
    b: tuple[float | None, float | None, float | None]
    m: tuple[float | None, float | None, float | None]


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


@dataclass(frozen=True, kw_only=True)
class Sensitivity(Part):
    """Sensitivity of one layer: the effect of quantizing it alone to eight bits."""

    name: str
    role: str
    sqnr_db: float | None
    """At the head's outputs; None where nothing differs."""
    agreement: float | None
    """AP at IoU 0.5 against the float detections on calibration images; None without them."""
