"""A short search on the detector that comes with yqc."""

import json
from pathlib import Path

import onnx

from tests.command import Run
from yqc.data import shapes

MODEL = Path(__file__).parents[2] / "examples" / "shapes" / "shapes.yqc"


def test_a_search_of_seconds_finds_smaller_files(run: Run) -> None:
    data = shapes.write_shapes(Path("shapes"), train=120, val=30)
    how = ["--data", data, "--max-drop", "3%", "--time", "12s", "--jobs", 1, "-q", "--json"]
    done = run("tune", MODEL, *how)
    assert done.code == 0, done.err
    front = json.loads(done.out)
    points = {point["name"]: point for point in front["points"]}
    best, sizes = points[front["best"]], [point["bytes"] for point in front["points"]]
    assert best["chosen_drop"] <= 0.03
    assert sizes == sorted(sizes)
    assert best["bytes"] < 0.5 * MODEL.stat().st_size
    assert Path("tuned/best.onnx").stat().st_size == best["bytes"]
    onnx.checker.check_model("tuned/best.onnx", full_check=True)
