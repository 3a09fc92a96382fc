"""Ultralytics' own ONNX backend: metadata, names, predictions and a validation.

The backend reads two layouts: [N, 4+nc, A], that of its own heads, and [N, M, 6], boxes that are
suppressed already. Heads of YOLOv5 and YOLOv7 end in [N, A, 5+nc], with an objectness, which it
has not read since its first release: it would take the anchors for classes. With `--nms`, which
joins objectness and scores, such a file is of the second layout, and is read.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

import yqc
from tests.clients.conftest import Compiled
from tests.clients.test_onnxruntime import Level, outputs
from yqc.data import scenes

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
ultralytics = pytest.importorskip(
    "ultralytics", reason="needs ultralytics: pip install yqc[clients]"
)
pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("passes", ["fold-bn", "int8"])
def test_it_predicts_with_our_names(compiled: Compiled, passes: str, images: Any) -> None:
    model = ultralytics.YOLO(compiled(passes), task="detect")
    picture = (images[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    found = model.predict(picture, conf=0.001, imgsz=64, verbose=False, device="cpu")[0]
    assert found.names == dict(enumerate(scenes.NAMES))
    assert len(found.boxes) > 0
    assert float(found.boxes.xyxy.min()) >= 0
    assert float(found.boxes.xyxy.max()) <= 64


HEADS = {
    "yolov5": "conf=0.001 iou=0.7",
    "yolov7-tiny": "conf=0.001 iou=0.7",
    "yolov8": "conf=0.001 iou=0.7",
    "yolov10": "",
    "yolo26": "",
}
"""Families whose files end in [N, M, 6], and the options of suppression for that."""


@pytest.fixture(scope="session")
def suppressed(
    checkpoints: ModuleType, specs: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Compiled:
    """Compiles a small model of a family, once."""
    folder, made = tmp_path_factory.mktemp("families"), dict[str, Path]()

    def make(name: str, options: str) -> Path:
        path = made.setdefault(name + options, folder / f"{len(made)}.onnx")
        if not path.exists():
            detector = checkpoints.make(specs[name], nc=len(scenes.NAMES))
            told = {"names": list(scenes.NAMES), "args": {"imgsz": 64}}
            source = checkpoints.save(
                folder / f"{name}.pt", detector, specs[name]["project"], **told
            )
            yqc.compile(
                source, "fuse", output=path, imgsz=64, nms_options=options, evaluate=False,
                html=False,
            )  # fmt: skip
        return path

    return make


@pytest.mark.parametrize("name", HEADS)
def test_it_reads_boxes_that_are_suppressed(name: str, suppressed: Compiled, images: Any) -> None:
    """Those of the file itself, as it says them: by falling score, with class and box."""
    path = suppressed(name, HEADS[name])
    pixels = np.rint(images[:1] * 255).astype(np.uint8)
    rows = outputs(path, pixels.astype(np.float32) / 255, Level.ORT_DISABLE_ALL)[0]
    assert rows.shape[1] == 6
    floor = 0.999 * float(np.sort(rows[:, 4])[-5])
    want = rows[rows[:, 4] > floor]
    picture = pixels[0].transpose(1, 2, 0)
    model = ultralytics.YOLO(path, task="detect")
    bgr = np.ascontiguousarray(picture[..., ::-1])
    found = model.predict(bgr, conf=floor, imgsz=64, verbose=False, device="cpu")[0]
    assert found.names == dict(enumerate(scenes.NAMES))
    got = found.boxes.data.numpy()
    assert len(got) == len(want)
    np.testing.assert_allclose(got[:, :4], want[:, :4].clip(0, 64), rtol=0, atol=0.05)
    np.testing.assert_allclose(got[:, 4:], want[:, 4:], rtol=0, atol=1e-4)


def test_an_objectness_is_not_read(suppressed: Compiled, images: Any) -> None:
    """What is impossible, and why: it takes axis 1, the anchors, for boxes and scores."""
    path = suppressed("yolov5", "")
    rows = outputs(path, images[:1], Level.ORT_DISABLE_ALL)
    assert rows.shape == (1, 3 * (64 + 16 + 4), 5 + len(scenes.NAMES))
    model = ultralytics.YOLO(path, task="detect")
    picture = (images[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    found = model.predict(picture, conf=0.001, imgsz=64, verbose=False, device="cpu")[0]
    assert len(found.boxes) <= rows.shape[2], "it saw as many candidates as there are columns"


@pytest.mark.parametrize("name", ["yolov5", "yolov7-tiny", "yolov10", "yolo26"])
def test_it_validates_what_is_suppressed(
    name: str, suppressed: Compiled, data: Path, tmp_path: Path
) -> None:
    assert 0 <= validated(suppressed(name, HEADS[name]), data, tmp_path) <= 1


def test_it_validates(compiled: Compiled, data: Path, tmp_path: Path) -> None:
    assert 0 <= validated(compiled("int8"), data, tmp_path) <= 1


def validated(path: Path, data: Path, folder: Path) -> float:
    """Return the mAP that it measures."""
    model = ultralytics.YOLO(path, task="detect")
    described = yaml.safe_load(data.read_text()) | {"path": str(data.parent)}
    absolute = folder / "data.yaml"  # it takes a relative path as one below its own folder
    absolute.write_text(yaml.safe_dump(described))
    got = model.val(
        data=str(absolute), imgsz=64, batch=1, device="cpu", verbose=False, plots=False,
        workers=0, project=str(folder), rect=False,
    )  # fmt: skip
    return float(got.box.map)
