"""Print the parts of a report as tables for the terminal."""

import dataclasses
from collections.abc import Sequence

from rich.console import Group, RenderableType

from yqc.report import human
from yqc.report.layout import (
    ALERT,
    FIGURE,
    GOOD,
    LABEL,
    QUIET,
    Trimmed,
    columns,
    fields,
    indented,
    say,
    steps,
)
from yqc.report.parts import (
    Accuracy,
    Agreement,
    Compute,
    DeviceFit,
    Latency,
    Layer,
    ModelInput,
    OutputAgreement,
    PassRecord,
    PipelineText,
    RoundTripError,
    Scores,
    Sensitivity,
    Size,
    Swap,
    UsedPlugin,
    Verification,
    difference,
    ratio,
)
from yqc.report.rows import WrittenFile


def heading(
    model: ModelInput, pipeline: PipelineText, target: str, plugins: Sequence[UsedPlugin] = ()
) -> RenderableType:
    """Show what was compiled, by which passes, for which runtime, and what is not yqc's own."""
    high, wide = model.imgsz
    classes = human.plural(model.nc, "class") if model.nc else ""
    about = ", ".join(filter(None, (model.family, model.task, classes, f"{high} x {wide}")))
    rows: list[tuple[str, RenderableType]] = [
        ("model", model.path),
        ("", say(about, QUIET)),
        ("pipeline", steps(pipeline.text) if pipeline.text else say("no passes", QUIET)),
    ]
    if pipeline.expanded != pipeline.text:
        rows.append(("runs as", steps(pipeline.expanded)))
    rows += [("left out", say(one, QUIET)) for one in pipeline.dropped]
    rows.append(("target", target))
    rows += [("plugin", say(one.describe())) for one in plugins]
    return fields(rows)


def ledger(passes: Sequence[PassRecord]) -> RenderableType:
    """Show what each pass changed, and which command explains its refusals."""
    table = columns("#", "pass", "ms", "rewrites", "skips", "nodes", "weights", "max err", words=2)
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
            human.magnitude(one.max_abs_error),
            style="" if one.changed else QUIET,
        )
    refused = [one for one in passes if one.skips]
    why = [say(f"why {len(one.skips)} skipped: yqc explain {one.name}", QUIET) for one in refused]
    return Trimmed(Group(table, indented(*why, by=len(str(len(passes))) + 2)))


def statements(passes: Sequence[PassRecord]) -> RenderableType:
    """Show what passes say of their work, a sentence a line."""
    said = [(one.name, sentence) for one in passes for sentence in one.says]
    return Trimmed(Group(*(say(f"{name}: {sentence}") for name, sentence in said)))


def size_table(size: Size, compute: Compute) -> RenderableType:
    """Show the sizes with both ratios: figures in print are against fp16 as often as fp32.

    "as float32" and "as float16" say how the weights before are counted.
    """
    table = columns("size", "before", "after", "ratio", label=LABEL, figure=FIGURE)
    weights, file = human.byte_count(size.weight_bytes), human.byte_count(size.file_bytes)
    fp32, fp16 = human.byte_count(size.fp32_bytes), human.byte_count(size.fp16_bytes)
    table.add_row("weights, as float32", fp32, weights, human.times(size.ratio_vs_fp32))
    table.add_row("weights, as float16", fp16, weights, human.times(size.ratio_vs_fp16))
    parts = parts_of(size)
    for name, count in parts if len(parts) > 1 else ():
        table.add_row(say(f"  {name}", QUIET), "", human.byte_count(count), "")
    table.add_row("file, as float32", fp32, file, human.times(size.file_ratio_vs_fp32))
    if size.deflated_bytes is not None:
        table.add_row(say("  deflated", QUIET), "", human.byte_count(size.deflated_bytes), "")
    params, macs = (size.params_before, size.params_after), vars(compute).values()
    for name, counts in (("parameters", params), ("MACs", macs)):
        table.add_row(name, *map(human.amount, counts), human.times(ratio(*counts)))
    if size.weight_bytes and size.params_after:
        bits = 8 * size.weight_bytes / size.params_after
        table.add_row("bits a weight", "32", f"{bits:.3g}", human.times(32 / bits))
    return Trimmed(table)


