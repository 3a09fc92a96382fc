"""Outputs appear whole or not at all, and older ones survive whatever goes wrong."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.command import beside
from yqc.errors import OutputError
from yqc.job.outputs import Outputs
from yqc.store import folders
from yqc.store.folders import MARKER


def write(stage: Outputs, mark: str) -> None:
    for path in (stage.report, stage.onnx, stage.recipe):
        path.write_text(f"{mark} {path.suffixes[-1]}")


def contents(folder: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in folder.iterdir() if p.is_file()}


NEW = {"x.onnx": "new .onnx", "x.report.json": "new .json", "x.recipe.toml": "new .toml"}
OLD = {name: text.replace("new", "old") for name, text in NEW.items()}


@pytest.fixture
def files(tmp_path: Path) -> Outputs:
    return Outputs(tmp_path / "x.onnx")


@pytest.fixture
def older(files: Outputs) -> Outputs:
    """The outputs of an earlier run."""
    write(files, "old")
    return files


def test_names_stand_next_to_each_other() -> None:
    files = Outputs(Path("out/yolov8n-prune-int8.onnx"))
    assert files.report == Path("out/yolov8n-prune-int8.report.json")
    assert files.recipe == Path("out/yolov8n-prune-int8.recipe.toml")
    assert files.reproducer == Path("out/yolov8n-prune-int8.reproducer.yqc")
    assert Outputs(Path("best.v2.onnx")).report == Path("best.v2.report.json")


def test_all_files_appear_at_the_end(files: Outputs, tmp_path: Path) -> None:
    with files.staged() as stage:
        write(stage, "new")
        assert contents(tmp_path) == {}
        assert stage.onnx.name == "x.onnx"
    assert contents(tmp_path) == NEW
    assert len(list(tmp_path.iterdir())) == 3


def test_older_files_are_replaced(older: Outputs, tmp_path: Path) -> None:
    with older.staged() as stage:
        write(stage, "new")
        assert contents(tmp_path) == OLD
    assert contents(tmp_path) == NEW
    assert len(list(tmp_path.iterdir())) == 3


def fail(files: Outputs, error: BaseException) -> None:
    with files.staged() as stage:
        stage.onnx.write_text("half")
        raise error


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(3)])
def test_a_failure_half_way_leaves_older_files_and_nothing_else(
    older: Outputs, tmp_path: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        fail(older, error)
    assert contents(tmp_path) == OLD
    assert len(list(tmp_path.iterdir())) == 3


def test_a_disk_that_is_full_is_an_error_that_says_so(older: Outputs, tmp_path: Path) -> None:
    with pytest.raises(
        OutputError, match=r"x\.onnx: No space left on device; older files are unto"
    ):
        fail(older, OSError(28, "No space left on device"))
    assert contents(tmp_path) == OLD
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_move_that_fails_half_way_puts_everything_back(
    older: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    replace, moved = Path.replace, list[str]()

    def failing(self: Path, target: Path) -> Path:
        if target.parent == tmp_path and not self.name.endswith(".older"):
            moved.append(target.name)
            if len(moved) == nth:
                raise OSError(5, "Input/output error")
        return replace(self, target)

    older.recipe.unlink()
    before = contents(tmp_path)
    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OutputError, match="Input/output error"), older.staged() as stage:
        write(stage, "new")
    assert len(moved) == nth
    assert contents(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_the_onnx_file_is_moved_last(
    files: Outputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for the ONNX file finds the report and the recipe beside it."""
    replace, moved = Path.replace, list[str]()

    def watching(self: Path, target: Path) -> Path:
        moved.extend([target.name] * (target.name != MARKER))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watching)
    with files.staged() as stage:
        write(stage, "new")
    assert sorted(moved) == sorted(NEW)
    assert moved[-1] == "x.onnx"
    assert contents(tmp_path) == NEW


