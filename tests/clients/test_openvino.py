"""OpenVINO on a CPU: the same numbers, and integer convolutions that really are."""

import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.clients.conftest import Compiled
from tests.clients.test_onnxruntime import Level, outputs
from tests.linting.test_lint import joined
from yqc.linting import lint

ov = pytest.importorskip("openvino", reason="needs OpenVINO: pip install yqc[clients]")


def opened(path: Path) -> Any:
    return ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def run(path: Path, images: Any) -> Any:
    model = opened(path)
    return np.concatenate([next(iter(model([image[None]]).values())) for image in images])


@pytest.mark.parametrize(
    ("passes", "boxes", "scores"), [("fold-bn", 1e-3, 1e-5), ("int8", 0.5, 5e-3)]
)
def test_it_detects_the_same(
    compiled: Compiled, images: Any, passes: str, boxes: float, scores: float
) -> None:
    path = compiled(passes, "openvino")
    off = np.abs(run(path, images) - outputs(path, images, Level.ORT_DISABLE_ALL))
    assert off[:, :4].mean() < boxes
    assert off[:, 4:].mean() < scores


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="of x86 CPUs only")
@pytest.mark.parametrize("target", ["portable", "openvino"])
def test_integer_convolutions_run_on_integers(compiled: Compiled, target: str) -> None:
    kinds: dict[str, str] = {}
    for node in opened(compiled("int8{float_inputs=0}", target)).get_runtime_model().get_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) == "Convolution":
            kinds[node.get_friendly_name()] = info["runtimePrecision"].astype(str)
    assert len(kinds) > 20
    in_float = {name for name, kind in kinds.items() if kind not in {"i8", "u8"}}
    assert all("dfl" in name for name in in_float)  # the expectation of the decode is a convolution
    assert len(in_float) <= 1


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="of x86 CPUs only")
@pytest.mark.parametrize(
    ("kind", "pooled", "right"),
    [(np.uint8, False, True), (np.int8, True, True), (np.int8, False, False)],
)
def test_concats_are_computed_as_lint_says(
    kind: Any, pooled: bool, right: bool, tmp_path: Path
) -> None:
    model, rng = joined(kind, kind, pooled=pooled), np.random.default_rng(0)
    weights = next(one for one in model.graph.initializer if one.name == "c_w")
    values = rng.integers(-127, 128, (8, 16, 1, 1)).astype(np.int8)
    weights.CopyFrom(numpy_helper.from_array(values, "c_w"))
    onnx.save(model, tmp_path / "x.onnx")
    x = rng.normal(0, 4, (1, 8, 8, 8)).astype(np.float32)
    want = outputs(tmp_path / "x.onnx", x, Level.ORT_DISABLE_ALL)
    off = np.abs(run(tmp_path / "x.onnx", x) - want).mean() / np.abs(want).mean()
    assert (off < 0.01) == right
    assert any(f.rule == "int8-concat" for f in lint(model, "openvino")) != right
