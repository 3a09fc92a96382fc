"""What the second process does is what would be done here; where it fails, it is done here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from yqc import aside


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one core there is no second process."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)


def test_a_call_is_made_by_the_second_process() -> None:
    assert aside.call("os:getpid") == os.getpid()
    with aside.beside("json"):
        first, second = aside.call("os:getpid"), aside.call("os:getpid")
        assert aside.call("json:dumps", {"a": [1]}, indent=None) == '{"a": [1]}'
    assert first == second != os.getpid()
    assert aside.call("os:getpid") == os.getpid()


def test_it_does_not_outlive_its_block() -> None:
    with aside.beside():
        process = aside.call("os:getpid")
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_what_fails_there_fails_here(capfd: pytest.CaptureFixture[str]) -> None:
    with aside.beside():
        with pytest.raises(ValueError, match="invalid literal"):
            aside.call("builtins:int", "x")
        assert aside.call("os:getpid") == os.getpid()  # it has ended
    assert capfd.readouterr() == ("", "")


def test_what_dies_there_is_done_here() -> None:
    with aside.beside():
        second = aside.call("os:getpid")
        assert second != os.getpid()
        os.kill(second, 9)
        assert aside.call("math:sqrt", 4) == 2


def test_what_cannot_be_sent_is_done_here() -> None:
    numbers = (n for n in (1, 2))  # no generator can be pickled
    with aside.beside():
        assert aside.call("builtins:sum", numbers) == 3
    with aside.beside():
        assert next(aside.call("builtins:iter", range(3))) == 0
        lines = aside.call("builtins:open", __file__)  # nor can a file
        assert lines.readline().startswith('"""')
        lines.close()


def test_what_a_library_prints_there_is_no_answer(capfd: pytest.CaptureFixture[str]) -> None:
    with aside.beside():
        assert aside.call("builtins:print", "hello") is None
        assert aside.call("os:write", 1, b"world") == 5
    assert "world" in capfd.readouterr().err


def test_a_module_can_be_kept_out() -> None:
    code = "import sys; assert sys.modules['json'] is None"
    with aside.beside("nothing_of_that_name", without="json"):
        second = aside.call("os:getpid")  # a module that is not there does no harm
        assert aside.call("builtins:exec", code, {}) is None
        assert aside.call("os:getpid") == second != os.getpid()
    with pytest.raises(AssertionError):
        aside.call("builtins:exec", code, {})


def test_it_finds_modules_where_the_first_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere.py").write_text("import os\nwhere = os.getpid\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with aside.beside(), pytest.raises(ModuleNotFoundError):
        aside.call("elsewhere:where")  # the working directory is no place for code
    monkeypatch.syspath_prepend(tmp_path)
    with aside.beside():
        assert aside.call("elsewhere:where") != os.getpid()


def test_one_core_has_no_second_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    with aside.beside():
        assert aside.call("os:getpid") == os.getpid()


def test_it_ends_when_the_first_is_killed() -> None:
    code = (
        "import os, time\nfrom yqc import aside\nos.sched_getaffinity = lambda _: {0, 1}\n"
        "with aside.beside():\n    print(aside.call('os:getpid'), flush=True)\n    time.sleep(60)\n"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as first:  # noqa: S603  # our own code
        assert first.stdout is not None
        assert int(first.stdout.readline()) != first.pid
        first.kill()
        # Until nobody holds the other end of its stderr, which the second process has, too.
        first.communicate(timeout=20)
