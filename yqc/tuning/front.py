"""The front that a search found: its points, their files, and how they are shown."""

from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Group, RenderableType

from yqc.report import human
from yqc.report.contract import Json, to_plain
from yqc.report.layout import NAME, QUIET, Trimmed, columns, fields, say
from yqc.report.shown import Shown, render


@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """One file of the front. Losses are relative or absolute, as the budget is."""

    name: str
    """Of its files: NAME.onnx, NAME.report.json, NAME.recipe.toml."""
    passes: str
    bytes: int
    ms: float | None
    """Milliseconds an image, as the search measured them."""
    ratio: float | None
    """How many times as fast as the float model's file, measured on the final file."""
    chosen_drop: float
    """Loss on the images held out, by which the search chooses."""
    drop: float | None
    """Loss on the evaluation images, which are read once, when the search is over."""
    relative_drop: float | None
    interval: tuple[float, float] | None
    """95 % interval of `relative_drop`."""
    sure: float | None
    """Chance that the loss is within the budget, by that interval; None without one."""
    missed: tuple[str, ...]
    """Bounds that it does not keep, by the images held out."""
    seconds: float
    """Of the passes of its trial."""


@dataclass(frozen=True, kw_only=True)
class Front(Shown):
    """What `yqc tune` found: no point is smaller, more accurate and faster than another."""

    model: str
    data: str
    target: str
    budget: str
    main: str | None
    """The figure whose loss counts; None: agreement with the float model, for want of labels."""
    relative: bool
    """Whether losses are shares of the float model's figure."""
    trials: int
    failed: int
    seconds: float
    held_out: int
    """Training images that the search chose by."""
    threads: int
    points: tuple[FrontPoint, ...]
    """By size, the smallest first."""
    best: str | None
    """Name of the point within the budget whose files `best.*` are; None if there is none."""
    nearest: str | None
    """Name of the point that comes nearest, where none is within the budget."""
    left_out: int = 0
    """Points of the front that no files were written for."""
    results: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    """The compile of each point, a `Result`; not in JSON."""

    def to_dict(self) -> Json:
        """Return what `--json` prints."""
        plain = to_plain(replace(self, results=()))
        if isinstance(plain, dict):
            del plain["results"]
        return plain

    def show_drop(self, loss: float | None) -> str:
        """Print a loss in the unit of the budget."""
        if loss is None:
            return human.MISSING
        return human.percent(loss) if self.relative else human.fraction(loss)


@render.register
def front_table(front: Front) -> RenderableType:
    """Show the front, what was asked, and the best point."""
    timed = any(point.ms is not None for point in front.points)
    heads = ["file", "bytes", *(["ms"] if timed else []), "chosen by", "drop", "95 %", "sure"]
    table = columns(*heads)
    for point in front.points:
        mark = " *" if point.name == (front.best or front.nearest) else ""
        figures = [human.byte_count(point.bytes)]
        figures += [human.milliseconds(point.ms)] if timed else []
        figures += [front.show_drop(point.chosen_drop), front.show_drop(point.drop)]
        figures += [human.percent_range(point.interval)]
        figures += [human.MISSING if point.sure is None else f"{100 * point.sure:.0f} %"]
        table.add_row(say(point.name + mark), *figures)
    pipelines = [(point.name, say(point.passes)) for point in front.points]
    rows = [
        ("model", say(f"{front.model}, for {front.target}")),
        ("budget", say(front.budget)),
        ("search", say(_searched(front))),
    ]
    figure = front.main or "agreement with the float model"
    note = (
        f"loss of {figure}: chosen by {front.held_out} training images held out, drop on the "
        "evaluation images; sure: the chance that it is within the budget"
    )
    parts: list[RenderableType] = [fields(rows), "", table, Trimmed(say(note, QUIET)), ""]
    parts += [fields(pipelines, NAME), ""] if pipelines else []
    return Group(*parts, *(say(line) for line in _verdict(front)))


def _searched(front: Front) -> str:
    parts = [human.plural(front.trials, "trial"), human.duration(front.seconds)]
    parts += [f"{front.failed} failed"] if front.failed else []
    return ", ".join([*parts, human.plural(front.threads, "thread") + " a trial"])


def _verdict(front: Front) -> list[str]:
    """Say which point is the best, or which bound keeps all of them out."""
    lines: list[str] = []
    if front.left_out:
        lines.append(f"{human.plural(front.left_out, 'further point')} between these without files")
    if front.best is not None:
        return [*lines, f"* best.onnx is {front.best}.onnx, the best within the budget"]
    if front.nearest is None:
        return [*lines, "no trial gave a file"]
    point = next(one for one in front.points if one.name == front.nearest)
    names = " and ".join(f"--{name.replace('_', '-')}" for name in point.missed)
    return [
        *lines,
        f"* no file is within the budget; {front.nearest}.onnx is nearest: {names} binds",
    ]
