"""The commands as Python functions: what they return prints and converts as the commands do."""

import json
from pathlib import Path
from typing import Any

import pytest

import yqc
from tests.command import Run
from yqc.report import Shown


@pytest.fixture(scope="module")
def file(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "x.onnx"
    yqc.compile(checkpoint, "fuse", output=path, evaluate=False, html=False)
    return path


def agree(found: Shown, run: Run, *command: object) -> None:
    """Compare an object with what a command prints, as tables and as JSON."""
    assert f"{found}\n" == run(*command).out
    assert found.to_dict() == json.loads(run(*command, "--json").out)
    html = found._repr_html_()
    assert html.startswith("<pre")
    assert html.endswith("</pre>")


def test_inspect(checkpoint: Path, file: Path, run: Run) -> None:
    agree(yqc.inspect(checkpoint), run, "inspect", checkpoint)
    agree(yqc.inspect(file), run, "inspect", file)
    graph = yqc.inspect(checkpoint, graph=True, imgsz=64)
    assert str(graph) + "\n" == run("inspect", checkpoint, "--as", "text", "--imgsz", 64).out
    node = yqc.inspect(checkpoint, node="model.0")
    assert f"{node}\n" == run("inspect", checkpoint, "--node", "model.0").out


def test_diff(checkpoint: Path, file: Path, run: Run) -> None:
    agree(yqc.diff(checkpoint, file), run, "diff", checkpoint, file)
    found = yqc.diff(checkpoint, passes="fold-bn", params=True)
    agree(found, run, "diff", checkpoint, "--passes", "fold-bn", "--params")


def test_explain_and_lint(checkpoint: Path, file: Path, run: Run) -> None:
    agree(yqc.explain("fold-bn", checkpoint), run, "explain", "fold-bn", checkpoint)
    agree(yqc.lint(file, target="openvino"), run, "lint", file, "--target", "openvino")


def test_evaluate(file: Path, data: Path, run: Run) -> None:
    found: Any = yqc.evaluate(file, data).to_dict()
    shown = json.loads(run("eval", file, "--data", data, "--json", "-q").out)
    for one in (found, shown):
        one.pop("seconds_total")
        one.pop("seconds_session")
    assert found == shown
    assert "50-95" in str(yqc.evaluate(file, data))


def test_bench(file: Path) -> None:
    found = yqc.bench(file, runs=2, nodes=True)
    assert found.nodes is not None
    assert "the dearest nodes" in str(found)
    timed, plain = (json.loads(one.to_json()) for one in (found, yqc.bench([file], runs=2)))
    assert {*timed} == {"bench", "nodes"}
    assert {*plain} == {*timed["bench"]}


def test_a_module_is_looked_at_as_a_file_is(checkpoint: Path) -> None:
    loaded = yqc.load(checkpoint)
    assert str(yqc.inspect(loaded)) == str(yqc.inspect(checkpoint, graph=True))
    assert yqc.diff(loaded, checkpoint).same
    assert yqc.explain("fold-bn", loaded).passes[0].rewrites


def test_a_wrong_argument_is_refused() -> None:
    with pytest.raises(yqc.YqcError, match="calib_images is no argument of evaluate"):
        yqc.evaluate("x.onnx", "d.yaml", calib_images=3)
    with pytest.raises(yqc.YqcError, match="imgsz must be a size"):
        yqc.inspect("x.onnx", imgsz="big")
