"""Nets that are no YOLO, from Python: calibrated, pruned, trained and verified on a folder."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

import yqc
from tests.slow import slow_but
from yqc.graph.serial import save_graph
from yqc.testing.nets import Unit, seeded


class Basic(nn.Module):
    """Two convolutions beside a shortcut of one (He et al. 2015)."""

    def __init__(self, given: int, made: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(given, made, 3, stride, 1), nn.BatchNorm2d(made)
        self.conv2, self.bn2 = nn.Conv2d(made, made, 3, 1, 1), nn.BatchNorm2d(made)
        self.shortcut = nn.Sequential(nn.Conv2d(given, made, 1, stride), nn.BatchNorm2d(made))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


class Classifier(nn.Module):
    """A small residual net that returns logits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(Unit(3, 8, 3, 2), Basic(8, 16, 2), Basic(16, 24, 2))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.pool(self.body(x)).flatten(1))
        return y


class Ssd(nn.Module):
    """Two maps, from each of which convolutions give offsets and classes (Liu et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(Unit(3, 8, 3, 2), Basic(8, 16, 2))
        self.coarse = Basic(16, 24, 2)
        self.offsets = nn.ModuleList(nn.Conv2d(c, 2 * 4, 3, 1, 1) for c in (16, 24))
        self.classes = nn.ModuleList(nn.Conv2d(c, 2 * 5, 3, 1, 1) for c in (16, 24))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = [self.fine(x)]
        maps.append(self.coarse(maps[0]))

        def rows(heads: nn.ModuleList, width: int) -> Tensor:
            found = (head(y).permute(0, 2, 3, 1) for head, y in zip(heads, maps, strict=True))
            return torch.cat([y.reshape(y.shape[0], -1, width) for y in found], 1)

        return {"boxes": rows(self.offsets, 4), "scores": rows(self.classes, 5).softmax(-1)}


@pytest.fixture(scope="module")
def folder(data: Path) -> Path:
    return data.parent / "images"


@pytest.mark.parametrize("net", [Classifier, Ssd])
def test_int8_of_a_net_that_is_no_detector(
    net: type[nn.Module], folder: Path, tmp_path: Path
) -> None:
    passes = "prune{ratio=0.3 recover_steps=2},int8{ranges=minmax}"
    made = yqc.compile(
        seeded(net()), passes, output=tmp_path / "x.onnx", data=folder, imgsz=64, calib_images=4,
    )  # fmt: skip
    report = json.loads(made.report.to_json())
    ran = {one["name"]: one for one in report["passes"]}
    assert {"channel-prune", "recover", "calibrate", "quantize"} <= ran.keys()
    assert ran["channel-prune"]["weight_bytes_after"] < ran["channel-prune"]["weight_bytes_before"]
    accuracy = report["accuracy"]
    assert (accuracy["kind"], accuracy["images"]) == ("agreement", 6)
    assert accuracy["agreement"] == {"ap50": None, "map": None, "top1": None}
    assert accuracy["outputs"]["sqnr_db"] > 5
    assert 0 < accuracy["outputs"]["max_abs_error"] < 5
    outputs = onnx.load(made.files.onnx).graph.output
    assert [value.name for value in outputs] == ["output0", "output1"][: len(outputs)]
    assert len(outputs) == (1 if net is Classifier else 2)
    text = made.files.page.read_text()
    assert "Outputs, SQNR" in text


def test_the_figures_are_those_of_the_files(folder: Path, tmp_path: Path) -> None:
    net = seeded(Classifier())
    made = yqc.compile(
        net, "fold-bn", output=tmp_path / "x.onnx", data=folder, imgsz=64, html=False
    )
    outputs = made.report.accuracy.outputs
    assert outputs is not None
    assert outputs.max_abs_error is not None
    assert outputs.max_abs_error < 1e-4
    assert outputs.sqnr_db is None or outputs.sqnr_db > 80


def test_a_graph_file_comes_from_the_command_line(folder: Path, tmp_path: Path) -> None:
    gm = yqc.trace(seeded(Classifier()), torch.zeros(1, 3, 64, 64))
    info = {
        "kind": "model",
        "family": "module",
        "name": "Classifier",
        "task": "other",
        "names": [],
        "strides": [],
        "imgsz": [64, 64],
        "channels": 3,
        "layout": None,
    }
    save_graph(gm, tmp_path / "net.yqc", info)
    made = yqc.compile(
        tmp_path / "net.yqc", "int8{ranges=minmax}", output=tmp_path / "x.onnx", data=folder,
        evaluate=False, html=False,
    )  # fmt: skip
    assert "calibrate" in [one.name for one in made.report.passes]


@pytest.mark.parametrize("count", slow_but([1, 3], 1))
def test_few_images_calibrate_where_nothing_is_evaluated(
    count: int, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted(data.parent.rglob("*.png"))[:count]:
        (folder / path.name).write_bytes(path.read_bytes())
    made = yqc.compile(
        checkpoint, "int8{ranges=minmax}", output=tmp_path / "x.onnx", data=folder, evaluate=False,
        html=False,
    )  # fmt: skip
    (said,) = [one for one in made.report.warnings if "calibration sees" in one]
    assert f"calibration sees {count} image" in said


def test_too_few_to_evaluate_and_calibrate_are_refused_before_the_passes(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted(data.parent.rglob("*.png"))[:6]:
        (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(yqc.YqcError, match=r"^calibration needs at least 8 images.*--no-eval"):
        yqc.compile(checkpoint, "int8", output=tmp_path / "x.onnx", data=folder)


@pytest.mark.parametrize("passes", slow_but(["fuse", "int8"], "int8"))
def test_opset_13(passes: str, checkpoint: Path, tmp_path: Path) -> None:
    made = yqc.compile(
        checkpoint, passes, output=tmp_path / "x.onnx", opset=13, dynamic=passes == "fuse",
        nms=True, evaluate=False, html=False,
    )  # fmt: skip
    assert onnx.load(made.files.onnx).opset_import[0].version == 13


class Normed(nn.Module):
    """A convolution behind which each position is normed over its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x).permute(0, 2, 3, 1))
        return y


def test_an_opset_that_is_too_low_is_refused_before_the_passes(
    checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(yqc.YqcError, match=r"pack-int4 packs need opset 18 for onnxruntime"):
        yqc.compile(checkpoint, "int4", output=tmp_path / "x.onnx", opset=13)
    with pytest.raises(yqc.YqcError, match=r"operator LayerNormalization.*ask for 17"):
        yqc.compile(seeded(Normed()), "fuse", output=tmp_path / "x.onnx", opset=13, imgsz=32)
