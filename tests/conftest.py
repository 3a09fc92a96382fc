"""Fixtures that several rooms share."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from hypothesis import settings

from tests.command import Run, command
from tests.models import checkpoints as helper
from yqc.data import scenes, shapes

settings.register_profile("yqc", deadline=None)  # no test is timed
settings.load_profile("yqc")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start
if os.environ["OMP_NUM_THREADS"] == "1":  # threads of several workers wait for each other
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and checkpoints; tests that need it skip where it is absent."""
    path = Path(os.environ.get("YQC_SHARED", Path(__file__).parents[2] / "shared"))
    if not (path / "golden").is_dir():
        pytest.skip(f"needs real checkpoints and data, and {path} is absent (set YQC_SHARED)")
    return path


@pytest.fixture(scope="session")
def checkpoints() -> ModuleType:
    """The helper that builds small detectors and writes them as checkpoint files."""
    return helper


@pytest.fixture(scope="session")
def specs() -> Mapping[str, Any]:
    """Small model YAMLs, one a family."""
    path = Path(__file__).parent / "models" / "specs.yaml"
    found: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `yqc` with some arguments, in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return command(monkeypatch, capsys)


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
def checkpoint(checkpoints: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small YOLOv8-like detector, as if trained at 64 x 64 for the classes of `data`."""
    path: Path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    detector = checkpoints.make(SMALL, nc=len(scenes.NAMES)).half()
    checkpoints.save(path, detector, "ultralytics", names=list(scenes.NAMES), args={"imgsz": 64})
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data YAML of eight drawn pictures to calibrate on, and three to evaluate on."""
    return shapes.write_shapes(tmp_path_factory.mktemp("data") / "shapes", train=8, val=3)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the user's for every test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "yqc"
