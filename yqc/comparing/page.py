"""The page of a comparison: drawings of size against accuracy, tables, bits of layers."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from yqc.comparing.comparison import (
    Comparison,
    describe_group,
    layers_side_by_side,
    pick_shown,
    show_figure,
)
from yqc.comparing.row import ComparedRow
from yqc.errors import OutputError
from yqc.report import human
from yqc.report.scatter import Axes, Point, draw_points, write_plain_page, write_table

TITLE = "yqc compare"
HEADS = (
    *("file", "bytes", "ratio", "float", "figure", "drop", "95 %", "ms", "speed"),
    *("timed on", "passes"),
)
DRAWN = 1000
"""Points of a drawing at most, those of the front among them. Half of it shows less of a study of
thousands, double makes a page of some hundred kilobytes slow on a phone."""
LABELLED = 30
"""Points of the front that are named beside them; more names cover each other."""
SIDES = 12
"""Files of a model whose bits stand side by side; more do not fit the width of a page."""


def write_page(found: Comparison) -> str:
    """Return the HTML of a comparison."""
    parts = [f"<h1>{human.plural(len(found.rows), 'compile')} compared</h1>"]
    parts += [f"<p>{escape(note)}.</p>" for note in found.notes]
    for rows in found.groups:
        parts += [f"<h2>{escape(describe_group(rows))}</h2>", _drawing(rows)]
        parts.append(write_table(HEADS, map(_cells, rows), texts=2))
    if found.groups:
        note = (
            "In colour: files that no other one of their table beats in bytes, figure and, where "
            "all were timed on one machine, time. ratio: 2 bytes a parameter of the float model "
            "over the bytes of the weights. 95 %: of the relative drop, by bootstrap over the "
            "images. speed: how many times as fast as the float model's file."
        )
        parts.append(f"<p class='note'>{note}</p>")
    if found.failures:
        failed = [(row.model, row.failed, row.passes) for row in found.failures]
        parts += ["<h2>Failed</h2>", write_table(("model", "why", "passes"), failed, texts=2)]
    parts += _layers(found)
    return write_plain_page(TITLE, "".join(parts))


def save_page(found: Comparison, path: Path) -> None:
    """Write the page of a comparison; only an older one is replaced.

    Raises:
        OutputError: it cannot be written, or something else bears its name.
    """
    try:
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                if TITLE not in file.read(400):
                    raise OutputError(f"{path} is something else; choose another name with -o")
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(write_page(found), encoding="utf-8", newline="\n")
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def _drawing(rows: Sequence[ComparedRow]) -> str:
    """Draw bytes against the figure that counts."""
    drawn = [row for row in rows if row.bytes is not None and row.figure is not None]
    front = [row for row in drawn if row.on_front]
    names = len({row.model for row in drawn}) > 1
    points = {row.name: _point(row, len(front) <= LABELLED, names) for row in drawn}
    if not points:
        return ""
    shown = [points[row.name] for row in pick_shown(drawn, DRAWN)]
    shown.sort(key=lambda point: point.kind != "beaten")  # what is on top comes last
    first = drawn[0]
    axes = Axes.around(shown, (), lambda value: show_figure(first, value))
    line = [points[row.name] for row in front]
    return draw_points(shown, axes, line, "Bytes of each file against the figure that counts")


def _point(row: ComparedRow, labelled: bool, with_model: bool) -> Point:
    figure, size = row.figure or 0.0, row.bytes or 0
    ends = (figure, figure)
    if row.interval is not None and row.float_figure is not None:
        lost, kept = row.interval
        ends = (row.float_figure * (1 - kept), row.float_figure * (1 - lost))
    label = f"{row.model} {row.passes}" if with_model else row.passes
    return Point(
        bytes=size,
        value=figure,
        ends=ends if row.on_front else (figure, figure),
        kind="best" if row.on_front else "beaten",
        label=label if labelled and row.on_front else "",
        title=f"{row.name}: {row.passes}",
    )


def _cells(row: ComparedRow) -> list[str]:
    return [
        row.name + (" *" if row.on_front else ""),
        human.byte_count(row.bytes),
        human.times(row.ratio),
        show_figure(row, row.float_figure),
        show_figure(row, row.figure),
        human.MISSING if row.main == "sqnr_db" else human.fraction(row.drop),
        human.percent_range(row.interval),
        human.milliseconds(row.ms),
        human.times(row.speed),
        row.machine or human.MISSING,
        row.passes,
    ]


def _layers(found: Comparison) -> list[str]:
    """Put the bits of layers side by side, folded away."""
    parts = []
    for rows, lines in layers_side_by_side(found.rows, SIDES):
        heads = ["layer", *(row.passes for row in rows)]
        summary = f"bits of weights/activations of {rows[0].model}, layer by layer"
        parts.append(f"<details><summary>{escape(summary)}</summary>")
        parts.append(write_table(heads, lines) + "</details>")
    return parts
