"""The whole job from Python: where models come from, and how passes are given."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

import yqc
from tests.compiling import SMALL, Plain, run
from tests.steps import Scale
from yqc import Pipeline
from yqc.errors import CheckpointError, TraceError
from yqc.graph.serial import save_graph
from yqc.models.source import open_model
from yqc.settings import Settings, read_recipe

# Where models come from


def test_compiles_any_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = yqc.compile(Plain(), settings=SMALL)
    assert result.files.onnx == Path("Plain.onnx")
    images = torch.rand(1, 3, 16, 24)
    np.testing.assert_allclose(
        run(result.files.onnx, images), Plain()(images).detach().numpy(), rtol=1e-5, atol=1e-6
    )
    assert result.report.input.family == "module"
    assert result.report.input.params == 4 * 27 + 4
    assert result.report.accuracy.kind == "none"
    assert result.report.latency is None
    assert result.report.passes == ()


def test_a_module_is_left_as_it_was(tmp_path: Path) -> None:
    net = Plain()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    yqc.compile(net, [Scale()], output=tmp_path / "x.onnx", settings=SMALL)
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_compiles_a_graph_file(checkpoint: Path, tmp_path: Path) -> None:
    source = open_model(checkpoint)
    path = tmp_path / "model.yqc"
    save_graph(source.gm, path, source.info())
    found = open_model(path)
    assert (found.names, found.strides, found.imgsz, found.layout, found.params) == (
        source.names,
        source.strides,
        source.imgsz,
        source.layout,
        source.params,
    )
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    result = yqc.compile(path, "dce", output=tmp_path / "x.onnx", evaluate=False)
    assert result.report.input.family == "ultralytics"
    with pytest.raises(TraceError, match="is traced at 64 x 64, and that cannot be changed"):
        yqc.compile(path, output=tmp_path / "x.onnx", settings=Settings(imgsz=(32, 32)))


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"passed": "dce"}, "is a snapshot of a compile, not a model"),
        ({"kind": "reproducer"}, "is a reproducer of a compile, not a model"),
        ({"kind": "model"}, "records no image size, but null"),
        ({"kind": "model", "imgsz": [16, "24"]}, 'records no image size, but [16, "24"]'),
        ({"kind": "model", "imgsz": [16, 24]}, "does not say what model it holds ('family')"),
    ],
)
def test_a_graph_file_that_is_no_model(
    info: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.yqc"
    save_graph(yqc.trace(Plain(), torch.zeros(1, 3, 16, 24)), path, info)
    with pytest.raises(CheckpointError) as caught:
        yqc.compile(path, output=tmp_path / "x.onnx")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("size", [(96, 64), (64, 96)])
def test_other_sizes(checkpoint: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    result = yqc.compile(
        checkpoint, output=tmp_path / "x.onnx", settings=Settings(imgsz=size), evaluate=False
    )
    assert run(result.files.onnx, torch.rand(1, 3, *size)).shape[2] == 96 + 24 + 6
    assert result.report.input.imgsz == size


def test_a_dynamic_batch(checkpoint: Path, tmp_path: Path) -> None:
    result = yqc.compile(
        checkpoint, "fuse", output=tmp_path / "x.onnx", dynamic=True, evaluate=False
    )
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    together = run(result.files.onnx, images)
    alone = np.concatenate([run(result.files.onnx, images[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-3)


# How passes are given


def test_passes_may_be_objects(tmp_path: Path) -> None:
    for passes in ([Scale(3.0)], Pipeline([Scale(3.0)])):
        result = yqc.compile(Plain(), passes, output=tmp_path / "x.onnx", settings=SMALL)
        assert result.report.pipeline.text == "scale{by=3.0}"
        assert read_recipe(result.files.recipe).passes == "scale{by=3.0}"


@pytest.mark.parametrize(
    ("passes", "name"),
    [
        ("", "Plain.onnx"),
        ("fuse", "Plain-fuse.onnx"),
        ("fold-bn{min-var=0.1},dce", "Plain-fold-bn-dce.onnx"),
    ],
)
def test_names_the_output_after_model_and_passes(
    passes: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    yqc.compile(Plain(), passes, settings=SMALL)
    assert (tmp_path / name).is_file()
