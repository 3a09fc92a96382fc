"""The whole job from Python: what is written, and what the report says."""

import gzip
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import yqc
from tests.compiling import outputs, run
from yqc import Result, calls
from yqc.data import scenes
from yqc.pipeline.step import Step
from yqc.settings import Settings, read_recipe

EXAMPLE = Path(__file__).parents[1] / "examples" / "custom_pass.py"


@pytest.fixture(scope="module")
def compiled(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One compile with everything: fused, verified, evaluated."""
    output = tmp_path_factory.mktemp("compiled") / "small.onnx"
    settings = Settings(data=str(data), calib_images=4)
    return yqc.compile(checkpoint, "fuse", output=output, settings=settings)


# What is written


def test_writes_its_files_and_nothing_else(compiled: Result) -> None:
    assert sorted(outputs(compiled.files.onnx.parent)) == [
        "small.onnx",
        "small.recipe.toml",
        "small.report.html",
        "small.report.json",
    ]


def test_the_file_computes_what_the_model_did(compiled: Result, checkpoint: Path) -> None:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        want = yqc.load(checkpoint).module(images).numpy()
    got = run(compiled.files.onnx, images)
    assert got.shape == (1, 4 + len(scenes.NAMES), 84)
    np.testing.assert_allclose(got[:, :4], want[:, :4], rtol=0, atol=0.01)
    np.testing.assert_allclose(got[:, 4:], want[:, 4:], rtol=0, atol=1e-4)


def test_the_file_says_what_runtimes_ask_for(compiled: Result, checkpoint: Path) -> None:
    found = {p.key: p.value for p in onnx.load(compiled.files.onnx).metadata_props}
    assert json.loads(found["imgsz"]) == [64, 64]
    assert {k: found[k] for k in ("task", "stride", "batch")} == {
        "task": "detect",
        "stride": "32",
        "batch": "1",
    }
    assert all(name in found["names"] for name in scenes.NAMES)
    assert found["yqc.version"] == yqc.__version__
    assert found["yqc.pipeline"] == "fuse"
    assert found["yqc.input_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()


def test_nodes_keep_the_names_of_the_graph(compiled: Result) -> None:
    names = {n.name for n in onnx.load(compiled.files.onnx).graph.node if n.op_type == "Conv"}
    assert names <= {n.name for n in compiled.gm.graph.nodes}
    assert "model_0_conv" in names


# What the report says


def report(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.files.report.read_text(encoding="utf-8"))
    return found


def test_the_report_is_what_was_returned(compiled: Result) -> None:
    assert report(compiled) == json.loads(compiled.report.to_json())
    assert (report(compiled)["schema"], report(compiled)["yqc"]) == ("1", yqc.__version__)


def test_the_report_names_the_input(compiled: Result, checkpoint: Path) -> None:
    found = report(compiled)["input"]
    graph = yqc.trace(yqc.load(checkpoint).module, torch.zeros(1, 3, 64, 64))
    assert found == {
        "path": str(checkpoint),
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "family": "ultralytics",
        "task": "detect",
        "params": sum(p.numel() for p in graph.parameters()),
        "nc": len(scenes.NAMES),
        "names": list(scenes.NAMES),
        "strides": [8, 16, 32],
        "imgsz": [64, 64],
    }


def test_the_report_lists_the_passes(compiled: Result) -> None:
    found = report(compiled)
    steps = "reparam,fold-bn,dce"
    assert found["pipeline"] == {"text": "fuse", "expanded": steps, "dropped": []}
    assert [p["name"] for p in found["passes"]] == ["reparam", "fold-bn", "dce"]
    reparam, fold, _ = found["passes"]
    assert (reparam["rewrites"], reparam["changed"]) == (0, False)
    norms = len(calls(compiled.original, nn.BatchNorm2d))
    assert (fold["rewrites"], fold["changed"], fold["skips"]) == (norms, True, [])
    assert fold["nodes_before"] - fold["nodes_after"] == norms
    assert 0 < fold["max_abs_error"] < 1e-2
    assert fold["sqnr_db"] > 90


def test_anyone_can_recompute_the_sizes(compiled: Result) -> None:
    size, model = report(compiled)["size"], onnx.load(compiled.files.onnx)
    arrays = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer]
    arrays += [
        onnx.numpy_helper.to_array(n.attribute[0].t)
        for n in model.graph.node
        if n.op_type == "Constant"
    ]
    weights, params = sum(a.nbytes for a in arrays), report(compiled)["input"]["params"]
    folded = 4 * sum(c.module.num_features for c in calls(compiled.original, nn.BatchNorm2d))
    assert size["weight_bytes"] == weights
    assert size["file_bytes"] == compiled.files.onnx.stat().st_size
    archive = len(gzip.compress(compiled.files.onnx.read_bytes(), 6))
    assert 0 < archive - size["deflated_bytes"] < 30  # header and checksum
    assert (size["params_before"], size["fp32_bytes"], size["fp16_bytes"]) == (
        params,
        4 * params,
        2 * params,
    )
    assert size["params_after"] == params - folded / 4, "gamma and beta go, biases come"
    assert size["ratio_vs_fp32"] == pytest.approx(4 * params / weights)
    assert size["ratio_vs_fp16"] == pytest.approx(2 * params / weights)
    assert size["file_ratio_vs_fp32"] == pytest.approx(4 * params / size["file_bytes"])


def test_the_report_counts_multiplications(compiled: Result) -> None:
    stem = 8 * 32 * 32 * 3 * 9
    found = report(compiled)["compute"]
    assert found["macs_before"] == found["macs_after"] > stem


def test_the_report_measures_accuracy_of_both(compiled: Result) -> None:
    found = report(compiled)["accuracy"]
    assert (found["kind"], found["images"]) == ("map", 3)
    for side in ("float", "compiled"):
        others = {"mask", "keypoints", "rotated", "top1", "top5"}
        assert set(found[side]) == {"map", "map50", "map75", "small", "medium", "large"} | others
        assert {found[side][name] for name in others} == {None}
        assert 0 <= found[side]["map"] <= 1
    assert found["drop"] == pytest.approx(found["float"]["map"] - found["compiled"]["map"])


def test_the_report_lists_every_layer(compiled: Result) -> None:
    layers = report(compiled)["layers"]
    assert [x["name"] for x in layers] == [c.target for c in calls(compiled.gm, nn.Conv2d)]
    stem = layers[0]
    assert (stem["op"], stem["shape"], stem["role"]) == ("Conv2d", [8, 3, 3, 3], "backbone")
    assert (stem["weight_bits"], stem["weight_bytes"]) == (32, 4 * (8 * 27 + 8))
    assert {x["role"] for x in layers} == {"backbone", "neck", "head.box", "head.cls"}


def test_the_report_measures_latency(compiled: Result) -> None:
    found = report(compiled)["latency"]
    assert found["runtime"] == "onnxruntime"
    assert found["ratio"] == found["float_ms"] / found["compiled_ms"] > 0
    for i, median in enumerate((found["float_ms"], found["compiled_ms"])):
        assert 0 < found["p10"][i] <= median <= found["p90"][i]
    low, high = found["interval"]
    assert 0 < low <= found["ratio"] <= high
    assert found["rounds"] >= 20
    assert min(found["load_ms"]) > 0


def test_both_graphs_are_returned(compiled: Result) -> None:
    assert calls(compiled.original, nn.BatchNorm2d)
    assert not calls(compiled.gm, nn.BatchNorm2d)
    assert {r.by for r in compiled.context.rewrites} == {"fold-bn"}


# Recipes


def test_the_recipe_says_how_it_was_made(compiled: Result, checkpoint: Path, data: Path) -> None:
    threads = torch.get_num_threads()
    wanted = Settings(passes="fuse", data=str(data), calib_images=4, threads=threads)
    assert read_recipe(compiled.files.recipe) == wanted
    found = tomllib.loads(compiled.files.recipe.read_text())["input"]
    assert found["path"] == str(checkpoint)


def test_the_report_names_what_was_read(compiled: Result, checkpoint: Path, data: Path) -> None:
    found = report(compiled)
    assert found["input"]["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert found["data"]["path"] == str(data)
    recipe = tomllib.loads(compiled.files.recipe.read_text())
    assert found["data"]["sha256"] == recipe["dataset"]["sha256"]
    assert found["target"] == "onnxruntime"
    assert found["environment"]["torch_threads"] == torch.get_num_threads()


def test_threads_are_those_that_are_asked_for(checkpoint: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    class Count(yqc.Watcher):
        def before(self, step: Step) -> None:
            seen.append(torch.get_num_threads())

    before = torch.get_num_threads()
    result = yqc.compile(
        checkpoint,
        "fuse",
        output=tmp_path / "x.onnx",
        evaluate=False,
        threads=before + 1,
        watchers=[Count()],
    )
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
    assert read_recipe(result.files.recipe).threads == before + 1
    assert report(result)["environment"]["torch_threads"] == before + 1


def test_a_loaded_file_stands_in_report_and_recipe(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    registry = yqc.Registry.default()
    (name,) = registry.load_file(path)
    result = yqc.compile(
        checkpoint, name, output=tmp_path / "x.onnx", evaluate=False, registry=registry
    )
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert report(result)["loaded"] == [{"path": str(path), "sha256": sha256}]
    recipe = tomllib.loads(result.files.recipe.read_text())
    assert recipe["load"] == [{"path": str(path), "sha256": sha256}]
    again = yqc.compile(
        checkpoint,
        "fuse",
        output=tmp_path / "y.onnx",
        evaluate=False,
        settings=read_recipe(result.files.recipe),
    )
    said = f"the recipe was written for other --load files ({path}): results can differ"
    assert said in again.report.warnings


def test_the_recipe_makes_the_same_bytes(
    compiled: Result, checkpoint: Path, tmp_path: Path
) -> None:
    settings = read_recipe(compiled.files.recipe)
    again = yqc.compile(
        checkpoint, output=tmp_path / "again.onnx", settings=settings, evaluate=False
    )
    assert again.files.onnx.read_bytes() == compiled.files.onnx.read_bytes()
    assert again.files.recipe.read_bytes() == compiled.files.recipe.read_bytes()
