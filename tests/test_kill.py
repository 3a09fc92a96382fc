"""kill -9 in the middle of a compile damages nothing, and --resume ends in the same bytes."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "kill.py"
PASSES = "prune{ratio=0.3 recover=0},recover{steps=4 batch=2},int4,int8"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9, and no fork")


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark that does the same many times."""
    spec = importlib.util.spec_from_file_location("yqc_kill", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "yqc_kill", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_killed_compiles_damage_nothing_and_end_in_the_same_bytes(
    kill: ModuleType, checkpoint: Path, data: Path
) -> None:
    """Older files stay, no part of a file has a final name, and nothing is left at the end."""
    more = ("--no-eval", "--no-html", "--no-verify", "--calib-images", "4", "--imgsz", "64")
    kills = kill.run(kill.Job(checkpoint, data, PASSES, more), 2, seed=3)
    assert len(kills) == 2
    assert any(each.kept != "nothing" for each in kills)


@pytest.fixture
def trial(kill: ModuleType, tmp_path: Path) -> object:
    """A trial that has an older and a new output to compare with."""
    trial = kill.Trial(kill.Job(Path("m.pt"), Path("d.yaml"), "int8"), tmp_path, (), None)
    trial.older = {"x.onnx": b"older", "x.report.json": b'{"seconds": 1, "map": 0.5}'}
    trial.want = {"x.onnx": b"newer", "x.report.json": b'{"seconds": 2, "map": 0.7}'}
    return trial


@pytest.mark.parametrize(
    ("onnx", "report", "new"),
    [
        ("older", '{"seconds": 1, "map": 0.5}', []),
        ("older", '{"seconds": 9, "map": 0.7}', ["x.report.json"]),
        ("newer", '{"map": 0.7}', ["x.onnx", "x.report.json"]),
    ],
)
def test_whole_files_are_told_from_each_other(
    kill: ModuleType, trial: object, tmp_path: Path, onnx: str, report: str, new: list[str]
) -> None:
    (tmp_path / "x.onnx").write_text(onnx)
    (tmp_path / "x.report.json").write_text(report)
    assert sorted(kill.Trial.look(trial, tmp_path)) == new


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("x.onnx", "new", "neither the older file nor the new one"),
        ("x.report.json", '{"map": 0.', "neither the older file nor the new one"),
        ("x.onnx.tmp", "newer", r"a file x\.onnx\.tmp was left"),
        ("x.onnx", None, "are gone"),
    ],
)
def test_damage_is_found(
    kill: ModuleType, trial: object, tmp_path: Path, name: str, text: str | None, why: str
) -> None:
    (tmp_path / "x.onnx").write_text("older")
    (tmp_path / "x.report.json").write_text('{"seconds": 1, "map": 0.5}')
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    with pytest.raises(kill.DamageError, match=why):
        kill.Trial.look(trial, tmp_path)
