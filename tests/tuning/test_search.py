"""The search: rounds, resuming, halving; and the front that it leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from yqc.errors import OutputError, PipelineError
from yqc.pipeline.registry import Registry
from yqc.progress import Silent
from yqc.report.pareto import dominates
from yqc.settings import Budget, Drop
from yqc.tuning.pareto import choose_best, find_front, thin_out
from yqc.tuning.runner import TrialRunner
from yqc.tuning.search import Clock, Search, run_search
from yqc.tuning.space import SearchSpace
from yqc.tuning.trials import Outcome, measure_by_command
from yqc.workers import choose_jobs

STEPS = [10, 30, 90]
BUDGET = Budget(max_drop="2%")


def fake_outcome(passes: str) -> Outcome:
    """A made-up result: smaller files lose more, longer trainings less."""
    size, drop = 1000.0, 0.0
    for word, factor, loss in (
        ("int4", 0.25, 0.01),
        ("codebook", 0.26, 0.009),
        ("fp16", 0.5, 0.0),
        ("int8", 0.5, 0.004),
        ("prune", 0.3, 0.05),
        ("relu", 1.0, 0.02),
    ):
        if word in passes:
            size, drop = size * factor, drop + loss
    for steps, share in ((90, 0.1), (30, 0.3), (10, 0.6)):
        if f"steps={steps}" in passes:
            drop *= share
    if "macs" in passes:
        return Outcome(passes, failed="made to fail")
    return Outcome(passes, bytes=int(size), drop=drop)


class Made(TrialRunner):
    """Runs made-up trials, and stops like a killed process after some of them."""

    def __init__(self, folder: Path, ends_after: int = 10**6) -> None:
        super().__init__(None, None, Drop(0.02, relative=True), folder)  # type: ignore[arg-type]
        self.left, self.ran = ends_after, list[str]()

    def run(self, groups: Any, deadline: Any) -> Iterator[tuple[int, Outcome]]:
        del deadline
        for number, passes in (task for group in groups for task in group):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            self.ran.append(passes)
            yield number, fake_outcome(passes)


def search(folder: Path, **about: Any) -> Search:
    space = SearchSpace.default(Registry.default(), STEPS, trains=True)
    return Search(folder / "journal.log", {"model": "x", **about}, space, 0, 2)


def run(found: Search, workers: TrialRunner, trials: int) -> None:
    run_search(
        found, workers, Clock(None), most=trials, budget=BUDGET, measure=None, progress=Silent()
    )


def test_a_killed_search_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    whole, workers = search(tmp_path / "a"), Made(tmp_path)
    run(whole, workers, 18)
    expected = [one.passes for one in whole.outcomes.values()]
    assert len(expected) == len({*expected}) == 18
    assert expected[:3] == ["fp16", "int8", "int4"]
    for killed in (1, 14):
        folder = tmp_path / str(killed)
        folder.mkdir()
        first = Made(tmp_path, killed)
        with pytest.raises(KeyboardInterrupt):
            run(search(folder), first, 18)
        again, second = search(folder), Made(tmp_path)
        run(again, second, 18)
        assert {*(one.passes for one in again.outcomes.values())} == {*expected}
        assert len(first.ran) + len(second.ran) == 18
        assert find_front(again.found) == find_front(whole.found)


def test_trainings_of_the_front_are_tried_again_longer(tmp_path: Path) -> None:
    found = search(tmp_path)
    run(found, Made(tmp_path), 24)
    tried = {one.passes for one in found.outcomes.values()}
    for steps in (10, 30):
        assert f"prune{{ratio=0.5 recover=0s}},recover{{steps={steps}}},int8" in tried


def test_no_pipeline_runs_twice_and_failures_count(tmp_path: Path) -> None:
    found, workers = search(tmp_path), Made(tmp_path)
    run(found, workers, 24)
    assert len(workers.ran) == len({*workers.ran}) == 24
    assert any(one.failed for one in found.outcomes.values())
    assert not any(one.failed for one in found.found)


def test_invalid_pipelines_are_not_run(tmp_path: Path) -> None:
    found = search(tmp_path)

    def refuse(passes: str) -> None:
        if "int8" in passes:
            raise PipelineError("no")

    found.check, workers = refuse, Made(tmp_path)
    run(found, workers, 8)
    assert workers.ran
    assert not any("int8" in passes for passes in workers.ran)


def test_another_search_is_not_gone_on_with(tmp_path: Path) -> None:
    search(tmp_path)
    search(tmp_path)
    with pytest.raises(OutputError, match="differs in model; leave --resume out"):
        search(tmp_path, model="y")


def point(size: int, drop: float, ms: float | None = None) -> Outcome:
    return Outcome(f"{size} {drop}", bytes=size, drop=drop, ms=ms)


def test_the_front_and_the_best_of_it() -> None:
    points = [point(10, 0.05), point(20, 0.01), point(30, 0.01), point(40, 0.0), point(40, 0.02)]
    front = find_front([*points, point(20, 0.01)])
    assert front == [points[0], points[1], points[3]]
    assert choose_best(front, Budget(max_drop="1%"), "size") == points[1]
    assert choose_best(front, Budget(max_drop="0"), "size") == points[3]
    assert choose_best(front, Budget(max_drop="0", max_size=39), "size") == points[3]
    assert choose_best([], Budget(), "size") is None
    timed = [point(10, 0.05, 9.0), point(20, 0.01, 3.0), point(30, 0.0, 8.0)]
    assert choose_best(timed, Budget(max_drop="6%"), "size") == timed[0]
    assert choose_best(timed, Budget(max_drop="6%"), "speed") == timed[1]
    assert choose_best(timed, Budget(max_ms=1), "speed") == timed[1]  # the nearest
    assert dominates((1, 1), (1, 2))
    assert not dominates((1, 1), (1, 1))


def test_a_long_front_is_thinned_out_around_the_best() -> None:
    points = [point(100 + i, 1 - i / 100) for i in range(50)]
    kept = thin_out(points, 12, points[17])
    assert len(kept) == 12
    assert {points[0], points[17], points[-1]} <= {*kept}


@pytest.mark.parametrize(
    ("command", "ms", "why"),
    [
        ("echo warm 3 took 12.5ms", 12.5, ""),
        ("echo {onnx}", None, "printed no number"),
        ("false", None, "exit status 1"),
        ("/no/such/program", None, "cannot be run"),
        ("sleep 9", None, "was killed"),
    ],
)
def test_a_command_measures(
    command: str, ms: float | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yqc.tuning.trials.MEASURED_IN", 0.3)
    found, said = measure_by_command(command, Path("x.onnx"))
    assert found == ms
    assert why in said


def test_jobs_are_as_many_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yqc.workers.memory.free_memory", lambda: 1 << 30)
    assert choose_jobs(None) == 1
    assert choose_jobs(3) == 3
