"""Every optimisation level of onnxruntime gives what the file says without any."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests.clients.conftest import Compiled
from tests.slow import slow_but

Level = ort.GraphOptimizationLevel
LEVELS = [Level.ORT_ENABLE_BASIC, Level.ORT_ENABLE_EXTENDED, Level.ORT_ENABLE_ALL]


def outputs(path: Path, images: Any, level: Any) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[None]})[0] for image in images])


@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_float_is_the_same_at_every_level(compiled: Compiled, images: Any, level: Any) -> None:
    path = compiled("fold-bn")
    want = outputs(path, images, Level.ORT_DISABLE_ALL)
    np.testing.assert_allclose(outputs(path, images, level), want, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize(
    "target", slow_but(["portable", "onnxruntime", "openvino", "tensorrt"], "onnxruntime")
)
@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_int8_is_nearly_the_same_at_every_level(
    compiled: Compiled, images: Any, level: Any, target: str
) -> None:
    path = compiled("int8", target)
    want = outputs(path, images, Level.ORT_DISABLE_ALL)
    off = np.abs(outputs(path, images, level) - want)
    assert off[:, :4].mean() < 0.5  # pixels of 64: rounding of ties, a step here and there
    assert off[:, 4:].mean() < 0.005
