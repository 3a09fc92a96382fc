"""`yqc tune` on a small detector: its files, their recipes, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

import yqc
from tests.command import Run
from yqc.data import shapes
from yqc.tuning import make_question

SPACE = """\
seeds = ["int4{spare=0.0}", "fp16"]
[weights.fp16]
[weights.int4]
spare = 0.0
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty training pictures and three others."""
    return shapes.write_shapes(tmp_path_factory.mktemp("tuned") / "shapes", train=40, val=3)


def test_a_search_leaves_files_that_their_recipes_make_again(
    run: Run, checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    space, out = tmp_path / "space.toml", tmp_path / "out"
    space.write_text(SPACE)
    how: list[object] = ["tune", checkpoint, "--data", pictures, "--space", space]
    how += ["-o", out, "--no-latency"]
    how += ["--max-drop", "0.005", "--calib-images", 8]
    done = run(*how, "--trials", 2, "--jobs", 2, "--json", "-q")
    assert done.code == 0, done.err
    front = json.loads(done.out)
    assert json.loads((out / "front.json").read_text()) == front
    assert front["trials"] == 2
    assert front["held_out"] == 10
    assert front["best"] == "01"
    names = [point["name"] for point in front["points"]]
    files = {f"{n}{end}" for n in [*names, "best"] for end in (".onnx", ".report.json")}
    files |= {f"{n}.recipe.toml" for n in [*names, "best"]} | {"front.json", "front.html"}
    assert {path.name for path in out.iterdir()} == {*files, ".search"}
    assert (out / "best.onnx").read_bytes() == (out / "01.onnx").read_bytes()
    again = run("compile", checkpoint, "--config", out / "best.recipe.toml", "-o", "x.onnx", "-q")
    assert again.code == 0, again.err
    assert Path("x.onnx").read_bytes() == (out / "best.onnx").read_bytes()
    tight = run(*how, "--trials", 2, "--jobs", 1, "--resume", "--max-size", "1KB")
    assert tight.code == 3
    assert "no file is within the budget" in tight.out
    assert "--max-size binds" in tight.out


@pytest.mark.slow
def test_a_session_searches_and_keeps_the_results(
    checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    space = tmp_path / "space.toml"
    space.write_text(SPACE)
    session = yqc.Session(checkpoint, data=pictures, calib_images=8)
    how: dict[str, Any] = {"space": space, "output": tmp_path / "out", "trials": 1, "jobs": 1}
    front = session.tune(yqc.Budget(max_drop=0.005), **how, latency=False)
    (result,) = front.results
    assert isinstance(result, yqc.Result)
    assert result.report.size.file_bytes == front.points[0].bytes


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--max-drop", "1%%"), "--max-drop must be"),
        (("--max-ms", "5", "--no-latency"), "contradicts"),
        (("--max-ms", "5", "--target", "tensorrt"), "give --measure"),
        (("--time", "soon"), "--time must be a time"),
        (("--time", "0s"), "--time must be above 0"),
        (("--trials", "0"), "--trials must be 1 or more"),
        (("--jobs", "0"), "--jobs must be 1 or more"),
    ],
)
def test_contradictions_are_refused_before_any_work(
    run: Run, more: tuple[str, ...], why: str
) -> None:
    refused = run("tune", "model.pt", "--data", "data.yaml", *more)
    assert refused.code == 2
    assert why in refused.err
    assert not Path("tuned").exists()


def test_a_folder_of_the_users_is_left_alone(run: Run) -> None:
    Path("tuned").mkdir()
    Path("tuned", "mine.txt").write_text("mine")
    refused = run("tune", "model.pt", "--data", "data.yaml")
    assert refused.code == 1
    assert "holds something else" in refused.err
    assert [path.name for path in Path("tuned").iterdir()] == ["mine.txt"]


def test_too_few_images_and_no_data(run: Run, checkpoint: Path, data: Path) -> None:
    assert "give --data" in run("tune", checkpoint, "--no-latency").err
    few = run("tune", checkpoint, "--data", data, "--no-latency")
    assert few.code == 1
    assert "8 training images; a search needs 32" in few.err


def test_a_runtime_that_is_not_here_is_refused_before_any_work(
    run: Run, checkpoint: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yqc.evaluation.openvino.installed", lambda: False)
    refused = run("tune", checkpoint, "--data", pictures, "--target", "openvino")
    assert refused.code == 2
    assert "pip install openvino, or give --measure or --no-latency" in refused.err
    assert not Path("tuned").exists()


def test_a_budget_of_time_alone_prefers_speed(tmp_path: Path) -> None:
    question = make_question(yqc.Budget(max_ms=5), output=tmp_path)
    assert question.prefer == "speed"
    assert make_question(output=tmp_path).budget == yqc.Budget(max_drop="1%")


@pytest.mark.parametrize(("time", "seconds"), [(None, 1800), (90, 90), ("90s", 90), ("1.5m", 90)])
def test_a_time_has_a_unit_or_is_in_seconds(tmp_path: Path, time: Any, seconds: float) -> None:
    assert make_question(output=tmp_path, time=time).seconds == seconds