def test_everything_is_on_the_disk_before_it_is_moved(
    files: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with files.staged() as stage:
        write(stage, "new")
    assert len(synced) == 3


# Before any work


def test_a_good_place_is_checked_without_a_trace(files: Outputs, tmp_path: Path) -> None:
    files.check()
    assert list(tmp_path.iterdir()) == []


def refusal(files: Outputs) -> str:
    with pytest.raises(OutputError) as caught:
        files.check()
    return str(caught.value)


def test_another_ending_is_refused() -> None:
    assert refusal(Outputs(Path("x.tflite"))) == "the output x.tflite must end in .onnx"


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "x.onnx"
    assert refusal(Outputs(path)) == (
        f"cannot write {path}: there is no folder {path.parent}; make it first"
    )


@pytest.mark.parametrize("name", ["x.onnx", "x.report.json", "x.recipe.toml"])
def test_a_folder_in_the_way(files: Outputs, name: str) -> None:
    path = files.onnx.with_name(name)
    path.mkdir()
    assert refusal(files) == f"cannot write {path}: a folder of that name is in the way"


def test_a_folder_that_cannot_be_written(files: Outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    assert refusal(files) == (
        f"cannot write into {files.onnx.parent}: Permission denied; choose another place with -o"
    )


@pytest.mark.parametrize("suffix", [".onnx", ".report.json", ".recipe.toml", ".report.html"])
def test_a_pipe_in_the_way(files: Outputs, suffix: str) -> None:
    path = files.beside(suffix)
    os.mkfifo(path)
    assert refusal(files) == f"cannot write {path}: a pipe, socket or device is in the way"


@pytest.mark.parametrize("length", [243, 251, 300, 5000])
def test_a_name_that_is_too_long(tmp_path: Path, length: int) -> None:
    """At 243 letters the ONNX file has a good name, and the report beside it has not."""
    assert "File name too long" in refusal(Outputs(tmp_path / f"{length * 'x'}.onnx"))
    assert list(tmp_path.iterdir()) == []


def test_a_name_with_a_zero_byte(tmp_path: Path) -> None:
    assert "null" in refusal(Outputs(tmp_path / "a\0b.onnx"))


@pytest.mark.parametrize("how", ["same", "hard link", "symbolic link"])
@pytest.mark.parametrize("suffix", [".onnx", ".reproducer.yqc"])
def test_a_file_that_is_read_is_not_written_over(
    files: Outputs, tmp_path: Path, how: str, suffix: str
) -> None:
    path = source = files.beside(suffix)
    if how != "same":
        source = tmp_path / "model.pt"
    source.write_text("a model")
    if how == "hard link":
        path.hardlink_to(source)
    elif how == "symbolic link":
        path.symlink_to(source)
    with pytest.raises(OutputError, match="this compile reads it"):
        files.check([source])
    assert source.read_text() == "a model"


def test_a_folder_that_vanished_since(files: Outputs) -> None:
    files.onnx.parent.rmdir()
    with pytest.raises(OutputError, match=r"cannot write into .*: No such file"), files.staged():
        raise AssertionError


def test_what_a_killed_compile_has_left_is_removed(files: Outputs, tmp_path: Path) -> None:
    left = tmp_path / ".x.partial-0a1b2c3d"
    other = tmp_path / ".x2.partial-0a1b2c3d"
    for folder in (left, other):
        folder.mkdir()
        folders.mark(folder)
        (folder / "x.onnx").write_text("half")
    with files.staged() as stage:
        write(stage, "new")
    assert not left.exists()
    assert other.exists()
    assert contents(tmp_path) == NEW


OTHER = """
import sys
from pathlib import Path
from yqc.job.outputs import Outputs
from yqc.store import folders
from yqc.store.folders import MARKER
with Outputs(Path("x.onnx")).staged() as stage:
    stage.onnx.write_text("theirs .onnx")
    print(stage.onnx.parent.name, flush=True)
    sys.stdin.read()
"""


def test_two_compiles_of_one_output_leave_each_other_alone(files: Outputs, tmp_path: Path) -> None:
    """Whichever ends last has the output; both end well."""
    with beside(OTHER, tmp_path) as said:
        theirs = tmp_path / said.readline().strip()
        with files.staged() as stage:
            assert theirs.is_dir()
            with files.staged() as second:
                assert len({theirs, stage.onnx.parent, second.onnx.parent}) == 3
                write(second, "second")
            assert theirs.is_dir()
            write(stage, "new")
        assert contents(tmp_path) == NEW
    assert contents(tmp_path) == {**NEW, "x.onnx": "theirs .onnx"}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_of_the_users_stays_though_it_bears_such_a_name(
    files: Outputs, tmp_path: Path
) -> None:
    mine = tmp_path / ".x.partial-0a1b2c3d"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    with files.staged() as stage:
        write(stage, "new")
    assert contents(mine) == {"thesis.txt": "years"}


def test_a_page_and_a_float_graph_of_an_earlier_compile_go(files: Outputs, tmp_path: Path) -> None:
    files.report.write_text('{\n  "schema": "1"')
    files.recipe.write_text('emit = "onnx,pt2"\n')
    files.page.write_text("old")
    files.exported.write_text("old")
    with files.staged() as stage:
        write(stage, "new")
    assert contents(tmp_path) == NEW


def test_files_of_somebody_else_stay(files: Outputs, tmp_path: Path) -> None:
    files.page.write_text("mine")
    files.exported.write_text("mine")
    with files.staged() as stage:
        write(stage, "new")
    assert contents(tmp_path) == {**NEW, "x.report.html": "mine", "x.pt2": "mine"}


RACE = """
import sys
from pathlib import Path
from yqc.job.outputs import Outputs
from yqc.store import folders
from yqc.store.folders import MARKER
own, page = sys.argv[1], sys.argv[2] == "page"
for _ in range(20):
    with Outputs(Path("x.onnx")).staged() as stage:
        stage.onnx.write_text(own)
        stage.report.write_text('{"schema": "1", "of": "' + own + '"}')
        stage.recipe.write_text(own)
        if page:
            stage.page.write_text(own)
"""


def test_compiles_that_end_at_once_leave_one_whole_set(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, name, page], cwd=tmp_path)  # noqa: S603
        for name, page in (("one", "page"), ("two", "none"), ("three", "page"))
    ]
    assert [racer.wait() for racer in racers] == [0, 0, 0]
    found = contents(tmp_path)
    last = found["x.onnx"]
    assert last in found["x.report.json"]
    assert found["x.recipe.toml"] == last
    assert found.get("x.report.html") == (None if last == "two" else last)