def parts_of(size: Size) -> list[tuple[str, int]]:
    """List the causes of the weights' bytes that are not 0, or all bytes as `weights`."""
    if size.parts is None:
        return [("weights", size.weight_bytes or 0)]
    named = [(one.name, getattr(size.parts, one.name)) for one in dataclasses.fields(size.parts)]
    return [(name, count) for name, count in named if count]


def accuracy_table(accuracy: Accuracy) -> RenderableType:
    """Show the accuracy of the float model and the compiled file, or their agreement."""
    if accuracy.kind == "none":
        return fields([("accuracy", "not measured")], LABEL)
    images = human.plural(accuracy.images, "image")
    if (outputs := accuracy.outputs) is not None:
        table = columns("error at the outputs", "SQNR", "largest", label=LABEL, figure=FIGURE)
        table.add_row("of the compiled net", *_output_figures(outputs))
        note = f"against the float net on {images}: it is no detector"
        return Trimmed(Group(table, say(note, QUIET)))
    if accuracy.agreement is not None:
        names, values = zip(*agreement_figures(accuracy.agreement), strict=True)
        table = columns("agreement", *names, label=LABEL, figure=FIGURE)
        table.add_row("with the float model", *map(human.fraction, values))
        note = f"on {images} without labels: how alike the two detect, not how well"
        return Trimmed(Group(table, say(note, QUIET), *_kept(accuracy)))
    title = f"{scores_heading(accuracy.float_)}, {images}"
    table = columns(title, "float", "compiled", "drop", label=LABEL, figure=FIGURE)
    pairs = zip(score_rows(accuracy.float_), score_rows(accuracy.compiled), strict=True)
    for (name, before), (_, after) in pairs:
        lost = difference(before, after)
        table.add_row(name, human.fraction(before), human.fraction(after), human.fraction(lost))
    return Trimmed(Group(table, *_relative(accuracy), *_kept(accuracy)))


def _relative(accuracy: Accuracy) -> list[RenderableType]:
    """Say what share of the main figure is lost, and how sure that is."""
    if accuracy.relative_drop is None or accuracy.main is None:
        return []
    line = f"relative drop of {MAIN_NAMES[accuracy.main]}: {human.percent(accuracy.relative_drop)}"
    if accuracy.interval is not None:
        line += f"; 95 % interval over images: {human.percent_range(accuracy.interval)}"
    return [say(line, QUIET)]


def _output_figures(outputs: OutputAgreement) -> tuple[str, str]:
    ratio = "-" if outputs.sqnr_db is None else f"{outputs.sqnr_db:.1f} dB"
    return ratio, f"{outputs.max_abs_error or 0:.3g}"


def _kept(accuracy: Accuracy) -> list[RenderableType]:
    """Say that the float model was not evaluated anew, where that is so."""
    if accuracy.baseline != "kept":
        return []
    return [say("the float model was evaluated by an earlier compile; `yqc cache`", QUIET)]


MAIN_NAMES = {
    "map": "mAP",
    "mask.map": "mask mAP",
    "keypoints.map": "keypoint mAP",
    "rotated.map": "rotated mAP",
    "top1": "top-1",
}
"""How the main figure of a task is called in tables."""


def score_rows(scores: Scores | None) -> list[tuple[str, float | None]]:
    """Name the figures of a task, then COCO's six of boxes by IoU and by size of object."""
    names = ("50-95", "50", "75", "small", "medium", "large")
    if scores is None:
        return [(name, None) for name in names]
    if scores.top1 is not None:
        return [("top-1", scores.top1), ("top-5", scores.top5)]
    parts = {"mask": scores.mask, "keypoints": scores.keypoints, "rotated": scores.rotated}
    rows: list[tuple[str, float | None]] = []
    for name, part in parts.items():
        if part is not None:
            rows += [(f"{name} 50-95", part.map), (f"{name} 50", part.map50)]
    if scores.rotated is not None:  # There are no upright boxes.
        return rows
    values = (scores.map, scores.map50, scores.map75, scores.small, scores.medium, scores.large)
    of = "box " if rows else ""
    return [*rows, *((of + name, value) for name, value in zip(names, values, strict=True))]


