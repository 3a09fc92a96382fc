"""Small data sets, drawn on the spot."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Write = Callable[..., Path]


@pytest.fixture
def picture(tmp_path: Path) -> Write:
    """Writes an image of noise; its seed is its path, so that no two are alike."""

    def write(name: str, size: tuple[int, int] = (40, 30)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(list(name.encode()))
        Image.fromarray(noise.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def yolo(tmp_path: Path, picture: Write) -> Write:
    """Writes a YOLO data set of ten training and two validation images of 40 x 30 pixels."""

    def write(labels: Mapping[str, str] | None = None, **keys: str) -> Path:
        for i in range(10):
            picture(f"images/train/t{i}.png")
        for name in ("a", "b"):
            picture(f"images/val/{name}.png")
        for name, text in (labels or {"a": "0 0.5 0.5 0.5 0.2\n"}).items():
            path = tmp_path / "labels" / "val" / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        keys = {"train": "images/train", "val": "images/val", "names": "[cat, dog]"} | keys
        spec = tmp_path / "data.yaml"
        spec.write_text("".join(f"{key}: {value}\n" for key, value in keys.items() if value))
        return spec

    return write
