"""A comparison of compiles: its rows, and how they are shown."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from rich.console import Group, RenderableType

from yqc.comparing.groups import describe_differences, group_rows
from yqc.comparing.row import ComparedRow
from yqc.report import human
from yqc.report.contract import Json, to_json_lines, to_plain
from yqc.report.layout import NAME, QUIET, Trimmed, columns, say
from yqc.report.layout import fields as field_lines
from yqc.report.shown import Shown, render

SHOWN = 40
"""Rows of a group in the terminal at most, those of the front first: a screen or two. Pages, JSON
and CSV have all."""
SIDES = 6
"""Files whose bits stand side by side in the terminal: more columns do not fit 80 letters."""
LISTED = 100
"""Failures that are listed with their reasons in the terminal."""


@dataclass(frozen=True, kw_only=True)
class Comparison(Shown):
    """Compiles side by side: size, accuracy with its interval, speed, bits of layers."""

    rows: tuple[ComparedRow, ...]
    notes: tuple[str, ...]
    """What keeps rows from being ranked against each other, a sentence each."""

    @classmethod
    def of(cls, rows: Sequence[ComparedRow]) -> Self:
        """Compare rows."""
        return cls(rows=group_rows(rows), notes=describe_differences(rows))

    @property
    def groups(self) -> list[list[ComparedRow]]:
        """The rows that can be ranked against each other, a list for each group, by size."""
        found: dict[int, list[ComparedRow]] = {}
        for row in self.rows:
            if row.group:
                found.setdefault(row.group, []).append(row)
        return [sorted(rows, key=lambda row: row.values) for rows in found.values()]

    @property
    def failures(self) -> list[ComparedRow]:
        """The rows without a file."""
        return [row for row in self.rows if row.failed]

    def to_dict(self) -> Json:
        """Return what `--json` prints."""
        return to_plain(self)

    def to_json(self) -> str:
        """Print it as `--json` does, a row a line."""
        return to_json_lines({"rows": self.rows, "notes": self.notes})

    def to_csv(self) -> str:
        """Return the rows as CSV, a line of names first; bits of layers are left out."""
        out = io.StringIO()
        names = [one.name for one in fields(ComparedRow) if one.name != "bits"]
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(names)
        for row in self.rows:
            writer.writerow([_cell(getattr(row, name)) for name in names])
        return out.getvalue()


def _cell(value: Any) -> str:  # noqa: ANN401  # of any field
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(map(repr, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def describe_group(rows: Sequence[ComparedRow]) -> str:
    """Say what the rows of a group have in common."""
    first = rows[0]
    figure = first.main or "nothing evaluated"
    on = f" on {human.plural(first.images, 'image')} of {first.data}" if first.images else ""
    return f"{figure}{on}, for {first.target}, yqc {first.yqc}"


def show_figure(row: ComparedRow, figure: float | None) -> str:
    """Print a figure of a row."""
    return human.decibels(figure) if row.main == "sqnr_db" else human.fraction(figure)


@render.register
def comparison_table(found: Comparison) -> RenderableType:
    """Show the rows of each group by size, then what failed and what was not ranked."""
    parts: list[RenderableType] = []
    for rows in found.groups:
        parts += [say(describe_group(rows)), _group_table(rows), ""]
    if any(row.on_front for row in found.rows):
        parts += [say("* no other file of its table beats it", QUIET)]
    failures = [(row.model, say(f"{row.passes}: {row.failed}")) for row in found.failures[:LISTED]]
    parts += ["", field_lines(failures, NAME)] if failures else []
    return Group(*parts, *(say(f"note: {note}") for note in found.notes))


def _group_table(rows: Sequence[ComparedRow]) -> RenderableType:
    timed = any(row.ms is not None for row in rows)
    table = columns("model", "passes", "bytes", "ratio", "figure", "drop", "95 %", words=2)
    if timed:
        table.add_column("ms", justify="right", no_wrap=True)
    for row in pick_shown(rows, SHOWN):
        drop = row.drop if row.relative_drop is None else row.relative_drop
        cells = [
            human.byte_count(row.bytes),
            human.times(row.ratio),
            show_figure(row, row.figure),
            human.MISSING if row.main == "sqnr_db" else human.percent(drop),
            human.percent_range(row.interval).removesuffix(" %"),
            *([human.milliseconds(row.ms)] if timed else []),
        ]
        table.add_row(say(row.model), say(row.passes + (" *" if row.on_front else "")), *cells)
    more = len(rows) - SHOWN
    parts: list[RenderableType] = [table]
    if more > 0:
        parts.append(say(f"and {more} more: the page, --json and --csv have all", QUIET))
    return Trimmed(Group(*parts))


def pick_shown(rows: Sequence[ComparedRow], most: int) -> list[ComparedRow]:
    """Return at most so many rows, those of the front first, in their order."""
    order = sorted(range(len(rows)), key=lambda i: (not rows[i].on_front, i))
    return [rows[i] for i in sorted(order[:most])]


def layers_side_by_side(
    rows: Sequence[ComparedRow], most: int
) -> list[tuple[list[ComparedRow], list[list[str]]]]:
    """Put the bits of layers side by side, model by model.

    Args:
        rows: compiles.
        most: files of a model at most, those of the front first.

    Returns:
        For each model its files, and a line for each layer: its name, and its bits in each file.
    """
    models: dict[tuple[str, str], list[ComparedRow]] = {}
    for row in rows:
        if row.bits:
            models.setdefault((row.model, row.model_sha256), []).append(row)
    found = []
    for of_model in models.values():
        picked = pick_shown(of_model, most)
        names = dict.fromkeys(name for row in picked for name in row.bits)
        lines = [[name, *(row.bits.get(name, human.MISSING) for row in picked)] for name in names]
        found.append((picked, lines))
    return found


def layers_tables(found: Comparison) -> RenderableType:
    """Show the bits of weights and activations of each layer, a column for each file."""
    parts: list[RenderableType] = []
    for rows, lines in layers_side_by_side(found.rows, SIDES):
        numbers = [f"[{i}]" for i in range(1, len(rows) + 1)]
        table = columns(rows[0].model, *numbers)
        for line in lines:
            table.add_row(*map(say, line))
        named = [(number, say(row.passes)) for number, row in zip(numbers, rows, strict=True)]
        parts += [field_lines(named, 4), Trimmed(table), ""]
    return Group(*parts)