def scores_heading(scores: Scores | None) -> str:
    """Name what `score_rows` lists."""
    return "mAP" if scores is None or scores.top1 is None else "accuracy"


def agreement_figures(agreement: Agreement) -> list[tuple[str, float | None]]:
    """Name the figures of an agreement."""
    if agreement.top1 is not None:
        return [("same class", agreement.top1)]
    return [("AP50", agreement.ap50), ("mAP", agreement.map)]


def checks(verification: Verification, latency: Latency | None) -> RenderableType:
    """Show whether the file computes what the graph does, and how fast it is."""
    rows = _round_trip(verification)
    rows += [("latency", "not measured")] if latency is None else latency_rows(latency)
    return fields(rows, LABEL)


def latency_rows(latency: Latency) -> list[tuple[str, RenderableType]]:
    """Name the figures of the latency; load times only where the compiled file's is much longer."""
    before, after = map(human.milliseconds, (latency.float_ms, latency.compiled_ms))
    rows: list[tuple[str, RenderableType]] = [
        ("latency", f"{before} -> {after} ms, {latency_ratio(latency)}"),
        ("  10 to 90 %", latency_spans(latency)),
        ("  in", latency_conditions(latency)),
    ]
    if latency.loads_slowly:
        rows.append(("  load", f"{' -> '.join(map(human.milliseconds, latency.load_ms))} ms"))
    return rows


def latency_ratio(latency: Latency) -> str:
    """Print the ratio with its interval."""
    low, high = map(human.times, latency.interval)
    return f"{human.times(latency.ratio)} as fast (95 %: {low} to {high})"


def latency_spans(latency: Latency) -> str:
    """Print between which times eight tenths of the rounds lie, of either file."""
    spans = zip(latency.p10, latency.p90, strict=True)
    return " -> ".join(" to ".join(map(human.milliseconds, span)) for span in spans) + " ms"


def latency_conditions(latency: Latency) -> str:
    """Print under what the latency was measured."""
    threads = human.plural(latency.threads, "thread")
    rounds = human.plural(latency.rounds, "round")
    return f"{latency.runtime} {latency.version}, {threads}, {rounds} in turn"


def warnings(messages: Sequence[str]) -> RenderableType:
    """Show what the user should know before trusting the numbers."""
    return fields([("warning", say(one)) for one in messages], style=ALERT)


def layers_table(layers: Sequence[Layer]) -> RenderableType:
    """Show how each layer is stored, the layers of one part of the model under its name.

    "w/a" is bits of the weights and of the activations, "-" for float; "damage" is what rounding
    the weights does to the detections, where that was measured.
    """
    heads = ["layer", "how", "shape", "w/a", "bytes", "dB"]
    judged = any(one.sensitivity is not None for one in layers)
    table = columns(*heads, *(["damage"] if judged else []), words=2)
    for role in dict.fromkeys(one.role for one in layers):
        table.add_row(say(role or "elsewhere"))
        for one in (one for one in layers if one.role == role):
            how = (one.scheme, one.granularity, one.rounding)
            table.add_row(
                say(f"  {one.name}"),
                say(" ".join(word for word in how if word) or human.MISSING, QUIET),
                "x".join(map(str, one.shape)) or human.MISSING,
                f"{one.weight_bits or human.MISSING}/{one.activation_bits or human.MISSING}",
                human.byte_count(one.weight_bytes),
                human.decibels(one.sqnr_db),
                *([human.magnitude(one.sensitivity)] if judged else []),
            )
    return Trimmed(table)


