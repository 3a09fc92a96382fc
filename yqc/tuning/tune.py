"""Answer how small, or how fast, a model can be at a given loss: search, then measure the front."""

import functools
import math
import shutil
import tempfile
import time as clocks
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Protocol

from yqc.data import Data
from yqc.errors import BudgetError, DataError, OutputError
from yqc.graph.compare import macs
from yqc.job.baseline import write_float_file
from yqc.job.speed import time_compiled
from yqc.models.source import Source
from yqc.pipeline.base import Given
from yqc.pipeline.pipeline import Pipeline
from yqc.pipeline.registry import Registry
from yqc.progress import Progress, Silent
from yqc.settings import Budget, Drop, SettingError, Settings
from yqc.store import user_store
from yqc.store.folders import is_marked, mark
from yqc.targets import find_target
from yqc.tuning.front import Front, FrontPoint
from yqc.tuning.page import write_page
from yqc.tuning.pareto import Prefer, choose_best, find_front, meets, thin_out
from yqc.tuning.search import Clock, Search, run_search
from yqc.tuning.space import SearchSpace
from yqc.tuning.trials import Compiles, Measure, Outcome, measure_by_command
from yqc.tuning.workers import Opening, Workers, choose_jobs

TIME = 1800.0
"""Seconds of a search by default."""
FOR_TRIALS = 0.75
"""Share of the time that trials get; the rest is for the front's files. Half of it leaves much of
the time unused, at 0.9 the files of a long front come after the time is over."""
OVER = 1.15
"""The files of the front end before this multiple of the time."""
HELD_OUT = 128
"""Training images to choose by, at most; at most a quarter of them. On half as many, a difference
between two pipelines is known 1.4 times worse; double leaves fewer to calibrate and train on."""
FEWEST = 8
"""Images to choose by, at least."""
MOST_POINTS = 12
"""Points of the front that get files. Half of it is a coarse choice, double takes twice as long."""
LOSS = "1%"
"""Loss that is allowed where no bound is given."""
LONGEST = 0.2
"""Share of a worker's time that the longest training of the search takes, a third and a ninth of
it the shorter ones. Half of it recovers less, double leaves time for few of them."""
RATE = 1.2e10
"""Multiply-accumulates a second that training is taken to compute on one thread: 0.27 of what one
core of a server computes in matrix products. Another number changes how long trainings are."""
BACKWARD = 5
"""Runs of the graph that a step takes for each image: the original's, and forth and back."""
IMAGES = 4
"""Images of a step."""
SEARCH = ".search"
"""Folder of the journal in the output folder."""


class TunedSession(Compiles, Protocol):
    """What a search needs of `yqc.Session`."""

    model: Any
    source: Source
    settings: Settings
    data: Data | None
    registry: Registry | None
    progress: Progress

    def choosing(self) -> Compiles:
        """Return the session of trials: its evaluation images are those held out."""
        ...


@dataclass(frozen=True)
class Question:
    """What `yqc tune` is asked; see `tune`."""

    budget: Budget
    output: Path
    seconds: float | None
    trials: int | None
    prefer: Prefer
    jobs: int
    latency: bool
    measure: str | None
    resume: bool

    @property
    def drop(self) -> Drop:
        """The largest loss; where none is given, losses are counted relatively."""
        return self.budget.drop or Drop(math.inf, relative=True)


def make_question(
    budget: Budget | None = None,
    *,
    output: str | Path = "tuned",
    time: float | None = None,
    trials: int | None = None,
    prefer: Prefer | None = None,
    jobs: int | None = None,
    latency: bool = True,
    measure: str | None = None,
    resume: bool = False,
    target: str = "onnxruntime",
) -> Question:
    """Check what is asked, before any work.

    Raises:
        SettingError: parts of it contradict each other.
        OutputError: the output folder holds something else.
    """
    budget = budget or Budget()
    if budget == Budget():
        budget = Budget(max_drop=LOSS)
    runs = measure is not None or find_target(target).runtime is not None
    if not latency and (budget.ms is not None or measure is not None):
        raise SettingError("--no-latency", "contradicts --max-ms and --measure; leave it out")
    wants_speed = budget.ms is not None or prefer == "speed"
    if wants_speed and not (latency and runs):
        why = f"{target} does not run here; give --measure" if latency else "--no-latency is given"
        raise SettingError("--max-ms or --prefer speed", f"needs times, and {why}")
    if time is not None and time <= 0:
        raise SettingError("--time", "must be above 0, such as 30m")
    if trials is not None and trials < 1:
        raise SettingError("--trials", "must be 1 or more")
    only_ms = budget.ms is not None and budget.size is None and budget.drop is None
    return Question(
        budget,
        check_folder(Path(output)),
        TIME if time is None and trials is None else time,
        trials,
        prefer or ("speed" if only_ms else "size"),
        choose_jobs(jobs),
        latency and runs,
        measure,
        resume,
    )


