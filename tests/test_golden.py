"""Real-looking checkpoints of every family, all the way to the emitted file under onnxruntime."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

import yqc
from tests.slow import slow_but
from yqc.models.source import open_model
from yqc.pipeline.watchers import Verify

FAMILIES = [
    *("yolov5n", "yolov7-tiny", "yolov7"),
    *("yolov5nu", "yolov8n", "yolov9t", "yolov10n", "yolo11n", "yolo12n", "yolo26n"),
]
END2END = {"yolov10n", "yolo26n"}
QUICK = ("yolov5n", "yolov7-tiny", "yolo11n")
KINDS = ["yolov5n", "yolov7-tiny", "yolov8n", "yolo12n", "yolo26n"]
"""One of each kind of head, and attention; the others pass too, and take minutes."""

Array = NDArray[np.float32]


def compiled(shared: Path, name: str, passes: str, out: Path, **more: Any) -> tuple[Path, Any]:
    arrays = np.load(shared / "golden" / f"{name}.npz")
    result = yqc.compile(
        shared / "golden" / f"{name}.pt",
        passes,
        output=out / "m.onnx",
        imgsz=arrays["input"].shape[2:],
        evaluate=False,
        html=False,
        **more,
    )
    return result.files.onnx, arrays


def run(path: Path, images: NDArray[np.uint8]) -> Array:
    session = ort.InferenceSession(path)
    floats = images.astype(np.float32) / 255
    return np.concatenate([session.run(None, {"images": f[None]})[0] for f in floats])


def apart(got: Array, layout: str) -> tuple[Array, Array]:
    if layout == "yolov5":
        return got[..., :4], got[..., 4:]
    return got[:, :4], got[:, 4:]


def matched(got: Array, want: Array) -> tuple[float, float]:
    """Match rows of one image by score, class and box; return the largest differences."""
    boxes = scores = 0.0
    free = list(range(len(want)))
    for row in got:
        near = [i for i in free if want[i, 5] == row[5] and abs(want[i, 4] - row[4]) < 1e-3]
        best = min(near, key=lambda i: float(np.abs(want[i, :4] - row[:4]).max()))
        free.remove(best)
        boxes = max(boxes, float(np.abs(want[best, :4] - row[:4]).max()))
        scores = max(scores, abs(float(want[best, 4] - row[4])))
    return boxes, scores


@pytest.mark.parametrize("passes", ["", "reparam,fold-bn"])
@pytest.mark.parametrize("name", slow_but(FAMILIES, *QUICK))
def test_reproduces_what_its_project_computes(
    shared: Path, tmp_path: Path, name: str, passes: str
) -> None:
    path, arrays = compiled(shared, name, passes, tmp_path)
    got = run(path, arrays["input"])
    if name in END2END:
        want = arrays["output_end2end"]
        assert got.shape == want.shape
        errors = [matched(g, w) for g, w in zip(got, want, strict=True)]
        boxes, scores = (max(e[i] for e in errors) for i in (0, 1))
        largest = float(np.abs(want[..., :4]).max())
    else:
        want = arrays["output"]
        assert got.shape == want.shape
        layout = "yolov5" if want.shape[1] > want.shape[2] else "yolov8"
        pairs = list(zip(apart(got, layout), apart(want, layout), strict=True))
        boxes, scores = (float(np.abs(a - b).max()) for a, b in pairs)
        largest = float(np.abs(pairs[0][1]).max())
    assert boxes <= 1e-3 * largest
    assert scores <= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(END2END))
def test_the_other_head_reproduces_its_output_too(shared: Path, tmp_path: Path, name: str) -> None:
    path, arrays = compiled(shared, name, "fuse", tmp_path, head="one2many")
    got, want = run(path, arrays["input"]), arrays["output"]
    assert np.abs(got[:, :4] - want[:, :4]).max() <= 1e-3 * np.abs(want[:, :4]).max()
    assert np.abs(got[:, 4:] - want[:, 4:]).max() <= 1e-3


def before_output(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """List the nodes between the last convolutions and the output."""
    maker = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, onnx.NodeProto] = {}
    todo = [output.name for output in model.graph.output]
    while todo:
        node = maker.get(todo.pop())
        if node is not None and node.op_type != "Conv" and node.name not in found:
            found[node.name] = node
            todo += node.input
    return list(found.values())


@pytest.mark.parametrize("name", slow_but(KINDS, "yolov7-tiny", "yolo26n"))
def test_int8_without_data_keeps_boxes_and_scores_apart(
    shared: Path, tmp_path: Path, name: str
) -> None:
    path, arrays = compiled(shared, name, "int8", tmp_path, target="portable", verify=False)
    model = onnx.load(path)
    decode = before_output(model)
    assert "Concat" in {node.op_type for node in decode}
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in decode}
    weights = {i.name: i for i in model.graph.initializer}
    maker = {output: node for node in model.graph.node for output in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    stored = [weights[maker[c.input[1]].input[0]].data_type for c in convolutions]
    assert set(stored) == {onnx.TensorProto.INT8}
    fed = [maker[c.input[0]].op_type == "DequantizeLinear" for c in convolutions]
    assert sum(fed) >= 0.9 * len(fed)
    assert np.isfinite(run(path, arrays["input"])).all()
    report = json.loads(path.with_name("m.report.json").read_text())
    assert report["accuracy"]["kind"] == "none"
    assert any("no data was given" in warning for warning in report["warnings"])


@pytest.mark.parametrize("size", [None, (320, 320)], ids=["own", "320"])
@pytest.mark.parametrize("name", slow_but(FAMILIES, *QUICK))
def test_folding_keeps_the_numbers_up_to_the_rounding_noise(
    name: str, size: tuple[int, int] | None, shared: Path
) -> None:
    """Random weights amplify rounding: YOLO12n at 320 px by ten thousand."""
    gm = open_model(shared / "golden" / f"{name}.pt", imgsz=size).gm
    steps = yqc.Pipeline.parse("reparam,fold-bn").run(gm, yqc.Context(), [Verify()])
    assert [step.name for step in steps] == ["reparam", "fold-bn"]
    assert steps[-1].record.changed
