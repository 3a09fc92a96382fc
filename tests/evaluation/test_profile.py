"""What each node of a file costs, and what it computes in."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import yqc
from yqc.cli import app
from yqc.errors import CheckpointError
from yqc.evaluation.profile import profile


@pytest.fixture(scope="module")
def file(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "x.onnx"
    made = yqc.compile(
        *(checkpoint, "int8"),
        data=data,
        calib_images=4,
        target="onnxruntime",
        output=path,
        evaluate=False,
    )
    return made.files.onnx


@pytest.mark.slow
def test_kernels_are_told_apart_by_what_they_compute_in(file: Path) -> None:
    costs = profile(file, threads=1, runs=2)
    kinds = {cost.op: cost.kind for cost in costs}
    assert kinds["QLinearConv"] == "int8"
    assert kinds["QuantizeLinear"] == "convert"
    assert {"int8", "float", "convert"} <= set(kinds.values())
    assert [cost.ms for cost in costs] == sorted((cost.ms for cost in costs), reverse=True)
    assert all(cost.ms >= 0 and cost.name for cost in costs)


def test_bench_prints_them(file: Path) -> None:
    shown = CliRunner().invoke(app, ["bench", str(file), "--runs", "1", "--nodes", "-q"])
    assert "x QLinearConv" in shown.stdout
    assert "the dearest nodes:" in shown.stdout
    as_json = CliRunner().invoke(
        app, ["bench", str(file), "--runs", "1", "--nodes", "--json", "-q"]
    )
    assert '"nodes"' in as_json.stdout


def test_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no ONNX file"):
        profile(tmp_path / "absent.onnx")