def tune(
    session: TunedSession,
    question: Question,
    *,
    opening: Callable[..., Compiles] | None,
    space: SearchSpace | Path | None = None,
) -> Front:
    """Search pipelines, and write the files of those that no other one beats.

    Args:
        session: the model and its data, images held out of the training ones.
        question: what is asked.
        opening: opens the session of trials in another process; None: all run in this one.
        space: what may be tried, or its TOML file; by default what passes declare.

    Raises:
        BudgetError: no trial gave a file.
        YqcError: something cannot be read or written.
    """
    data, began = session.data, clocks.monotonic()
    if data is None or data.held is None:
        raise DataError("a search needs data to choose by; give --data")
    registry = session.registry or Registry.default()
    drop, progress = question.drop, session.progress
    if isinstance(space, Path):
        space = SearchSpace.read(space, registry)
    space = space or default_space(session, question, registry)
    folder = open_folder(question)
    search = Search(
        folder / "journal.log",
        _about(session, question, space, data),
        space,
        session.settings.seed,
        3 if question.latency else 2,
        functools.partial(_check, registry, session.settings.target),
    )
    with tempfile.TemporaryDirectory(prefix="yqc-tune-") as trials:
        load = tuple(Path(path) for path, _ in registry.files)
        choices = _choices(session.settings)
        jobs = question.jobs if opening is not None else 1
        opener = Opening(opening or type(session), session.model, choices, load)
        alone = session.choosing() if jobs == 1 else None
        workers = Workers(opener, drop, Path(trials), jobs, alone)
        seconds = None if question.seconds is None else FOR_TRIALS * question.seconds
        try:
            run_search(
                search,
                workers,
                Clock(seconds, began),
                most=question.trials,
                budget=question.budget,
                measure=make_measure(session, question, Path(trials)),
                progress=progress,
            )
        except KeyboardInterrupt:
            progress.note("interrupted: the files of the front so far are written")
        finally:
            workers.stop()
    return write_front(session, question, search, began)


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
        why = f"; the first: {reasons[0]}" if reasons else ""
        raise BudgetError(f"no trial gave a file whose loss is known{why}")
    chosen = thin_out(whole, MOST_POINTS, best)
    order = sorted(chosen, key=lambda one: one is not best)  # the best first: time may run out
    end = None if question.seconds is None else began + OVER * question.seconds
    stage = Path(tempfile.mkdtemp(prefix=".partial-", dir=question.output))
    try:
        results = dict[Outcome, Any]()
        with session.progress.task("front", total=len(order)) as advance:
            for one in order:
                began_one = clocks.monotonic()
                name = f"{chosen.index(one) + 1:02}"
                results[one] = session.compile(
                    one.passes,
                    output=stage / f"{name}.onnx",
                    latency=question.latency and question.measure is None,
                    html=False,
                )
                advance(1)
                took = clocks.monotonic() - began_one
                if end is not None and clocks.monotonic() + took > end:
                    break
        points = [
            make_point(f"{i:02}", one, results[one].report, question)
            for i, one in enumerate(chosen, 1)
            if one in results
        ]
        name = f"{chosen.index(best) + 1:02}"
        for suffix in (".onnx", ".report.json", ".recipe.toml"):
            shutil.copy2(stage / f"{name}{suffix}", stage / f"best{suffix}")
        known = search.outcomes.values()
        within = meets(best, question.budget)
        report = results[best].report
        front = Front(
            model=session.source.path,
            data=str(session.data.source) if session.data else "",
            target=session.settings.target,
            budget=str(question.budget),
            main=report.accuracy.main,
            relative=question.drop.relative,
            trials=len(known),
            failed=sum(bool(one.failed) for one in known),
            seconds=clocks.monotonic() - began,
            held_out=session.settings.held_out or 0,
            threads=session.settings.threads or 1,
            points=tuple(points),
            best=name if within else None,
            nearest=None if within else name,
            left_out=len(whole) - len(points),
            results=tuple(results[one] for one in chosen if one in results),
        )
        (stage / "front.json").write_text(front.to_json(), encoding="utf-8")
        (stage / "front.html").write_text(write_page(front), encoding="utf-8")
        replace_files(question.output, stage)
        return front
    except OSError as error:
        raise OutputError(f"cannot write {question.output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


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


def _chance(drop: Drop | None, loss: float | None, accuracy: Any) -> float | None:  # noqa: ANN401
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


def default_space(session: TunedSession, question: Question, registry: Registry) -> SearchSpace:
    """Return what passes declare, with trainings as long as the time allows."""
    steps = training_steps(session.source, question.seconds)
    trains = bool(session.data and session.data.train.images) and session.source.form is not None
    return SearchSpace.default(registry, steps, trains=trains)


def training_steps(source: Source, seconds: float | None) -> list[int]:
    """Return the lengths of trainings in steps, from the time and the size of the graph alone."""
    seconds = LONGEST * (seconds or TIME) * FOR_TRIALS
    step = IMAGES * BACKWARD * max(1, macs(source.gm)) / RATE
    longest = max(9, seconds / step)
    lengths = [longest / 9, longest / 3, longest]
    return sorted({max(1, round(n, 1 - len(str(int(n))))) for n in map(int, lengths)})


def count_held_out(data: Data) -> int:
    """Return how many training images to hold out.

    Raises:
        DataError: there are too few.
    """
    count = min(HELD_OUT, len(data.train.images) // 4)
    if count < FEWEST:
        raise DataError(
            f"{data.source} has {len(data.train.images)} training images; a search needs "
            f"{4 * FEWEST}, a quarter of which it chooses by"
        )
    return count


def make_measure(session: TunedSession, question: Question, folder: Path) -> Measure | None:
    """Return what times a file: in the target's runtime, or by the user's command."""
    if not question.latency:
        return None
    if question.measure is not None:
        return functools.partial(measure_by_command, question.measure)
    plain, source, settings = folder / "float.onnx", session.source, session.settings
    write_float_file(source, settings, user_store(), plain)
    target = find_target(settings.target)

    def measure(onnx: Path) -> tuple[float | None, str]:
        how: dict[str, Any] = {"imgsz": source.imgsz, "threads": settings.threads or 1}
        timed, why = time_compiled(plain, onnx, target, **how, progress=Silent())
        return (None, why[0]) if timed is None else (timed.compiled_ms, "")

    return measure


def check_folder(folder: Path) -> Path:
    """Return a folder that may be written to: none yet, an empty one, or one of an earlier search.

    Raises:
        OutputError: it holds something else, or is no folder.
    """
    if folder.is_dir():
        if any(folder.iterdir()) and not is_marked(folder / SEARCH):
            raise OutputError(f"{folder} holds something else; choose another folder with -o")
    elif folder.exists() or folder.is_symlink():
        raise OutputError(f"{folder} is no folder; choose another one with -o")
    elif not folder.absolute().parent.is_dir():
        raise OutputError(f"there is no folder {folder.parent}; make it first")
    return folder


def open_folder(question: Question) -> Path:
    """Make the output folder and that of the journal; without --resume an older journal goes.

    Raises:
        OutputError: that is not possible.
    """
    folder = question.output / SEARCH
    try:
        if is_marked(folder) and not question.resume:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not is_marked(folder):
            mark(folder)
        for left in question.output.glob(".partial-*"):
            shutil.rmtree(left, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror}") from error
    return folder


def replace_files(folder: Path, stage: Path) -> None:
    """Move the files of a search in place of those of an earlier one."""
    written = {path.name for path in stage.iterdir()}
    suffixes = (".onnx", ".report.json", ".recipe.toml")
    for path in folder.iterdir():
        stem, _, rest = path.name.partition(".")
        if path.name not in written and f".{rest}" in suffixes and stem.isdigit():
            path.unlink()
    for path in sorted(stage.iterdir()):
        path.replace(folder / path.name)


def _choices(settings: Settings) -> dict[str, Any]:
    """Return settings by name, those that are not the defaults."""
    plain = Settings()
    names = [name for name in vars(plain) if name not in {"passes", "written_for"}]
    return {
        name: getattr(settings, name)
        for name in names
        if getattr(settings, name) != getattr(plain, name)
    }


def _about(
    session: TunedSession, question: Question, space: SearchSpace, data: Data
) -> dict[str, Any]:
    """Return what decides the outcomes of trials."""
    loaded = [sha256 for _, sha256 in space.registry.files]
    return {
        "model": session.source.sha256,
        "data": data.sha256,
        "settings": {k: str(v) for k, v in _choices(session.settings).items()},
        "space": str(space),
        "loaded": loaded,
        "unit": "relative" if question.drop.relative else "absolute",
        "measure": question.measure if question.latency else "none",
    }


def _check(registry: Registry, target: str, passes: str) -> None:
    """Raise a PipelineError if the passes do not fit each other."""
    given = Given(target, has_data=True, can_train=True)
    Pipeline.parse(passes, registry).expand(given=given)
