"""`yqc sweep` on a small detector: files, failures, resumption, same bytes."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import yqc
from tests.command import Run
from yqc.comparing import Comparison
from yqc.sweeping.cells import CellJob
from yqc.sweeping.folder import SUFFIXES

PASSES = ("fold-bn", "channel-prune{ratio=0.99},dce", "")
"""The second one fails: so much cannot be pruned."""
HOW: dict[str, Any] = {"imgsz": 64, "latency": False, "jobs": 1}


@pytest.fixture(scope="module")
def models(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A checkpoint, and a file that is none."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copy(checkpoint, folder / "a.pt")
    (folder / "broken.pt").write_bytes(b"no checkpoint")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def swept(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    """A sweep of all, in this process."""
    output = tmp_path_factory.mktemp("swept") / "out"
    return output, yqc.sweep(models, PASSES, output=output, **HOW)


def files(folder: Path) -> dict[str, bytes]:
    """Return the files of a sweep that are the same on every run."""
    suffixes = {".onnx", ".toml"}
    found = [path for path in folder.rglob("*") if path.suffix in suffixes]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_every_cell_has_its_files_and_failures_are_rows(swept: tuple[Path, Comparison]) -> None:
    output, found = swept
    good = [(row.model, row.passes) for row in found.rows if not row.failed]
    assert good == [(model, passes) for model in "a" for passes in ("fold-bn", "")]
    failed = {(row.model, row.passes): row.failed for row in found.rows if row.failed}
    assert {model for model, _ in failed} == {"a", "broken"}
    assert len(failed) == 4
    assert "is impossible" in failed["a", PASSES[1]]
    assert "broken.pt" in failed["broken", "fold-bn"]
    names = [row.name for row in found.rows if not row.failed]
    assert sorted(files(output)) == sorted(
        f"{name}{end}" for name in names for end in SUFFIXES if end != ".report.json"
    )
    assert json.loads((output / "compare.json").read_text()) == found.to_dict()
    assert "is impossible" in (output / "compare.html").read_text()
    assert not [*output.rglob(".float")]


def test_a_recipe_of_a_row_makes_the_same_bytes(
    swept: tuple[Path, Comparison], models: list[Path], run: Run
) -> None:
    made = swept[0] / "a/fold-bn"
    done = run("compile", models[0], "--config", f"{made}.recipe.toml", "-o", "x.onnx", "-q")
    assert done.code == 0, done.err
    assert Path("x.onnx").read_bytes() == Path(f"{made}.onnx").read_bytes()


class Killed(BaseException):
    """What nothing catches."""


def test_a_resumed_sweep_loses_nothing_that_was_done(
    swept: tuple[Path, Comparison],
    models: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran, work = list[str](), CellJob.run

    def count(job: CellJob, *given: Any) -> Any:
        result = work(job, *given)
        ran.append(f"{job.name} {'kept' if result.kept else 'ran'}")
        if len(ran) == 2:
            raise Killed
        return result

    monkeypatch.setattr(CellJob, "run", count)
    how: dict[str, Any] = {**HOW, "output": tmp_path / "out"}
    with pytest.raises(Killed):
        yqc.sweep(models[:1], PASSES, **how)
    with (tmp_path / "out/.sweep/journal.jsonl").open("a") as journal:
        journal.write('{"name": "a/none')  # a kill in the middle of a line
    ran.append("killed")
    found = yqc.sweep(models[:1], PASSES, **how, resume=True)
    assert [line.endswith("kept") for line in ran[3:]] == [True, False, False]
    assert files(tmp_path / "out") == files(swept[0])
    assert [bool(row.failed) for row in found.rows] == [False, True, False]
    ran[:] = ["-"] * 9
    yqc.sweep(models[:1], PASSES, **how, resume=True)
    assert all(line.endswith("kept") for line in ran[9:])
    Path(tmp_path, "out/a/fold-bn.onnx").write_bytes(b"damaged")
    ran[:] = ["-"] * 9
    yqc.sweep(models[:1], PASSES, **how, resume=True)
    assert [line for line in ran[9:] if line.endswith("ran")] == ["a/fold-bn ran"]


def test_an_interruption_says_how_to_go_on(
    models: list[Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> Iterator[None]:
        raise KeyboardInterrupt

    monkeypatch.setattr(CellJob, "run", interrupt)
    done = run("sweep", models[0], "--passes", "dce", "--no-latency", "--jobs", 1)
    assert done.code == 130
    assert "0 of 1 compile are done; the same command with --resume goes on" in done.err
    assert Path("sweep/compare.json").is_file()


def test_times_are_taken_and_older_files_go(models: list[Path], run: Run) -> None:
    both = ("sweep", models[0], "--imgsz", 64, "--jobs", 1)
    assert run(*both, "--passes", "", "--no-latency", "-q").code == 0
    assert [path.name for path in Path("sweep").rglob("*.onnx")] == [f"{_only()}.onnx"]
    done = run(*both, "--passes", "dce", "--json", "-q")
    assert done.code == 0, done.err
    (row,) = json.loads(done.out)["rows"]
    assert row["ms"] > 0
    assert "onnxruntime" in row["machine"]
    assert [path.name for path in Path("sweep").rglob("*.onnx")] == ["dce.onnx"]
    report = yqc.Report.from_json(Path("sweep/a/dce.report.json").read_text())
    assert report.latency is not None
    assert report.latency.compiled_ms == row["ms"]
    before = Path("sweep/compare.json").read_bytes()
    assert run(*both, "--passes", "dce", "--resume", "-q").code == 0
    assert Path("sweep/compare.json").read_bytes() == before, "no time is taken again"


def _only() -> str:
    (path,) = Path("sweep/a").glob("*.recipe.toml")
    return path.name.removesuffix(".recipe.toml")
