"""The search: Optuna suggests pipelines, processes try them, a journal keeps what was found.

Trials are asked for in rounds of a fixed number, and what is suggested depends on the rounds before
alone, whatever order its trials ended in: a search that was killed and resumed goes the same way.
A short training that gives a point of the front is tried again with the next longer one
(successive halving, Jamieson and Talwalkar 2016): lengths grow where they may pay.
"""

import json
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from yqc.errors import OutputError, YqcError
from yqc.progress import Progress
from yqc.report import human
from yqc.settings import Budget
from yqc.tuning.pareto import choose_best, find_front, meets
from yqc.tuning.runner import Task, TrialRunner
from yqc.tuning.space import SearchSpace
from yqc.tuning.trials import Measure, Outcome

ROUND = 4
"""Trials of a round. Half of it leaves cores idle at the end of each more often; double suggests
twice as many before it learns from them."""
SAME = 60
"""Suggestions in a round that were tried before, after which the space counts as exhausted."""
DRAWN = 3
"""Suggestions that were tried before, after which others are drawn at random: the sampler likes
some choices too much to leave them."""
STARTUP = 8
"""Trials before Optuna's sampler learns from them; until then it draws at random."""


@dataclass
class Search:
    """What is known of the pipelines of a space.

    Args:
        journal: the file that keeps it.
        about: what decides the outcomes; a journal of another search is not gone on with.
        space: what may be tried.
        seed: of what is suggested.
        objectives: 2, or 3 with a time.
        check: raises a YqcError for a pipeline whose passes do not fit each other.

    Raises:
        OutputError: the journal is of another search, or cannot be written.
    """

    journal: Path
    about: dict[str, Any]
    space: SearchSpace
    seed: int
    objectives: int
    check: Callable[[str], None] = lambda _: None
    study: optuna.Study = field(init=False)

    def __post_init__(self) -> None:
        optuna.logging.set_verbosity(logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        try:
            storage = JournalStorage(JournalFileBackend(str(self.journal)))
            self.study = optuna.create_study(
                study_name="yqc",
                storage=storage,
                directions=["minimize"] * self.objectives,
                load_if_exists=True,
            )
        except (OSError, ValueError, KeyError) as error:
            raise OutputError(f"cannot keep the search in {self.journal}: {error}") from error
        known = self.study.user_attrs.get("about")
        if known is None:
            self.study.set_user_attr("about", self.about)
            for text in self.space.seeds:
                self._enqueue(text)
        elif known != json.loads(json.dumps(self.about)):
            names = {*known, *self.about}
            differ = sorted(n for n in names if known.get(n) != self.about.get(n))
            raise OutputError(
                f"the search in {self.journal.parent} differs in {', '.join(differ)}; leave "
                "--resume out to start anew"
            )

    @property
    def outcomes(self) -> dict[int, Outcome]:
        """What came of each trial that has ended, by number; of equal pipelines once."""
        found, seen = dict[int, Outcome](), set[str]()
        for trial in self.study.get_trials(deepcopy=False):
            plain = trial.user_attrs.get("outcome")
            if plain is not None and (passes := trial.user_attrs["passes"]) not in seen:
                seen.add(passes)
                found[trial.number] = Outcome.from_dict(plain)
        return found

    @property
    def found(self) -> list[Outcome]:
        """The outcomes that did not fail and have a loss."""
        return [one for one in self.outcomes.values() if not one.failed and one.drop is not None]

    def next_round(self, most: int) -> list[Task]:
        """Return the trials to run: those of an unfinished round, else new ones; none: no more."""
        left = self._running()
        if left:
            return [(one.number, str(one.user_attrs["passes"])) for one in left]
        self._lengthen()
        known = self._known()
        tasks: list[Task] = []
        same = 0
        while len(tasks) < min(ROUND, most) and same < SAME:
            number = len(self.study.get_trials(deepcopy=False))
            self.study.sampler = make_sampler(self.seed + number, learns=same < DRAWN)
            trial = self.study.ask()
            passes = self.space.suggest(trial)
            if passes in known or not self._is_valid(passes):
                self.study.tell(trial, state=TrialState.FAIL)
                same += 1
                continue
            trial.set_user_attr("passes", passes)
            known.add(passes)
            tasks.append((trial.number, passes))
        return tasks

    def record(self, number: int, outcome: Outcome) -> None:
        """Keep what came of a trial."""
        trial_id = self.study.get_trials(deepcopy=False)[number]._trial_id  # noqa: SLF001
        trial = optuna.trial.Trial(self.study, trial_id)
        trial.set_user_attr("outcome", outcome.to_dict())
        if outcome.failed or outcome.drop is None:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, [*outcome.values])

    def _running(self) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for one in trials:  # killed before its pipeline was kept
            if "passes" not in one.user_attrs:
                self.study.tell(one.number, state=TrialState.FAIL)
        return [one for one in trials if "passes" in one.user_attrs]

    def _known(self) -> set[str]:
        trials = self.study.get_trials(deepcopy=False)
        return {str(one.user_attrs["passes"]) for one in trials if "passes" in one.user_attrs}

    def _lengthen(self) -> None:
        """Enqueue the next longer training of each point of the front."""
        known, front = self._known(), find_front(self.found)
        trials = self.study.get_trials(deepcopy=False)
        ended = {
            str(one.user_attrs["passes"]): outcome
            for one in trials
            if (plain := one.user_attrs.get("outcome"))
            and (outcome := Outcome.from_dict(plain)) in front
        }
        waiting = {
            json.dumps(one.system_attrs.get("fixed_params"), sort_keys=True)
            for one in trials
            if one.state == TrialState.WAITING
        }
        for text in sorted(ended, key=lambda text: (ended[text].bytes, text)):  # needed most there
            longer = self.space.longer(text)
            if longer is None or longer in known:
                continue
            if json.dumps(self.space.params_of(longer), sort_keys=True) not in waiting:
                self._enqueue(longer)

    def _enqueue(self, text: str) -> None:
        self.study.enqueue_trial(self.space.params_of(text))

    def _is_valid(self, passes: str) -> bool:
        try:
            self.check(passes)
        except YqcError:
            return False
        return True


