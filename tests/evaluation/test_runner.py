"""Running ONNX files of all kinds, and refusing those that are no detectors."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from yqc.errors import CheckpointError
from yqc.evaluation import OnnxModel, TorchModel

OUTPUTS = np.random.default_rng(0).random((2, 9, 7), np.float32)
KEYS = np.array([0.0, 1.0], np.float32)
BLACK, WHITE = (np.full((1, 3, 64, 64), v, np.float32) for v in (0, 1))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("batch", [1, 3, "N"])
@pytest.mark.parametrize("size", [(64, 64), None])
def test_runs_any_type_batch_and_size(
    remember: Callable[..., Path], kind: int, batch: int | str, size: tuple[int, int] | None
) -> None:
    model = OnnxModel(remember(OUTPUTS, KEYS, kind=kind, batch=batch, size=size), threads=1)
    for image, want in ((BLACK, OUTPUTS[:1]), (WHITE, OUTPUTS[1:])):
        (got,) = model.run(image)
        assert got.shape == (1, 9, 7)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-3 if kind != TensorProto.FLOAT else 0)
    assert model.imgsz == size
    assert model.batch == (None if batch == "N" else batch)


def test_reads_the_metadata_of_yolo_exporters(remember: Callable[..., Path]) -> None:
    names = str({i: f"c{i}" for i in range(12)})
    model = OnnxModel(remember(OUTPUTS, metadata={"names": names, "imgsz": "[320, 640]"}))
    assert model.names == tuple(f"c{i}" for i in range(12))
    assert model.recorded_imgsz == (320, 640)
    assert OnnxModel(remember(OUTPUTS, metadata={"names": "['a', 'b']"})).names == ("a", "b")


@pytest.mark.parametrize("text", ["", "{", "open('x')", "7", "[]", "(" * 9000, "'a'"])
def test_odd_metadata_says_nothing(remember: Callable[..., Path], text: str) -> None:
    model = OnnxModel(remember(OUTPUTS, metadata={"names": text, "imgsz": text}))
    assert (model.names, model.recorded_imgsz) == (None, None)


def test_refuses_what_onnxruntime_cannot_open(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no ONNX file at"):
        OnnxModel(tmp_path / "gone.onnx")
    (tmp_path / "x.onnx").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match=r"cannot open .*x\.onnx: ") as e:
        OnnxModel(tmp_path / "x.onnx")
    assert "\n" not in str(e.value)


Value = tuple[int, list[int | str]]


@pytest.mark.parametrize(
    ("inputs", "output", "complaint"),
    [
        ([(1, [1, 3, 8, 8]), (1, [1, 3, 8, 8])], (1, [1, 9, 7]), "one float or uint8 input"),
        ([(1, [1, 4, 8])], (1, [1, 4, 8]), r"has images0: tensor\(float\)\[1, 4, 8\]"),
        ([(1, [1, 3, 8])], (1, [1, 3, 8]), "one float or uint8 input"),
        ([(7, [1, 3, 8, 8])], (7, [1, 3, 8, 8]), r"tensor\(int64\)"),
        ([(1, [1, 3, 8, 8])], (1, [1, 3, 8, 8]), "is no decoded YOLO detector: its first output"),
    ],
)
def test_refuses_other_models(
    tmp_path: Path, inputs: list[Value], output: Value, complaint: str
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images0"], ["y"])],
        "g",
        [helper.make_tensor_value_info(f"images{i}", *one) for i, one in enumerate(inputs)],
        [helper.make_tensor_value_info("y", *output)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(CheckpointError, match=complaint):
        OnnxModel(tmp_path / "other.onnx")


def test_a_failing_run_is_named(remember: Callable[..., Path]) -> None:
    model = OnnxModel(remember(OUTPUTS))
    with pytest.raises(CheckpointError, match=r"remember\.onnx does not run at 32x96: "):
        model.run(np.zeros((1, 3, 32, 96), np.float32))


def test_a_torch_module_runs_without_gradients() -> None:
    class OutputForm(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            assert not torch.is_grad_enabled()
            return images.mean((2, 3)).unsqueeze(1) * 2

    (got,) = TorchModel(OutputForm()).run(WHITE)
    np.testing.assert_array_equal(got, np.full((1, 1, 3), 2))
