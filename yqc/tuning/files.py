"""The files of the front: compiled once more, measured on images that the search has not seen."""

import shutil
import tempfile
import time as clocks
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any, Protocol

from yqc.data import Data
from yqc.errors import BudgetError, OutputError
from yqc.models.source import Source
from yqc.pipeline.registry import Registry
from yqc.progress import Progress
from yqc.report import Accuracy
from yqc.settings import Drop, Settings
from yqc.tuning.front import Front, FrontPoint
from yqc.tuning.page import write_page
from yqc.tuning.pareto import choose_best, find_front, meets, thin_out
from yqc.tuning.question import SUFFIXES, Question, replace_files
from yqc.tuning.search import Search
from yqc.tuning.trials import Compiles, Outcome

OVER = 1.15
"""The files of the front end before this multiple of the time."""
MOST_POINTS = 12
"""Points of the front that get files. Half of it is a coarse choice, double takes twice as long."""


class TunedSession(Compiles, Protocol):
    """What a search needs of `yqc.Session`."""

    model: Any
    source: Source
    settings: Settings
    data: Data | None
    registry: Registry | None
    progress: Progress

    @property
    def choosing(self) -> Callable[[], Compiles]:
        """Returns the session of trials: its evaluation images are those held out."""
        ...


def write_front(session: TunedSession, question: Question, search: Search, began: float) -> Front:
    """Compile the points of the front once more, evaluate them, and move all files in place.

    Raises:
        BudgetError: there is no point.
        OutputError: the files cannot be written.
    """
    whole = find_front(search.found)
    best = choose_best(whole, question.budget, question.prefer)
    if best is None:
        reasons = [one.failed for one in search.outcomes.values() if one.failed]
        if not reasons:
            raise BudgetError("the time was over before a trial had ended; give more --time")
        raise BudgetError(f"none of {len(reasons)} trials gave a file; the first: {reasons[0]}")
    chosen = thin_out(whole, MOST_POINTS, best)
    end = None if question.seconds is None else began + OVER * question.seconds
    try:
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=question.output) as folder:
            stage = Path(folder)
            results = compile_points(session, question, chosen, best, stage, end)
            made = [one for one in chosen if one in results]
            names = {one: f"{i:02}" for i, one in enumerate(made, 1)}
            for one, name in names.items():
                for suffix in SUFFIXES:
                    file = results[one].files.beside(suffix)
                    file.replace(stage / f"{name}{suffix}")
                    if one is best:
                        shutil.copy2(stage / f"{name}{suffix}", stage / f"best{suffix}")
            front = make_front(session, question, search, names, results, best)
            front = replace(
                front, seconds=clocks.monotonic() - began, left_out=len(whole) - len(made)
            )
            (stage / "front.json").write_text(front.to_json(), encoding="utf-8", newline="\n")
            (stage / "front.html").write_text(write_page(front), encoding="utf-8", newline="\n")
            replace_files(question.output, stage)
    except OSError as error:
        raise OutputError(f"cannot write {question.output}: {error.strerror or error}") from error
    return front


def compile_points(
    session: TunedSession,
    question: Question,
    chosen: Sequence[Outcome],
    best: Outcome,
    stage: Path,
    end: float | None,
) -> dict[Outcome, Any]:
    """Compile points of the front, the best one first, until the time is over; at least that one.

    Returns:
        The `Result` of each.
    """
    results = dict[Outcome, Any]()
    latency = question.latency and question.measure is None
    with session.progress.task("front", total=len(chosen)) as advance:
        for number, one in enumerate(sorted(chosen, key=lambda point: point is not best)):
            began, output = clocks.monotonic(), stage / f"new{number}.onnx"
            how: dict[str, Any] = {"output": output, "latency": latency, "html": False}
            results[one] = session.compile(one.passes, **how)
            advance(1)
            if end is not None and 2 * clocks.monotonic() - began > end:
                break
    return results


def make_front(
    session: TunedSession,
    question: Question,
    search: Search,
    names: dict[Outcome, str],
    results: dict[Outcome, Any],
    best: Outcome,
) -> Front:
    """Put together what is known of the front; names are those of the files."""
    known, settings = search.outcomes.values(), session.settings
    within = meets(best, question.budget)
    return Front(
        model=session.source.path,
        data=settings.data or "",
        target=settings.target,
        budget=str(question.budget),
        main=results[best].report.accuracy.main,
        relative=question.drop.relative,
        trials=len(known),
        failed=sum(bool(one.failed) for one in known),
        seconds=0.0,
        held_out=settings.held_out or 0,
        threads=settings.threads or 1,
        points=tuple(
            make_point(name, one, results[one].report, question) for one, name in names.items()
        ),
        best=names[best] if within else None,
        nearest=None if within else names[best],
        results=tuple(results[one] for one in names),
    )


def make_point(name: str, found: Outcome, report: Any, question: Question) -> FrontPoint:  # noqa: ANN401
    """Put together what the search and the final compile measured of a point."""
    accuracy, latency = report.accuracy, report.latency
    loss = question.drop.of(accuracy)
    return FrontPoint(
        name=name,
        passes=found.passes,
        bytes=report.size.file_bytes,
        ms=found.ms,
        ratio=None if latency is None else latency.ratio,
        chosen_drop=found.drop or 0.0,
        drop=loss,
        relative_drop=accuracy.relative_drop,
        interval=accuracy.interval,
        sure=_chance(question.budget.drop, loss, accuracy),
        missed=question.budget.missed(loss=found.drop, size=found.bytes, ms=found.ms),
        seconds=found.seconds,
    )


def _chance(drop: Drop | None, loss: float | None, accuracy: Accuracy) -> float | None:
    """Return how sure it is that a loss is within the budget, taking it as normal."""
    if drop is None or loss is None or accuracy.interval is None:
        return None
    low, high = accuracy.interval
    spread = (high - low) / (2 * 1.96)
    if not drop.relative and accuracy.relative_drop:
        spread *= abs(loss / accuracy.relative_drop)
    if spread <= 0:
        return float(loss <= drop.value)
    return NormalDist().cdf((drop.value - loss) / spread)
