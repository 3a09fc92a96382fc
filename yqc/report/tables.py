"""The tables of the other commands: passes, explain, inspect, eval, bench."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType

from yqc.report import human
from yqc.report.layout import (
    ALERT,
    FIGURE,
    HEAD,
    LABEL,
    NAME,
    QUIET,
    Trimmed,
    columns,
    fields,
    hanging,
    listing,
    say,
    steps,
)
from yqc.report.parts import Skip
from yqc.report.rows import (
    Bench,
    CacheListing,
    EvalResult,
    ModelSummary,
    NodeCost,
    PassHelp,
    PassList,
)
from yqc.report.shown import render
from yqc.report.terminal import MAIN_NAMES, score_rows, scores_heading, warnings

_NAMES_SHOWN = 12
_INDENT = re.compile(r"\s+|\s*([-*]|\d+[.)]) +")
_ITEM = re.compile(r"\s*(\d+\.|[-*])\s+")


@render.register
def cache_table(found: CacheListing) -> RenderableType:
    """Show what is kept between runs: kinds, entries, bytes; where, and how much it may be."""
    table = columns("kept", "entries", "bytes", label=LABEL, figure=FIGURE)
    for one in found.kinds:
        table.add_row(say(one.what), str(one.entries), human.byte_count(one.bytes))
    sizes = f"{human.byte_count(found.bytes)} of {human.byte_count(found.bound)}"
    return Trimmed(Group(table, say(f"{sizes} in {found.path}", QUIET)))


@render.register
def passes_table(found: PassList) -> RenderableType:
    """List recipes, then passes: what each does in a line, and which package or file it is from."""
    table = columns("name", "what it does", "from", words=3)
    groups = {True: ("recipes", "what to ask for"), False: ("passes", "what recipes are made of")}
    for is_recipe, (title, meaning) in groups.items():
        listed = [one for one in found.passes if one.recipe == is_recipe]
        if listed:
            table.add_row(say(title, HEAD), say(meaning, QUIET))
        for one in listed:
            summary = say(_without_name(one.name, one.doc).removesuffix("."))
            table.add_row(say(f"  {one.name}"), summary, say(one.origin, QUIET))
            for name in one.added:
                table.add_row(say(f"    {name.option}={name.name}"), "", say(name.origin, QUIET))
    if found.targets:
        table.add_row(say("targets", HEAD), say("beside yqc's own", QUIET))
    for name in found.targets:
        table.add_row(say(f"  {name.name}"), "", say(name.origin, QUIET))
    return Trimmed(table)


@render.register
def pass_help(about: PassHelp) -> RenderableType:
    """Explain one pass: its docstring, its options, what it needs and gives."""
    head = say(about.name, HEAD).append_text(say(f"  from {about.origin}", QUIET))
    facts: list[tuple[str, RenderableType]] = []
    if about.expands_to is not None:
        facts.append(("runs", steps(about.expands_to)))
    if about.requires:
        facts.append(("requires", listing(about.requires)))
    if about.excludes:
        facts.append(("excludes", listing(about.excludes)))
    if about.provides:
        facts.append(("provides", listing(about.provides)))
    parts = [head, "", *_prose(_without_name(about.name, about.doc))]
    if facts:
        parts += ["", fields(facts)]
    return Trimmed(Group(*parts, "", _options(about)))


def skips_table(name: str, rewrites: int, skips: Sequence[Skip]) -> RenderableType:
    """Explain what a pass did and refused: each reason, how often, and at which nodes."""
    head = f"{name} rewrites {human.plural(rewrites, 'place')} and skips {len(skips)}"
    if not skips:
        return say(head)
    table = columns("count", "why", "nodes", words=3)
    for why, count in Counter(one.why for one in skips).most_common():
        nodes = listing((one.node for one in skips if one.why == why), QUIET)
        table.add_row(f"{count}x", say(why), nodes)
    return Trimmed(Group(say(head), "", table))


@render.register
def inspect_table(model: ModelSummary) -> RenderableType:
    """Summarise a model file without its graph; lines without a value are left out."""
    blocks = sorted(model.blocks.items(), key=lambda block: (-block[1], block[0]))
    rows: list[tuple[str, RenderableType]] = [
        ("file", model.path),
        ("", say(f"{human.byte_count(model.bytes)}, sha256 {model.sha256[:12]}", QUIET)),
        ("model", ", ".join(filter(None, (model.name, model.family)))),
        ("task", model.task or ""),
        ("classes", str(len(model.names) or "")),
        ("", listing(_first(model.names), QUIET) if model.names else ""),
        ("strides", ", ".join(map(str, model.strides))),
        ("trained at", " x ".join(map(str, model.imgsz or ()))),
        ("output", model.output or ""),
        ("parameters", "" if model.params is None else human.amount(model.params)),
        ("MACs", "" if model.macs is None else human.amount(model.macs)),
        ("blocks", listing(f"{count} {kind}" for kind, count in blocks) if blocks else ""),
        ("unknown", listing(model.unknown, ALERT) if model.unknown else ""),
    ]
    parts: list[RenderableType] = [fields(row for row in rows if row[1] != "")]
    if model.advice:
        parts += ["", Trimmed(Group(*map(_as_written, model.advice.splitlines())))]
    if model.warnings:
        parts += ["", warnings(model.warnings)]
    return Group(*parts)


@render.register
def eval_table(result: EvalResult) -> RenderableType:
    """Show the figures of one file."""
    table = columns(scores_heading(result.scores), "", label=NAME)
    for name, value in score_rows(result.scores):
        table.add_row(name, human.fraction(value))
    on = human.plural(result.images, "image")
    if result.unreadable:
        on += f" ({result.unreadable} more could not be read)"
    rows = [("file", say(result.path)), ("on", say(on))]
    if result.interval is not None:
        ends = " to ".join(map(human.fraction, result.interval))
        rows.append((f"{MAIN_NAMES[result.main]}, 95 %", say(f"{ends}, over the choice of images")))
    if result.seconds_total is not None:
        duration = human.duration(result.seconds_total)
        if result.seconds_session is not None:
            duration += f", of which {human.duration(result.seconds_session)} in the network"
        rows.append(("took", say(duration)))
    doubts = ["", warnings(result.warnings)] if result.warnings else []
    return Group(fields(rows), "", Trimmed(table), *doubts)


@render.register
def bench_table(bench: Bench) -> RenderableType:
    """Show the latency of each file, and of the first against every other; then that of nodes."""
    table = columns("file", "size", "median ms", "10 to 90 %", "ratio", "95 %")
    for row in bench.rows:
        low, high = human.milliseconds(row.p10_ms), human.milliseconds(row.p90_ms)
        table.add_row(
            say(row.path),
            human.byte_count(row.bytes),
            human.milliseconds(row.median_ms),
            human.MISSING if row.p10_ms is None else f"{low} to {high}",
            human.times(row.ratio),
            " to ".join(map(human.times, row.interval)) if row.interval else human.MISSING,
        )
    rounds, threads = human.plural(bench.runs, "round"), human.plural(bench.threads, "thread")
    how = [f"{rounds} in turn", threads, f"{bench.runtime} {bench.version or ''}".strip()]
    how += [bench.precision] if bench.precision else []
    how += ["end to end"] if bench.end_to_end else []
    meaning = "ratio: how many times as fast as the first file, with its 95 % interval"
    lines = [", ".join([*how, bench.cpu]), meaning, *_long_loads(bench)]
    parts: list[RenderableType] = [table, *(say(line, QUIET) for line in lines)]
    for name, costs in (bench.nodes or {}).items():
        title = say(f"{name}, milliseconds a run by kernel:")
        parts += ["", title, *map(say, _node_lines(costs))]
    return Trimmed(Group(*parts))


def _node_lines(costs: Sequence[NodeCost], shown: int = 12) -> Iterator[str]:
    """List the time of nodes: by type of arithmetic, by kernel, and the slowest one by one."""
    kinds, kernels = defaultdict[str, float](float), defaultdict[tuple[str, str], float](float)
    count = Counter((cost.kind, cost.op) for cost in costs)
    for cost in costs:
        kinds[cost.kind] += cost.ms
        kernels[cost.kind, cost.op] += cost.ms
    total = sum(kinds.values()) or 1
    by_time = sorted(kinds.items(), key=lambda one: -one[1])
    yield "  " + ", ".join(f"{kind} {ms:.1f} ({ms / total:.0%})" for kind, ms in by_time)
    for key, ms in sorted(kernels.items(), key=lambda one: -one[1])[:shown]:
        yield f"  {ms:8.2f}  {key[0]:8} {count[key]:4} x {key[1]}"
    yield "  the dearest nodes:"
    yield from (f"  {c.ms:8.2f}  {c.kind:8} {c.op} {c.name}" for c in costs[:shown])


def _long_loads(bench: Bench) -> Iterator[str]:
    """Name the files that take more than twice as long to load as the first."""
    first = bench.rows[0].load_ms
    for row in bench.rows:
        if first and row.load_ms and row.load_ms > 2 * first:
            old, new = map(human.milliseconds, (first, row.load_ms))
            yield f"{row.path} loads in {new} ms, the first file in {old} ms"


def _first(names: tuple[str, ...]) -> list[str]:
    """As many names as fit on two lines or so, and how many more there are."""
    more = len(names) - _NAMES_SHOWN
    return [*names[:_NAMES_SHOWN], f"and {more} more"] if more > 0 else list(names)


_TYPE_WIDTH = 20
"""Columns of the types of options: twice as many leave no room for what they do."""


def _pack_choices(kind: str) -> list[str]:
    """Break a list of choices, `a|b|c`, behind the bars: as many on a line as fit."""
    lines = [""]
    for piece in re.findall(r"[^|]+\|?", kind):
        if lines[-1] and len(lines[-1]) + len(piece) > _TYPE_WIDTH:
            lines.append("")
        lines[-1] += piece
    return lines


def _options(about: PassHelp) -> RenderableType:
    """The options of a pass as a table."""
    if not about.options:
        return say("no options", QUIET)
    table = columns("option", "type", "default", "", words=4)
    for one in about.options:
        kind = Group(*(say(line, QUIET) for line in _pack_choices(one.type)))
        table.add_row(say(one.name), kind, say(one.default or '""'), say(one.doc))
        for name in one.added:
            table.add_row("", say(f"  {name.name}"), "", say(f"from {name.origin}", QUIET))
    return Trimmed(table)


def _without_name(name: str, doc: str) -> str:
    """A docstring without the pass's name, with which it starts by custom."""
    return doc.strip().removeprefix(f"{name}:").strip()


def _prose(doc: str) -> Iterator[RenderableType]:
    """A docstring for any width: paragraphs are filled, lists and indented lines are left."""
    for number, block in enumerate(re.split(r"\n\s*\n", doc)):
        if number:
            yield ""
        lines = block.splitlines()
        if any(_INDENT.match(line) for line in lines):
            yield from (_as_written(line) for line in _filled(lines))
        else:
            yield say(" ".join(lines))


def _filled(lines: Sequence[str]) -> list[str]:
    """Join the lines of each list item: those that are indented just as far as its text."""
    joined: list[str] = []
    hanging = ""
    for line in lines:
        text = line.lstrip()
        if hanging and line.startswith(hanging) and len(line) - len(text) == len(hanging):
            joined[-1] += f" {text}"
            continue
        mark = _ITEM.match(line)
        hanging = " " * mark.end() if mark else ""
        joined.append(line)
    return joined


def _as_written(line: str) -> RenderableType:
    """A line that keeps its indentation and hangs under its list mark where it is folded."""
    mark = _INDENT.match(line)
    if mark is None:
        return say(line)
    return hanging(line[: mark.end()], line[mark.end() :])
