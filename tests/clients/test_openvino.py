"""OpenVINO on a CPU: the same numbers, and integer convolutions that really are."""

import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clients.conftest import Compiled
from tests.clients.test_onnxruntime import Level, outputs

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
@pytest.mark.parametrize("target", ["portable", "openvino", "tensorrt"])
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
