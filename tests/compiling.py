"""A network to compile that is no detector, and what reads the files that come of it."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from yqc.settings import Settings


def outputs(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def run(path: Path, images: Tensor) -> NDArray[np.float32]:
    """Return what an ONNX file computes of images."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(["output0"], {"images": images.numpy()})[0]
    return found


class Plain(nn.Module):
    """A network that yqc has never seen, and that is no detector."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.act = nn.Conv2d(3, 4, 3, 2), nn.SiLU()

    def forward(self, images: Tensor) -> Tensor:
        return self.act(self.conv(images))  # type: ignore[no-any-return]


SMALL = Settings(imgsz=(16, 24))