def make_sampler(seed: int, *, learns: bool) -> optuna.samplers.BaseSampler:
    """Make what suggests one trial: by those before it, or at random."""
    if not learns:
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True)


@dataclass(frozen=True)
class Clock:
    """The time of a search."""

    seconds: float | None
    """For trials; None: no limit."""
    began: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Return the seconds that are left for trials."""
        if self.seconds is None:
            return float("inf")
        return self.seconds - (time.monotonic() - self.began)


def run_search(
    search: Search,
    runner: TrialRunner,
    clock: Clock,
    *,
    most: int | None,
    budget: Budget,
    measure: Measure | None,
    progress: Progress,
) -> None:
    """Run rounds of trials until time, trials or space are used up.

    Args:
        search: what is known, and what comes next.
        runner: runs the trials.
        clock: the time.
        most: trials to run at most, those of an earlier run included.
        budget: what the best point so far is shown for.
        measure: times a file while no trial runs; None: times do not matter.
        progress: where trials are shown.
    """
    with progress.task("trials", total=most or 0) as ended_one:  # without steps: time is the bound
        ended_one(len(search.outcomes))
        while clock.left() > 0:
            left = ROUND if most is None else most - len(search.outcomes)
            tasks = search.next_round(left)
            if left <= 0 or not tasks:
                return
            texts, ended = dict(tasks), dict[int, Outcome]()
            groups: dict[str, list[Task]] = {}
            for task in tasks:
                groups.setdefault(search.space.prefix(task[1]), []).append(task)
            for number, outcome in runner.run([*groups.values()], clock.left):
                ended[number] = outcome
                if measure is None:
                    search.record(number, outcome)
                    ended_one(1)
                    progress.note(describe(number, texts[number], outcome, search, budget))
            for number, outcome in sorted(ended.items()):
                if measure is None:
                    break
                timed = time_outcome(outcome, runner.folder / f"{number}.onnx", measure)
                search.record(number, timed)
                ended_one(1)
                progress.note(describe(number, texts[number], timed, search, budget))
            for number in ended:
                (runner.folder / f"{number}.onnx").unlink(missing_ok=True)


def time_outcome(outcome: Outcome, onnx: Path, measure: Measure) -> Outcome:
    """Return an outcome with the time of its file, or failed because that could not be taken."""
    if outcome.failed:
        return outcome
    ms, why = measure(onnx)
    return replace(outcome, ms=ms, failed=why)


def describe(number: int, text: str, outcome: Outcome, search: Search, budget: Budget) -> str:
    """Say in a line what came of a trial, and which point is the best so far."""
    if outcome.failed:
        return f"trial {number}: {text}: failed: {outcome.failed}"
    drop = budget.drop
    parts = [human.byte_count(outcome.bytes)]
    if outcome.drop is not None and drop is not None:
        parts.append(f"drop {drop.show(outcome.drop)}")
    if outcome.ms is not None:
        parts.append(f"{human.milliseconds(outcome.ms)} ms")
    best = choose_best(search.found, budget, "size")
    said = ""
    if best is not None:
        within = "best so far" if meets(best, budget) else "nearest so far"
        said = f"; {within} {human.byte_count(best.bytes)}"
    return f"trial {number}: {text}: {', '.join(parts)}{said}"
