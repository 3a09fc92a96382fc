"""Write a view in the language of Graphviz."""

from collections.abc import Mapping

import networkx as nx

from yqc.look.view import View
from yqc.report.human import clean

COLOURS = {
    "backbone": "#dbe9f6",
    "neck": "#e2f0d9",
    "head.box": "#fde9d0",
    "head.cls": "#f9dcd9",
    "head.mask": "#f5dcec",
    "head.proto": "#e3def6",
    "head.keypoint": "#f5dcec",
    "head.angle": "#f5dcec",
    "head.logits": "#f9dcd9",
    "head.decode": "#ececec",
}


def as_dot(view: View, marked: Mapping[str, str] | None = None) -> str:
    """Write a view in Graphviz's language, coloured by role; the same view gives the same text.

    Args:
        view: the graph.
        marked: names of nodes to fill in a colour of their own, `{"conv": "#ffcc00"}`.
    """
    lines = [
        "digraph yqc {",
        "  rankdir=TB;",
        '  node [shape=box, style="rounded,filled", fontname="Helvetica", fontsize=10];',
    ]
    names = {item.name for item in view.items}
    for item in view.items:
        fill = (marked or {}).get(item.name) or COLOURS.get(item.role, "#ffffff")
        label = "\\n".join(_escape(part) for part in (item.name, item.op, item.type) if part)
        lines.append(f'  "{_escape(item.name)}" [label="{label}", fillcolor="{fill}"];')
    for item in view.items:
        lines += [
            f'  "{_escape(source)}" -> "{_escape(item.name)}";'
            for source in item.inputs
            if source in names
        ]
    return "\n".join([*lines, "}"]) + "\n"


def groups_dot(groups: "nx.Graph[str]") -> str:
    """Write what belongs together in Graphviz's language, one box a node; pinned ones in yellow."""
    lines = ["graph yqc {", "  rankdir=LR;", "  node [shape=box, style=filled];"]
    for name, about in groups.nodes.items():
        pin = str(about.get("pinned") or "")
        fill, note = ("#ffd54a", f"\\n{_escape(pin)}") if pin else ("#dbe9f6", "")
        lines.append(f'  "{_escape(name)}" [label="{_escape(name)}{note}", fillcolor="{fill}"];')
    lines += [f'  "{_escape(a)}" -- "{_escape(b)}";' for a, b in groups.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _escape(text: str) -> str:
    return clean(text).replace("\\", "\\\\").replace('"', '\\"')
