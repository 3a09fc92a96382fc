"""Fixtures that several rooms share."""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from yqc.data import scenes, shapes


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and checkpoints; tests that need it skip where it is absent."""
    path = Path(os.environ.get("YQC_SHARED", Path(__file__).parents[2] / "shared"))
    if not (path / "golden").is_dir():
        pytest.skip(f"needs real checkpoints and data, and {path} is absent (set YQC_SHARED)")
    return path


@pytest.fixture(scope="session")
def models() -> ModuleType:
    """The helper of `tests/models` that writes small detectors as checkpoint files."""
    path = Path(__file__).with_name("models") / "checkpoints.py"
    spec = importlib.util.spec_from_file_location("yqc_test_models", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SMALL = {
    "backbone": [
        *([-1, 1, "Conv", [width, 3, 2]] for width in (8, 8, 16)),
        [-1, 1, "C2f", [16, True]],
        *([-1, 1, "Conv", [16, 3, 2]] for _ in range(2)),
        [-1, 1, "SPPF", [16, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 4], 1, "Concat", [1]],
        [-1, 1, "C2f", [16]],
        [[3, 9, 6], 1, "Detect", ["nc"]],
    ],
}
"""A YOLOv8-like detector of some ten thousand parameters."""


@pytest.fixture(scope="session")
def checkpoint(models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small YOLOv8-like detector, as if trained at 64 x 64 for the classes of `data`."""
    path: Path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    detector = models.make(SMALL, nc=len(scenes.NAMES)).half()
    models.save(path, detector, "ultralytics", names=list(scenes.NAMES), args={"imgsz": 64})
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data YAML of eight drawn pictures to calibrate on, and three to evaluate on."""
    return shapes.write(tmp_path_factory.mktemp("data") / "shapes", train=8, val=3)
