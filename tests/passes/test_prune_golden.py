"""prune on checkpoints of each kind: the file computes what the graph does."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

import yqc
from tests.slow import slow_but

KINDS = ["yolov5n", "yolo12n", "yolo26n"]
"""One of each kind of head, and attention; the others pass too, in minutes."""


@pytest.mark.parametrize("name", slow_but(KINDS, "yolov5n"))
def test_every_kind_loses_the_share_and_its_file_equals_the_graph(
    shared: Path, name: str, tmp_path: Path
) -> None:
    images = np.load(shared / "golden" / f"{name}.npz")["input"]
    result = yqc.compile(
        shared / "golden" / f"{name}.pt",
        "reparam,prune{ratio=0.3}",
        output=tmp_path / "m.onnx",
        imgsz=images.shape[2:],
        evaluate=False,
        html=False,
        verify=False,
    )
    size = result.report.size
    reparameterized = sum(t.numel() for t in result.gm.parameters())
    assert 0.6 < reparameterized / size.params_before < 0.71
    image = images[:1].astype(np.float32) / 255
    got = ort.InferenceSession(result.files.onnx).run(None, {"images": image})[0]
    with torch.no_grad():
        want = result.gm(torch.from_numpy(image)).numpy()
    scores = slice(4, None)
    if want.shape[1] < want.shape[2]:  # rows of numbers, else columns
        got, want = got.transpose(0, 2, 1), want.transpose(0, 2, 1)
    if want.shape[-1] == 6:  # end to end: equal scores may be in either order
        apart = np.abs(got[:, :, None] - want[:, None]).max(-1)
        got = np.take_along_axis(got, apart.argmin(1)[..., None], 1)
    boxes = np.abs(got[..., :4] - want[..., :4]).max() / np.abs(want[..., :4]).max()
    assert boxes <= 1e-3
    assert np.abs(got[..., scores] - want[..., scores]).max() <= 1e-3