def sensitivity_table(rows: Sequence[Sensitivity], most: int = 10) -> RenderableType:
    """Show the most sensitive layers."""
    table = columns("costs most alone", "dB", "agreement", words=1, label=LABEL, figure=FIGURE)
    for one in rows[:most]:
        table.add_row(say(one.name), human.decibels(one.sqnr_db), human.fraction(one.agreement))
    if len(rows) > most:
        table.add_row(say(f"and {len(rows) - most} more", QUIET))
    return Trimmed(table)


def swaps_table(rows: Sequence[Swap], most: int = 5) -> RenderableType:
    """Show the swapped activations that do most damage: its share, and the means of their fits."""
    names = ("costs most swapped", "damage", "error", "a", "b", "m")
    table = columns(*names, words=1, label=LABEL, figure=FIGURE)
    total = sum(one.damage or 0.0 for one in rows) or 1.0
    for one in sorted(rows, key=lambda one: -(one.damage or 0.0))[:most]:
        table.add_row(
            say(f"{one.layer}  {one.was} -> {one.now}"),
            *(f"{share or 0.0:.1%}" for share in ((one.damage or 0.0) / total, one.error)),
            *(f"{values[1] or 0.0:.2f}" for values in (one.a, one.b, one.m)),
        )
    if len(rows) > most:
        table.add_row(say(f"and {len(rows) - most} more", QUIET))
    return Trimmed(table)


def device_table(device: DeviceFit) -> RenderableType:
    """Show how many nodes a device does not take, by kind: why, and what removes them."""
    before, after = device.unfit_before, len(device.unfit)
    counts = f"{before} nodes of the float file do not fit, {after} of this one's {device.nodes}"
    rows: list[tuple[str, RenderableType]] = [("device", counts)]
    if device.inserted:
        rows.append(("  inserted", ", ".join(device.inserted)))
    rows += [("  left", Group(say(kind), say(fix, QUIET))) for kind, fix in device.groups]
    if device.slow_activations:
        slow = human.plural(device.slow_activations, "activation")
        swap = f"; {device.swap} puts in one that is" if device.swap else ""
        rows.append(("  slow", f"{slow} that the device's file does not name as fast{swap}"))
    return fields(rows, LABEL)


def written_files(files: Sequence[WrittenFile]) -> RenderableType:
    """Name the files that a command left behind, and how big they are."""
    names = ["wrote", *([""] * (len(files) - 1))]
    paths = [say(one.path).append(f"  {human.byte_count(one.bytes)}", QUIET) for one in files]
    return fields(zip(names, paths, strict=True) if files else [])


def _round_trip(verification: Verification) -> list[tuple[str, RenderableType]]:
    """One line with the larger errors if all is well; else one for each way to run the file."""
    if verification.not_run:
        said = f"valid, not run: onnxruntime does not know {verification.not_run}"
        return [("file vs graph", say(said, ALERT))]
    on, off = verification.optimized, verification.unoptimized
    pairs = ((on.boxes, off.boxes), (on.scores, off.scores), (on.extra, off.extra))
    larger = (max((v for v in pair if v is not None), default=None) for pair in pairs)
    worst = RoundTripError(**dict(zip(("boxes", "scores", "extra"), larger, strict=True)))
    if verification.within_tolerance is None:
        if worst.boxes is None:
            return [("file vs graph", "not compared")]
        return [("file vs graph", f"{_errors(worst)} (rounding differs by runtime)")]
    if verification.within_tolerance:
        equal = say("equal within tolerance", GOOD)
        return [("file vs graph", equal.append(f": {_errors(worst)}", "default"))]
    return [
        ("file vs graph", say("NOT equal within tolerance", ALERT)),
        ("  optimised run", _errors(on)),
        ("  plain run", _errors(off)),
    ]


def _errors(error: RoundTripError) -> str:
    """Write the differences; that of mask numbers and angles where there is one."""
    said = f"boxes {human.magnitude(error.boxes)}, scores {human.magnitude(error.scores)}"
    return f"{said}, masks or angles {human.magnitude(error.extra)}" if error.extra else said
