"""Ultralytics' own ONNX backend: metadata, names, predictions and a validation."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.clients.conftest import Compiled
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


def test_it_validates(compiled: Compiled, data: Path, tmp_path: Path) -> None:
    model = ultralytics.YOLO(compiled("int8"), task="detect")
    described = yaml.safe_load(data.read_text()) | {"path": str(data.parent)}
    absolute = tmp_path / "data.yaml"  # it takes a relative path as one below its own folder
    absolute.write_text(yaml.safe_dump(described))
    got = model.val(
        data=str(absolute), imgsz=64, batch=1, device="cpu", verbose=False, plots=False,
        workers=0, project=str(tmp_path), rect=False,
    )  # fmt: skip
    assert 0 <= got.box.map <= 1
