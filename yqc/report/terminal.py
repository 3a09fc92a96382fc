"""The report as a page for the terminal, table by table."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from yqc.report import human
from yqc.report.layout import ALERT, GOOD, LABEL, QUIET, Steps, Trimmed, columns, fields, say
from yqc.report.parts import (
    Accuracy,
    Compute,
    Latency,
    Layer,
    ModelInput,
    PassRecord,
    PipelineText,
    RoundTripError,
    Scores,
    Size,
    Verification,
    difference,
    ratio,
)
from yqc.report.rows import WrittenFile


def heading(model: ModelInput, pipeline: PipelineText) -> RenderableType:
    """Say what was compiled, and by which passes."""
    high, wide = model.imgsz
    about = f"{model.family}, {model.task}, {human.plural(model.nc, 'class')}, {high} x {wide}"
    rows: list[tuple[str, RenderableType]] = [
        ("model", say(model.path)),
        ("", say(about, QUIET)),
        ("pipeline", Steps(pipeline.text)),
    ]
    if pipeline.expanded != pipeline.text:
        rows.append(("runs as", Steps(pipeline.expanded)))
    return fields(rows)


def ledger(passes: Sequence[PassRecord]) -> RenderableType:
    """Show what each pass did and cost, and where to read why it refused something."""
    if not passes:
        return say("no passes: the graph is emitted as it was traced", QUIET)
    table = columns("#", "pass", "ms", "rewrites", "skips", "nodes", "weights", "max err", left=2)
    for number, one in enumerate(passes, start=1):
        milliseconds = None if one.seconds is None else 1000 * one.seconds
        table.add_row(
            say(str(number), QUIET),
            say(one.name),
            human.MISSING if milliseconds is None else f"{milliseconds:.0f}",
            str(one.rewrites),
            str(len(one.skips)),
            human.change(one.nodes_before, one.nodes_after),
            human.size_change(one.weight_bytes_before, one.weight_bytes_after),
            human.error(one.max_abs_error),
            style="" if one.changed else QUIET,
        )
    refused = [one for one in passes if one.skips]
    why = [say(f"why {len(one.skips)} skipped: yqc explain {one.name}", QUIET) for one in refused]
    return Group(Trimmed(table), *why)


def size_table(size: Size, compute: Compute) -> RenderableType:
    """Show the sizes with both ratios: figures in print are against fp16 as often as fp32."""
    table = columns("size", "before", "after", "ratio", label=LABEL)
    weights, file = human.size(size.weight_bytes), human.size(size.file_bytes)
    fp32, fp16 = human.size(size.fp32_bytes), human.size(size.fp16_bytes)
    table.add_row("weights vs fp32", fp32, weights, human.times(size.ratio_vs_fp32))
    table.add_row("weights vs fp16", fp16, weights, human.times(size.ratio_vs_fp16))
    table.add_row("file vs fp32", fp32, file, human.times(size.file_ratio_vs_fp32))
    for name, before, after in (
        ("parameters", size.params_before, size.params_after),
        ("MACs", compute.macs_before, compute.macs_after),
    ):
        quotient = human.times(ratio(before, after))
        table.add_row(name, human.amount(before), human.amount(after), quotient)
    return Trimmed(table)


def accuracy_table(accuracy: Accuracy) -> RenderableType:
    """Show the float model beside the compiled file, or say what stands in for that."""
    if accuracy.kind == "none":
        return fields([("accuracy", "not measured")], LABEL)
    images = human.plural(accuracy.images, "image")
    if accuracy.agreement is not None:
        table = columns("agreement", "AP50", "mAP", label=LABEL)
        agreed = accuracy.agreement
        table.add_row(
            "with the float model", human.fraction(agreed.ap50), human.fraction(agreed.map)
        )
        note = f"on {images} without labels: how alike the two detect, not how well"
        return Group(Trimmed(table), say(note, QUIET))
    table = columns(f"mAP, {images}", "float", "compiled", "drop", label=LABEL)
    pairs = zip(score_rows(accuracy.float_), score_rows(accuracy.compiled), strict=True)
    for (name, before), (_, after) in pairs:
        lost = difference(before, after)
        table.add_row(name, human.fraction(before), human.fraction(after), human.fraction(lost))
    return Trimmed(table)


def score_rows(scores: Scores | None) -> list[tuple[str, float | None]]:
    """Name COCO's six numbers by IoU and by size of object."""
    names = ("50-95", "50", "75", "small", "medium", "large")
    if scores is None:
        return [(name, None) for name in names]
    values = (scores.map, scores.map50, scores.map75, scores.small, scores.medium, scores.large)
    return list(zip(names, values, strict=True))


def checks(verification: Verification, latency: Latency | None) -> RenderableType:
    """Show whether the file computes what the graph does, and how fast it is."""
    rows: list[tuple[str, RenderableType]] = [("file vs graph", _verified(verification))]
    if latency is None:
        rows.append(("latency", "not measured"))
    else:
        before, after = (
            human.milliseconds(latency.float_ms),
            human.milliseconds(latency.compiled_ms),
        )
        threads = human.plural(latency.threads, "thread")
        spent = f"{before} -> {after} ms, {human.times(latency.ratio)} as fast, {threads}"
        rows.append(("latency", spent))
    return fields(rows, LABEL)


def warnings(messages: Sequence[str]) -> RenderableType:
    """Show what the user should know before trusting the numbers."""
    return fields([("warning", say(one)) for one in messages], style=ALERT)


def layers_table(layers: Sequence[Layer]) -> RenderableType:
    """Show how each layer is stored, the layers of one part of the model under its name."""
    table = columns("layer", "how", "shape", "bits", "bytes", "dB", left=2)
    for role in dict.fromkeys(one.role for one in layers):
        table.add_row(say(role or "elsewhere"))
        for one in (one for one in layers if one.role == role):
            how = (one.scheme, one.granularity, one.rounding)
            table.add_row(
                say(f"  {one.name}"),
                say(" ".join(word for word in how if word) or human.MISSING, QUIET),
                "x".join(map(str, one.shape)) or human.MISSING,
                f"{one.weight_bits or human.MISSING}/{one.activation_bits or human.MISSING}",
                human.size(one.weight_bytes),
                human.decibels(one.sqnr_db),
            )
    return Trimmed(table)


def written_files(files: Sequence[WrittenFile]) -> RenderableType:
    """Name the files that a command left behind, and how big they are."""
    return fields(
        [("wrote", say(one.path).append(f"  {human.size(one.bytes)}", QUIET)) for one in files]
    )


def _verified(verification: Verification) -> Text:
    """The round trip in a line, or in two where the runtime's optimisations are to be suspected."""
    on, off = verification.optimized, verification.unoptimized
    if verification.within_tolerance is None:
        return say("not compared")
    if verification.within_tolerance:
        return say("equal within tolerance: ", GOOD).append(_errors(on), "default")
    return (
        say("NOT equal: ", ALERT)
        .append(f"{_errors(on)} as onnxruntime optimises it\n", "default")
        .append(f"           {_errors(off)} as it stands in the file", "default")
    )


def _errors(error: RoundTripError) -> str:
    """The two differences."""
    return f"boxes {human.error(error.boxes)}, scores {human.error(error.scores)}"
