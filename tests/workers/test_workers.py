"""Jobs of processes: what a killed process loses, and memory that is watched."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from yqc.errors import CheckpointError
from yqc.settings import SettingError
from yqc.workers import LocalWorkers, Opening, choose_jobs
from yqc.workers.jobs import run_job, session_of, unlimited
from yqc.workers.memory import MemoryWatch


def open_nothing(model: Any, **choices: Any) -> Any:
    """Open a session that is its model."""
    del choices
    if model == "bad":
        raise CheckpointError("it cannot be read")
    return model


@dataclass(frozen=True)
class Small:
    """A job that counts how often it ran, and may kill its process."""

    name: str
    folder: Path
    opening: Opening = Opening(open_nothing, "model", {})  # noqa: RUF009  # it is frozen
    dies: int = 0
    seconds: float = 0.0

    def run(self, session: Any, folder: Path) -> str:
        path = folder / self.name
        runs = len(path.read_text()) if path.exists() else 0
        path.write_text("x" * (runs + 1))
        if runs < self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        return f"{session} {self.name}"

    def fail(self, why: str) -> str:
        return why


def test_a_session_is_opened_once_and_one_that_cannot_be_is_a_result(tmp_path: Path) -> None:
    opened = list[str]()

    def open_counted(model: Any, **_: Any) -> Any:
        opened.append(model)
        return model

    first, second = (Opening(open_counted, name, {}) for name in "ab")
    assert [session_of(one) for one in (first, first, second, first)] == ["a", "a", "b", "a"]
    assert opened == ["a", "b", "a"]
    bad = Small("x", tmp_path, Opening(open_nothing, "bad", {}))
    assert run_job(bad, tmp_path) == "it cannot be read"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_job_whose_process_is_killed_takes_no_other_one_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = multiprocessing.get_context("fork")  # it imports nothing anew
    monkeypatch.setattr("yqc.workers.processes.multiprocessing.get_context", lambda _: fork)
    deaths = {"a": 0, "b": 1, "c": 9, "d": 0, "e": 0}
    jobs = [Small(name, tmp_path, dies=count, seconds=0.3) for name, count in deaths.items()]
    workers = LocalWorkers(2)
    workers.memory.needed = 1
    ended = workers.run([[job] for job in jobs], unlimited)
    found = {cast("Small", job).name: result for job, result in ended}
    workers.stop()
    killed = found.pop("c")
    assert found == {name: f"model {name}" for name in "abde"}, "whatever ran beside them"
    assert "was killed" in killed


def test_jobs_of_a_group_run_side_by_side_once_its_first_has_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    together, ended = threading.Barrier(2, timeout=10), list[str]()

    def run(job: Small, _: Path) -> tuple[str, int]:
        if job.name != "a":
            assert ended == ["a"]
            together.wait()
        ended.append(job.name)
        return job.name, 0

    monkeypatch.setattr("yqc.workers.processes._run", run)
    monkeypatch.setattr(LocalWorkers, "_fits", lambda *_: True)
    workers = LocalWorkers(jobs=2)
    with ThreadPoolExecutor(2) as threads:
        workers.pool = threads  # type: ignore[assignment]  # it submits alike
        group = [Small(name, tmp_path) for name in "abc"]
        found = [result for _, result in workers.run([group], unlimited)]
    assert (found[0], sorted(found)) == ("a", ["a", "b", "c"])


def test_a_job_waits_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = MemoryWatch(needed=100)
    free = 150
    monkeypatch.setattr("yqc.workers.memory.free_memory", lambda: free)
    assert watch.fits(0, [])
    assert not watch.fits(1, [])
    watch.learn(60)
    assert watch.needed == 60
    assert watch.fits(1, [])
    assert not watch.fits(2, [])
    watch.learn(40)
    assert watch.needed == 60, "the largest one counts"


def test_so_many_jobs_as_never_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yqc.workers.memory.total_memory", lambda: 2 << 30)
    assert choose_jobs(5) == 5
    with pytest.raises(SettingError, match=r"--jobs 6 do not fit: each takes 419 MB .* 5 may"):
        choose_jobs(6)
