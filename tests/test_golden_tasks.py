"""Real-looking checkpoints of the tasks beyond detection, from the module to the emitted file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

import yqc
from tests.slow import slow_but
from tests.test_golden import before_output
from yqc.emit import emit
from yqc.graph.values import list_tensors
from yqc.models.load import load
from yqc.models.source import open_model

NAMES = ("yolo11n-seg", "yolo11n-pose", "yolov8n-obb", "yolo11n-cls")
DUAL = ("yolo26n-seg", "yolo26n-pose", "yolo26n-obb")
QUICK = ("yolo11n-seg", "yolo11n-pose", "yolo11n-cls", "yolov8n-obb")
"""One of each task; the others are of other families."""
CASES = [
    *((name, None, "output") for name in NAMES),
    *((name, None, "output_end2end") for name in DUAL),
    *((name, "one2many", "output") for name in DUAL),
]
FORMS = {
    "seg": ("segment", 32, None, 32),
    "pose": ("pose", 0, (17, 3), 51),
    "obb": ("obb", 0, None, 1),
    "cls": ("classify", 0, None, 0),
}
"""By the end of a name: task, coefficients, keypoints, further numbers of a detection."""
BOUND = 1e-3

Array = NDArray[np.float32]


def arrays_of(shared: Path, name: str) -> dict[str, Any]:
    with np.load(shared / "golden" / f"{name}.npz") as found:
        return dict(found)


def pictures(arrays: dict[str, Any]) -> Array:
    images: NDArray[np.float32] = arrays["input"].astype(np.float32) / 255
    return images


def matched_rows(got: Array, want: Array) -> tuple[Array, Array]:
    """Pair rows of one image by class, score and box, without those that tie with the last."""
    free, mine, theirs = list(range(len(want))), [], []
    for row in got[got[:, 4] > got[-1, 4] + BOUND]:
        near = [i for i in free if want[i, 5] == row[5] and abs(want[i, 4] - row[4]) < BOUND]
        best = min(near, key=lambda i: float(np.abs(want[i, :4] - row[:4]).max()))
        free.remove(best)
        mine.append(row)
        theirs.append(want[best])
    return np.stack(mine), np.stack(theirs)


def assert_near(got: Array, want: Array, largest: float) -> None:
    assert np.abs(got - want).max(initial=0.0) <= BOUND * largest


def assert_equals_project(got: list[Array], arrays: dict[str, Any], key: str, name: str) -> None:
    """Compare all outputs with the project's, each kind of number in its own unit."""
    first, want, kind = got[0], arrays[key], name.rpartition("-")[2]
    assert first.shape == want.shape
    if kind == "cls":
        assert_near(first, want, 1.0)
        return
    if kind == "seg":
        assert_near(got[1], arrays["proto"], max(1.0, np.abs(arrays["proto"]).max()))
    if key == "output_end2end":
        pairs = [matched_rows(g, w) for g, w in zip(first, want, strict=True)]
        first, want = (np.concatenate(side) for side in zip(*pairs, strict=True))
        assert len(first) > 100, "most rows can be compared"
    else:
        first, want = (x.transpose(0, 2, 1).reshape(-1, x.shape[1]) for x in (first, want))
    extra = FORMS[kind][3]
    coordinates = [0, 1, 2, 3]
    if kind == "pose":
        end = want.shape[1]
        coordinates += [c for c in range(end - extra, end) if (c - end + extra) % 3 != 2]
    largest = float(np.abs(want[:, :4]).max())
    assert_near(first[:, coordinates], want[:, coordinates], largest)
    rest = [c for c in range(want.shape[1]) if c not in coordinates]
    for columns in (rest[:-extra], rest[-extra:]):
        own = want[:, columns]
        assert_near(first[:, columns], own, np.abs(own).max(initial=1.0))


