"""Detectors of other channels than RGB, end to end: compiled, calibrated, trained, measured."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import yqc
from tests.command import Run
from tests.conftest import SMALL
from yqc.data.scenes import NAMES
from yqc.emit import roundtrip
from yqc.emit.roundtrip import open_session, run_session

CHANNELS = 4


@pytest.fixture(scope="module")
def four(checkpoints: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small detector of four channels, as if trained at 64 x 64 for the classes of `data`."""
    path: Path = tmp_path_factory.mktemp("checkpoint") / "four.pt"
    detector = checkpoints.make({**SMALL, "channels": CHANNELS}, nc=len(NAMES)).half()
    checkpoints.save(path, detector, "ultralytics", names=list(NAMES), args={"imgsz": 64})
    return path


@pytest.fixture(scope="module")
def rgba(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn pictures with their brightness in the fourth channel, in three formats."""
    folder = tmp_path_factory.mktemp("rgba") / "shapes"
    for i, path in enumerate(sorted(data.parent.rglob("*.png"))):
        picture = Image.open(path).convert("RGB")
        values = np.dstack([np.asarray(picture), np.asarray(picture.convert("L")) // 4])
        to = folder / path.relative_to(data.parent)
        to.parent.mkdir(parents=True, exist_ok=True)
        if i % 3 == 0:
            np.save(to.with_suffix(".npy"), values)
        else:
            Image.fromarray(values).save(to.with_suffix(".png" if i % 3 == 1 else ".tif"))
        label = path.parents[2] / "labels" / path.parent.name / f"{path.stem}.txt"
        own = folder / label.relative_to(data.parent)
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(label.read_text())
    text = f"{data.read_text()}channels: {CHANNELS}\n"
    (folder / "rgba.yaml").write_text(text)
    return folder / "rgba.yaml"


@pytest.fixture(scope="module")
def compiled(four: Path, rgba: Path, tmp_path_factory: pytest.TempPathFactory) -> yqc.Result:
    passes = "prune{ratio=0.3 recover_steps=1},int8{ranges=minmax}"
    out = tmp_path_factory.mktemp("out") / "x.onnx"
    return yqc.compile(four, passes, output=out, data=rgba, latency=False)


@pytest.mark.slow
def test_four_channels_are_pruned_trained_calibrated_and_measured(compiled: yqc.Result) -> None:
    report = json.loads(compiled.report.to_json())
    assert report["accuracy"]["kind"] == "map"
    assert report["accuracy"]["images"] == 3
    names = [one["name"] for one in report["passes"]]
    assert {"channel-prune", "recover", "calibrate", "quantize"} <= {*names}
    assert not [said for said in report["warnings"] if "could not be read" in said]
    assert compiled.files.page.stat().st_size > 10_000  # it shows the pictures
    model = onnx.load(compiled.files.onnx)
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [
        *(1, CHANNELS, 64, 64)
    ]
    assert {p.key: p.value for p in model.metadata_props}["channels"] == str(CHANNELS)


def test_the_commands_measure_such_a_file(compiled: yqc.Result, rgba: Path, run: Run) -> None:
    file = str(compiled.files.onnx)
    done = run("eval", file, "--data", str(rgba), "--json")
    assert json.loads(done.out)["images"] == 3
    for more in ((), ("--end-to-end",), ("--end-to-end", "--data", str(rgba))):
        done = run("bench", file, *more, "--runs", "2", "--json", "-q")
        assert len(json.loads(done.out)["rows"]) == 1


def test_bytes_in_give_the_same(four: Path, tmp_path: Path) -> None:
    made = yqc.compile(
        four, "fuse", output=tmp_path / "x.onnx", uint8_input=True, evaluate=False, html=False
    )
    (image,) = onnx.load(made.files.onnx).graph.input
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    x = torch.randint(0, 256, (1, CHANNELS, 64, 64), dtype=torch.uint8)
    (got,) = run_session(open_session(made.files.onnx), [x.numpy()])
    want = made.gm(x.float() / 255)
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-3)


def test_pictures_of_three_channels_are_refused_before_the_passes(
    four: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(yqc.YqcError, match="it has 3 channels, and the model takes 4"):
        yqc.compile(four, "int8", output=tmp_path / "x.onnx", data=data)
    assert not list(tmp_path.iterdir())


def test_a_yaml_of_other_channels_is_refused(checkpoint: Path, rgba: Path, tmp_path: Path) -> None:
    with pytest.raises(yqc.YqcError, match="says channels: 4, and the model takes 3"):
        yqc.compile(checkpoint, "int8", output=tmp_path / "x.onnx", data=rgba)


def test_a_module_of_five_channels(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(5, 4, 3), torch.nn.ReLU()).eval()
    made = yqc.compile(net, "int8", output=tmp_path / "x.onnx", imgsz=32)
    example = torch.rand(1, 5, 32, 32)
    assert roundtrip(made.gm, made.files.onnx, example).within()


def test_the_golden_checkpoint_of_one_channel(shared: Path, tmp_path: Path) -> None:
    stem = shared / "golden" / "yolov8n-ch1"
    with np.load(stem.with_suffix(".npz")) as golden:
        x, want = torch.from_numpy(golden["input"]).float() / 255, golden["output"]
    made = yqc.compile(
        stem.with_suffix(".pt"), "fuse", output=tmp_path / "x.onnx", imgsz=tuple(x.shape[2:]),
        evaluate=False, html=False, dynamic=True,
    )  # fmt: skip
    (file,) = run_session(open_session(made.files.onnx), [x.numpy()])
    for got in (made.original(x).numpy(), made.gm(x).numpy(), file):
        assert abs(got[:, :4] - want[:, :4]).max() <= 1e-3 * abs(want[:, :4]).max()
        assert abs(got[:, 4:] - want[:, 4:]).max() <= 1e-3
