"""Answer how small, or how fast, a model can be at a given loss: search, then measure the front."""

import functools
import tempfile
import time as clocks
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yqc.data import Data
from yqc.errors import DataError, OutputError
from yqc.evaluation import openvino
from yqc.graph.compare import macs
from yqc.job.baseline import write_float_file
from yqc.job.speed import time_compiled
from yqc.models.source import Source
from yqc.pipeline.base import Given
from yqc.pipeline.pipeline import Pipeline
from yqc.pipeline.registry import Registry
from yqc.progress import Progress, Silent, Stage, expect
from yqc.settings import SettingError, Settings
from yqc.store import user_store
from yqc.store.folders import make_temporary, open_work_folder, remove_left, remove_locked
from yqc.targets import find_target
from yqc.tuning.files import TunedSession, write_front
from yqc.tuning.front import Front
from yqc.tuning.question import SEARCH, TIME, Question
from yqc.tuning.runner import TrialRunner
from yqc.tuning.search import Clock, Search, run_search
from yqc.tuning.space import SearchSpace
from yqc.tuning.trials import Compiles, Measure, measure_by_command
from yqc.workers import LocalWorkers, Opening, RayWorkers, time_alone

FOR_TRIALS = 0.75
"""Share of the time that trials get; the rest is for the front's files. Half of it leaves much of
the time unused, at 0.9 the files of a long front come after the time is over."""
HELD_OUT = 128
"""Training images to choose by, at most; at most a quarter of them. On half as many, a difference
between two pipelines is known 1.4 times worse; double leaves fewer to calibrate and train on."""
FEWEST = 8
"""Images to choose by, at least."""
LONGEST = 0.25
"""Share of a worker's time that the longest training of the search takes, a third and a ninth of
it the shorter ones. Half of it recovers less, double leaves time for few of them."""
RATE = 3e10
"""Multiply-accumulates a second of training on one thread: yolov8n at 320 px takes 0.7 s a step
on a server's core. Another number only changes how long trainings are."""
BACKWARD = 5
"""Runs of the graph that a step takes for each image: the original's, and forth and back."""
IMAGES = 4
"""Images of a step."""
TRIALS = "yqc-tune-"
"""How the names of folders begin that hold the files of trials."""
OVERHEAD = 0.1
"""Seconds of a step of a tiny graph: reading and augmenting images, calling the graph's nodes."""


def tune(
    session: TunedSession,
    question: Question,
    *,
    opening: Callable[..., Compiles] | None,
    space: SearchSpace | Path | None = None,
    cluster: RayWorkers | None = None,
) -> Front:
    """Search pipelines, and write the files of those that no other one beats.

    Args:
        session: the model and its data, images held out of the training ones.
        question: what is asked.
        opening: opens the session of trials in another process; None: all run in this one.
        space: what may be tried, or its TOML file; by default what passes declare.
        cluster: runs the trials in place of processes here, and takes times.

    Raises:
        BudgetError: no trial gave a file.
        YqcError: something cannot be read or written.
    """
    data, began = session.data, clocks.monotonic()
    if data is None or data.held is None:
        raise DataError("a search needs data to choose by; give --data")
    if question.latency and question.measure is None and cluster is None:
        _check_runtime(session.settings.target)
    registry = session.registry or Registry.default()
    drop, progress = question.drop, session.progress
    if isinstance(space, Path):
        space = SearchSpace.read(space, registry)
    space = space or default_space(session, question, registry)
    folder = open_work_folder(question.output, SEARCH, resume=question.resume)
    search = Search(
        folder / "journal.log",
        _about(session, question, space, data),
        space,
        session.settings.seed,
        3 if question.latency else 2,
        functools.partial(_check, registry, session.settings.target),
    )
    with _foreseen(progress, question.seconds), temporary_folder() as trials:
        load = tuple(Path(path) for path, _ in registry.files)
        choices = _choices(session.settings)
        jobs = question.jobs if opening is not None else 1
        opener = Opening(opening or type(session), session.model, choices, load)
        alone = session.choosing() if jobs == 1 and cluster is None else None
        workers = LocalWorkers(jobs, alone) if cluster is None else cluster
        runner = TrialRunner(workers, opener, drop, trials)
        seconds = None if question.seconds is None else FOR_TRIALS * question.seconds
        try:
            run_search(
                search,
                runner,
                Clock(seconds, began),
                most=question.trials,
                budget=question.budget,
                measure=make_measure(session, question, trials, cluster),
                progress=progress,
            )
        except KeyboardInterrupt:
            progress.note("interrupted: the files of the front so far are written")
        finally:
            workers.stop()
        return write_front(session, question, search, began)


def _check_runtime(target: str) -> None:
    """Raise a SettingError unless the runtime of a target runs here."""
    if find_target(target).runtime == "openvino" and not openvino.installed():
        raise SettingError(
            "--target",
            f"{target} is timed by OpenVINO, which is not installed; pip install openvino, or give "
            "--measure or --no-latency",
        )


@contextmanager
def _foreseen(progress: Progress, seconds: float | None) -> Iterator[None]:
    """Announce how long trials and the front's files take, where that was asked."""
    if seconds is None:
        yield
        return
    trials = FOR_TRIALS * seconds
    with progress.task("searching", total=0):
        expect(progress, [Stage("trials", trials, True), Stage("front", seconds - trials, True)])
        yield


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give a folder for the files of trials; what killed searches have left there goes."""
    parent = Path(tempfile.gettempdir())
    for left in parent.glob(f"{TRIALS}*"):
        remove_left(left)
    try:
        folder, lock = make_temporary(TRIALS, parent)
    except OSError as error:
        raise OutputError(f"cannot write into {parent}: {error.strerror}") from error
    try:
        yield folder
    finally:
        remove_locked(folder, lock)


def default_space(session: TunedSession, question: Question, registry: Registry) -> SearchSpace:
    """Return what passes declare, with trainings as long as the time allows."""
    steps = training_steps(session.source, question.seconds)
    trains = bool(session.data and session.data.train.images) and session.source.form is not None
    return SearchSpace.default(registry, steps, trains=trains)


def training_steps(source: Source, seconds: float | None) -> list[int]:
    """Return the lengths of trainings in steps, from the time and the size of the graph alone."""
    seconds = LONGEST * (seconds or TIME) * FOR_TRIALS
    step = OVERHEAD + IMAGES * BACKWARD * macs(source.gm) / RATE
    longest = max(9, seconds / step)
    lengths = [longest / 9, longest / 3, longest]
    return sorted({max(1, round(n, 2 - len(str(int(n))))) for n in map(int, lengths)})


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


def make_measure(
    session: TunedSession, question: Question, folder: Path, cluster: RayWorkers | None = None
) -> Measure | None:
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
        if cluster is None:
            timed, why = time_compiled(plain, onnx, target, **how, progress=Silent())
        else:
            timed, why = time_alone(cluster, plain, onnx, target, **how)
        return (None, why[0]) if timed is None else (timed.compiled_ms, "")

    return measure


def _choices(settings: Settings) -> dict[str, Any]:
    """Return settings by name, those that are not the defaults."""
    plain = Settings()
    names = [name for name in vars(plain) if name not in {"passes", "written_for", "given"}]
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
