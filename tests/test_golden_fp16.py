"""Half precision on real-looking checkpoints of every family: as near to float as half can be."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import yqc
from tests.test_golden import END2END, FAMILIES, apart
from yqc.emit import emit
from yqc.emit.roundtrip import open_session
from yqc.graph.half import half_kernels

pytestmark = pytest.mark.slow

Array = NDArray[np.float32]
Detector = Callable[[Array], Array]

LEVELS = [
    getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
    for level in (*("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"),)
]
WORST = 1.5
"""Largest distance of a file from float, as a multiple of that of its graph in half."""


@dataclass
class Halved:
    """A checkpoint compiled to half, and what the float file and the graph in half compute."""

    file: Path
    images: list[Array]
    layout: str
    plain: list[Array]
    half: list[Array]
    skips: dict[str, str]

    def distances(self, found: list[Array]) -> list[float]:
        """Return the largest and the mean square differences from float, of boxes and scores."""
        got, want = (apart(np.concatenate(side), self.layout) for side in (found, self.plain))
        errors = [np.abs(a.astype(np.float64) - b) for a, b in zip(got, want, strict=True)]
        return [float(kind) for e in errors for kind in (e.max(), np.sqrt((e**2).mean()))]

    def ratios(self, run: Detector) -> list[float]:
        """Return the distances of a file from float over those of the graph in half."""
        found = self.distances([run(image) for image in self.images])
        return [a / b for a, b in zip(found, self.distances(self.half), strict=True)]


FEW = [name for name in FAMILIES if name in {"yolov5n", "yolov8n", "yolo12n", "yolo26n"}]
"""One of each kind of head, and attention; the others pass too, and take minutes."""


@pytest.fixture(scope="module", params=FEW)
def halved(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Halved:
    name, out = request.param, tmp_path_factory.mktemp(request.param) / "m.onnx"
    arrays = np.load(shared / "golden" / f"{name}.npz")
    more: dict[str, Any] = {"head": "one2many"} if name in END2END else {}
    result = yqc.compile(
        shared / "golden" / f"{name}.pt",
        "fp16",
        output=out,
        imgsz=arrays["input"].shape[2:],
        evaluate=False,
        html=False,
        **more,
    )
    images = [image[None].astype(np.float32) / 255 for image in arrays["input"]]
    plain = detector(emit(result.original), LEVELS[0])
    with torch.no_grad(), half_kernels(result.gm):
        half = [numbers(result.gm(torch.from_numpy(image))) for image in images]
    form = result.context.form
    layout = "" if form is None else form.layout
    wanted = [plain(image) for image in images]
    return Halved(out, images, layout, wanted, half, dict(result.context.skips))


def numbers(output: Tensor) -> Array:
    found: Array = output.numpy()
    return found


def detector(model: onnx.ModelProto | Path, level: ort.GraphOptimizationLevel) -> Detector:
    session = open_session(model, level)

    def run(image: Array) -> Array:
        found: Array = session.run(None, {"images": image})[0]
        return found

    return run


def test_is_as_near_to_float_as_its_graph_in_half(halved: Halved) -> None:
    for level in LEVELS:
        assert max(halved.ratios(detector(halved.file, level))) <= WORST, level


def test_in_openvino_too(halved: Halved) -> None:
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().compile_model(halved.file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert max(halved.ratios(lambda image: model(image)[0])) <= WORST


def test_weights_are_halves_but_for_those_that_are_named(halved: Halved) -> None:
    model = onnx.load(halved.file)
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    floats = {
        node.name
        for node in model.graph.node
        if node.op_type in {"Conv", "ConvTranspose", "Gemm"}
        and kinds[node.input[1]] != onnx.TensorProto.FLOAT16
    }
    assert floats <= halved.skips.keys()
    assert len(halved.skips) <= 4, halved.skips


@pytest.mark.parametrize("name", ["yolov8n"])
def test_any_batch_halves_at_both_ends_and_suppression(
    name: str, shared: Path, tmp_path: Path
) -> None:
    arrays = np.load(shared / "golden" / f"{name}.npz")
    result = yqc.compile(
        shared / "golden" / f"{name}.pt",
        "prune{ratio=0.2},fp16",
        output=tmp_path / "m.onnx",
        imgsz=arrays["input"].shape[2:],
        evaluate=False,
        html=False,
        dynamic=True,
        fp16_io=True,
        nms_options="" if name in END2END else "conf=0.01 top=50",
    )
    images = (arrays["input"].astype(np.float32) / 255).astype(np.float16)
    session = ort.InferenceSession(result.files.onnx)
    got = session.run(None, {"images": images})[0]
    assert got.dtype == np.float16
    assert got.shape == (2, 300 if name in END2END else 50, 6)
    for i in range(2):
        alone = session.run(None, {"images": images[i : i + 1]})[0]
        np.testing.assert_allclose(np.sort(got[i, :, 4]), np.sort(alone[0, :, 4]), atol=5e-3)
    assert set(result.files.onnx.parent.iterdir()) >= {result.files.onnx, result.files.report}


def test_a_compile_has_nothing_to_warn_of(shared: Path, tmp_path: Path) -> None:
    result = yqc.compile(
        shared / "golden" / "yolov8n.pt",
        "fp16",
        output=tmp_path / "m.onnx",
        imgsz=(96, 128),
        evaluate=False,
        html=False,
    )
    assert result.report.warnings == ()
