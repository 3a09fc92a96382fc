"""onnxsim, onnxslim and the converter of opsets leave a file's numbers and weights as they were."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import version_converter

from tests.clients.conftest import Compiled
from tests.clients.test_onnxruntime import Level, outputs
from yqc.emit import weight_bytes


def by_onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    simplified, _ = importlib.import_module("onnxsim").simplify(model)
    return simplified  # type: ignore[no-any-return]


def by_onnxslim(model: onnx.ModelProto) -> onnx.ModelProto:
    slim = pytest.importorskip("onnxslim", reason="needs onnxslim: pip install yqc[clients]")
    return slim.slim(model)  # type: ignore[no-any-return]


def compare(path: Path, model: onnx.ModelProto, images: Any, folder: Path) -> None:
    changed = folder / "changed.onnx"
    onnx.save(model, changed)
    want = outputs(path, images, Level.ORT_DISABLE_ALL)
    got = outputs(changed, images, Level.ORT_DISABLE_ALL)
    np.testing.assert_allclose(got, want, atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("passes", ["fold-bn", "int8"])
@pytest.mark.parametrize("change", [by_onnxsim, by_onnxslim])
def test_simplifiers_lose_nothing(
    compiled: Compiled,
    images: Any,
    tmp_path: Path,
    passes: str,
    change: Callable[[onnx.ModelProto], onnx.ModelProto],
) -> None:
    path = compiled(passes)
    before = onnx.load(path)
    after = change(onnx.load(path))
    compare(path, after, images, tmp_path)
    assert weight_bytes(after) <= weight_bytes(before) * 1.01
    for kind in ("QuantizeLinear", "DequantizeLinear", "Conv"):
        counts = [sum(n.op_type == kind for n in m.graph.node) for m in (before, after)]
        assert counts[0] == counts[1], kind


@pytest.mark.parametrize("passes", ["fold-bn", "int8"])
@pytest.mark.parametrize("opset", [18, 19, 20, 21])
def test_opsets_convert_upwards(
    compiled: Compiled, images: Any, tmp_path: Path, passes: str, opset: int
) -> None:
    path = compiled(passes)
    try:
        converted = version_converter.convert_version(onnx.load(path), opset)
    except Exception as error:  # noqa: BLE001  # whatever the onnx package cannot
        pytest.skip(f"onnx cannot convert this file to opset {opset}: {error}"[:150])
    compare(path, converted, images, tmp_path)


def test_names_can_be_read(compiled: Compiled) -> None:
    graph = onnx.load(compiled("int8")).graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    assert all(name and name[0].isalpha() and name.isascii() for name in names)
    assert [value.name for value in (graph.input[0], graph.output[0])] == ["images", "output0"]
    convolutions = [node.name for node in graph.node if node.op_type == "Conv"]
    assert all(name.startswith("model_") for name in convolutions)
