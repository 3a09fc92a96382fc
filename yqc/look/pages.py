"""Print views, diffs and explanations as tables for 80 columns."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Group as Lines
from rich.console import RenderableType
from rich.style import Style
from rich.text import Text

from yqc.look.diff import Diff, LayerBytes, ParamChange
from yqc.look.explained import Explanation, Group
from yqc.look.view import NodeView, OnnxSummary, View
from yqc.report import human, render
from yqc.report.layout import (
    ALERT,
    GOOD,
    HEAD,
    LABEL,
    QUIET,
    Trimmed,
    columns,
    fields,
    indented,
    listing,
    say,
    say_unbroken,
)
from yqc.report.parts import NodeNumbers, number_names

GONE = Style(color="red")
_LINES = {"+": GOOD, "-": GONE, "@": HEAD}
_NODES_SHOWN = 6


def nodes_table(view: View) -> RenderableType:
    """List the nodes: name, op, what each computes, and the bytes it stores."""
    table = columns("node", "op", "type", "bytes", words=3)
    for role in dict.fromkeys(item.role for item in view.items):
        if role:
            table.add_row(say(role, HEAD))
        for item in (i for i in view.items if i.role == role):
            stored = human.byte_count(item.bytes) if item.bytes else ""
            table.add_row(
                say(f"  {item.name}" if role else item.name), say(item.op), say(item.type), stored
            )
    return Trimmed(table)


@render.register
def onnx_summary(found: OnnxSummary) -> RenderableType:
    """Summarise an ONNX file: inputs, outputs, ops, bytes, and what its metadata says."""
    view = found.view
    ops = Counter(op for item in view.items for op in item.onnx)
    stored = {s.name: s.bytes for item in view.items for s in item.stored}
    rows: list[tuple[str, RenderableType]]
    rows = [("file", say(view.title)), ("", human.byte_count(found.bytes))]
    rows += [("input", say(f"{i.name} {i.type}")) for i in view.items if i.op == "placeholder"]
    rows += [("output", say(f"{n} {t}")) for n, t in view.items[-1].facts.items()]
    counted = sorted(ops.items(), key=lambda one: (-one[1], one[0]))
    weights = human.byte_count(sum(stored.values()))
    rows.append(("weights", f"{weights} in {human.plural(len(stored), 'tensor')}"))
    rows.append(("ops", listing(f"{count} {op}" for op, count in counted)))
    rows += [(key, say(value)) for key, value in sorted(found.metadata.items())]
    return fields(rows, LABEL)


@render.register
def node_page(found: NodeView) -> RenderableType:
    """Show all that is known of a node, and the nodes around it."""
    item = found.node
    rows: list[tuple[str, RenderableType]] = [
        ("computes", say(item.expression)),
        ("type", say(item.type)),
        ("onnx", say(", ".join(item.onnx) or "nothing of its own")),
        ("module", say(item.path)),
        ("role", say(item.role)),
        ("inputs", listing(item.inputs)),
        ("users", listing(item.users)),
    ]
    rows += [
        ("stores", say(f"{s.name}: {s.type}, {human.byte_count(s.bytes)}")) for s in item.stored
    ]
    rows += [(name, say(value)) for name, value in item.facts.items()]
    kept = "as it was traced" if found.code else "not kept in this file"
    chain = zip(("channels", *("" for _ in range(1, 99))), found.channels, strict=False)
    rows += [(name, say(line)) for name, line in chain]
    rows.append(("history", say(item.history[0] if item.history else kept)))
    rows += [("", say(event)) for event in item.history[1:]]
    shown = [row for row in rows if str(row[1]) or row[0] in {"inputs", "users"}]
    head = say(f"%{item.name}", HEAD)
    return Lines(head, "", fields(shown, 12), "", *_graph_lines(found.near, item.name))


def _graph_lines(view: View, marked: str) -> list[Text]:
    """List nodes, one a line however long, and a mark before one of them."""
    lines = ((one.line, one.name == marked) for one in view.items)
    return [
        say_unbroken(f"> {line}", HEAD) if is_one else say_unbroken(f"  {line}")
        for line, is_one in lines
    ]


@render.register
def diff_page(diff: Diff) -> RenderableType:
    """Show what was compared, how often each op occurs, and the nodes and weights that differ."""
    lines = diff.unified[2:] or (" every node does the same",)
    shown = [say_unbroken(line, _LINES.get(line[:1], "")) for line in lines]
    if any(diff.unpacking):
        before, after = diff.unpacking
        shown.append(say(f"not listed: {before} and {after} nodes that only unpack weights", QUIET))
    return Lines(diff_head(diff), "", *shown, *diff_params(diff))


def diff_head(diff: Diff) -> RenderableType:
    """Show what was compared, and how often each op occurs."""
    sides = fields([("-", say(diff.before)), ("+", say(diff.after))], 1)
    return Lines(sides, "", _op_counts(diff))


def diff_params(diff: Diff) -> list[RenderableType]:
    """Show the weights and bytes that differ, where they were compared."""
    if diff.params is None or diff.bytes is None:
        return []
    return ["", _params(diff.params), "", _bytes(diff.bytes)]


def _op_counts(diff: Diff) -> RenderableType:
    table = columns("op", "-", "+", "change")
    for one in diff.ops:
        sign = "=" if not one.delta else f"{one.delta:+d}"
        style = QUIET if not one.delta else GOOD if one.delta > 0 else GONE
        table.add_row(say(one.op, style), str(one.before), str(one.after), say(sign, style))
    total = [sum(getattr(one, side) for one in diff.ops) for side in ("before", "after")]
    change = f"{total[1] - total[0]:+d}" if total[0] != total[1] else "="
    table.add_row(say("all", HEAD), *map(str, total), change)
    return Trimmed(table)


def _params(params: Sequence[ParamChange]) -> RenderableType:
    if not params:
        return say("every weight and bias is the same, up to float rounding", QUIET)
    table = columns("parameter", "shape", "largest difference", words=2)
    for one in params:
        table.add_row(say(one.name), say(_shapes(one)), human.magnitude(one.largest))
    return Trimmed(table)


def _shapes(one: ParamChange) -> str:
    old, new = (
        "none" if shape is None else "x".join(map(str, shape)) or "1"
        for shape in (one.shape_before, one.shape_after)
    )
    return old if old == new else f"{old} -> {new}"


def _bytes(layers: Sequence[LayerBytes]) -> RenderableType:
    if not layers:
        return say("every layer stores as many bytes", QUIET)
    table = columns("stored by", "-", "+", "change")
    before, after = (sum(getattr(one, side) for one in layers) for side in ("before", "after"))
    for one in (*layers, LayerBytes(name="all of these", before=before, after=after)):
        change = human.byte_count(abs(one.after - one.before))
        sign = "+" if one.after > one.before else "-"
        sizes = human.byte_count(one.before), human.byte_count(one.after)
        table.add_row(say(one.name), *sizes, f"{sign}{change}")
    return Trimmed(table)


@render.register
def explain_page(found: Explanation) -> RenderableType:
    """Show what passes would do, and what they refuse and why."""
    parts: list[RenderableType] = []
    for one in found.passes:
        done, refused = one.counts
        after = say(f"  after {one.after}" if one.after else "", QUIET)
        counts = f"{human.plural(done, 'rewrite')}, {human.plural(refused, 'refusal')}"
        parts += [say(one.text, HEAD).append_text(after), say(counts)]
        if one.lines:
            parts += ["", Trimmed(indented(*map(say, one.lines)))]
        if one.rewrites:
            parts += ["", _groups("would do", one.rewrites, "")]
        if one.skips:
            parts += ["", _groups("refuses, since", one.skips, ALERT)]
        if one.values:
            parts += ["", numbers_table(one.values)]
        parts.append("")
    return Lines(*parts[:-1])


def numbers_table(values: Sequence[NodeNumbers]) -> RenderableType:
    """List the numbers that a pass recorded of nodes, a column a name."""
    names = number_names(values)
    table = columns("node", *names, words=1)
    for one in values:
        shown = (f"{one.numbers[n]:.6g}" if n in one.numbers else "" for n in names)
        table.add_row(say(one.node), *map(say, shown))
    return Trimmed(table)


def _groups(head: str, groups: Sequence[Group], style: Style | str) -> RenderableType:
    table = columns("", head, "nodes", words=3)
    for one in groups:
        shown, more = one.nodes[:_NODES_SHOWN], len(one.nodes) - _NODES_SHOWN
        names = [*shown, f"and {more} more"] if more > 0 else list(shown)
        table.add_row(f"{len(one.nodes)}x", say(one.what, style), listing(names, QUIET))
    return Trimmed(table)