@pytest.mark.parametrize(("name", "head", "key"), slow_but(CASES, *QUICK))
def test_every_stage_computes_what_the_project_does(
    shared: Path, name: str, head: Any, key: str
) -> None:
    """Module, traced graph, the graph behind the fusing passes, and its file."""
    arrays = arrays_of(shared, name)
    loaded = load(shared / "golden" / f"{name}.pt", head=head)
    images = torch.from_numpy(pictures(arrays))
    source = open_model(loaded, imgsz=arrays["input"].shape[2:])
    with torch.no_grad():
        found = list_tensors(loaded.module(images))
        for one, other in zip(list_tensors(source.gm(images)), found, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert_equals_project([x.numpy() for x in found], arrays, key, name)
    form, kind = loaded.form, name.rpartition("-")[2]
    assert form is not None
    assert (form.task, form.coefficients, form.kpt_shape, form.extra) == FORMS[kind]
    assert form.nc == 7
    layouts = {"output_end2end": "end2end", "output": "classes" if kind == "cls" else "yolov8"}
    assert form.layout == layouts[key]
    assert loaded.warnings == ()

    yqc.Pipeline.parse("reparam,fold-bn").run(source.gm, yqc.Context())
    with torch.no_grad():
        fused = [x.numpy() for x in list_tensors(source.gm(images))]
    assert_equals_project(fused, arrays, key, name)
    file = emit(source.gm).SerializeToString()
    assert_equals_project(run_file(file, pictures(arrays)), arrays, key, name)


def compiled(shared: Path, name: str, passes: str, out: Path, **more: Any) -> Path:
    result = yqc.compile(
        shared / "golden" / f"{name}.pt",
        passes,
        output=out / "m.onnx",
        imgsz=arrays_of(shared, name)["input"].shape[2:],
        evaluate=False,
        html=False,
        verify=False,
        **more,
    )
    return result.files.onnx


def run_file(file: Path | bytes, images: Array) -> list[Array]:
    session = ort.InferenceSession(file)
    assert [value.name for value in session.get_outputs()] == [
        f"output{i}" for i in range(len(session.get_outputs()))
    ]
    runs = [session.run(None, {"images": image[None]}) for image in images]
    return [np.concatenate(each) for each in zip(*runs, strict=True)]


@pytest.mark.parametrize("name", ["yolo11n-pose", "yolo11n-cls"])
def test_the_file_says_what_it_is(shared: Path, tmp_path: Path, name: str) -> None:
    path = compiled(shared, name, "fold-bn", tmp_path)
    held = {p.key: p.value for p in onnx.load(path).metadata_props}
    task, _, keypoints, _ = FORMS[name.rpartition("-")[2]]
    assert held["task"] == task
    assert held.get("kpt_shape") == (str(list(keypoints)) if keypoints else None)
    assert held["stride"] == ("1" if task == "classify" else "32")
    report = json.loads(path.with_name("m.report.json").read_text())
    assert report["verification"]["within_tolerance"] is True
    assert report["input"]["task"] == task


@pytest.mark.parametrize(
    "name", slow_but(["yolo26n-seg", "yolo11n-pose", "yolov8n-obb", "yolo11n-cls"], "yolo26n-seg")
)
def test_int8_without_data_keeps_kinds_of_output_apart(
    shared: Path, tmp_path: Path, name: str
) -> None:
    path = compiled(shared, name, "int8", tmp_path, target="portable")
    model = onnx.load(path)
    assert not {"QuantizeLinear", "DequantizeLinear"} & {n.op_type for n in before_output(model)}
    scales = scales_by_role(model, open_model(shared / "golden" / f"{name}.pt"))
    for role, own in scales.items():
        others = set().union(*(held for kind, held in scales.items() if kind != role))
        assert not own & others, f"{role} shares a scale"
    found = run_file(path, pictures(arrays_of(shared, name)))
    assert all(np.isfinite(x).all() for x in found)


def scales_by_role(model: onnx.ModelProto, source: Any) -> dict[str, set[str]]:
    """Names of the scales of activations that nodes of each kind of output make."""
    roles = {node.name: yqc.role(node) for node in source.gm.graph.nodes}
    weights = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, set[str]] = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in weights:
            kind = roles.get(node.input[0].partition(".")[0], "")
            if kind.startswith("head."):
                found.setdefault(kind, set()).add(node.input[1])
    return found


@pytest.mark.parametrize("name", slow_but(["yolo11n-seg", "yolo11n-cls"], "yolo11n-cls"))
def test_int4_without_data_compiles(shared: Path, tmp_path: Path, name: str) -> None:
    path = compiled(shared, name, "int4", tmp_path)
    found = run_file(path, pictures(arrays_of(shared, name)))
    assert all(np.isfinite(x).all() for x in found)
