"""Compiles for a device's file: what is inserted, what is left and why, and the recipe of it."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn

import yqc
from yqc.job.fitting import choose_opset, fit_pipeline
from yqc.pipeline.pipeline import Pipeline
from yqc.progress import Silent
from yqc.report import Report
from yqc.settings import Settings, read_recipe
from yqc.targets import find_target
from yqc.testing import nets, traced

SHAPE = (1, 3, 16, 16)
NPU = """\
base = "portable"
operators = ["Conv", "ConvTranspose", "Relu", "Sigmoid", "Mul", "Add", "Concat", "MaxPool"]
fast_activations = ["relu"]
[limits]
pool_kernel = 3
"""


class Net(nn.Module):
    """A split, a large window, upsampling, and a part that no pass removes."""

    def __init__(self) -> None:
        super().__init__()
        self.csp, self.pool = nets.csp(4), nn.MaxPool2d(5, 1, 2)
        self.up, self.last = nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        y: Tensor = self.last(self.up(torch.tanh(self.pool(self.csp(images)))))
        return y


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "npu.toml"
    path.write_text(NPU)
    return path


def compiled(folder: Path, passes: str, target: Path, **choices: Any) -> yqc.Result:
    return yqc.compile(
        nets.seeded(Net()), passes, output=folder / "x.onnx", imgsz=16, target=target,
        evaluate=False, **choices,
    )  # fmt: skip


def fitted(passes: str, target: Path) -> str:
    settings = Settings(target=str(target))
    gm = traced(nets.seeded(Net()), SHAPE)
    return str(fit_pipeline(Pipeline.of(passes), gm, settings, Silent()).pipeline)


NEEDED = "conv-for-split,deconv-for-resize,split-pools"


@pytest.mark.parametrize(
    ("passes", "want"),
    [
        ("", NEEDED),
        ("int8", f"{NEEDED},int8"),
        ("prune{ratio=0.2},fuse,int8", f"prune{{ratio=0.2}},fuse,{NEEDED},int8"),
        ("fuse,int4,int8", f"fuse,{NEEDED},int4,int8"),
        ("relu{recover=0s},fp16", f"relu{{recover=0s}},{NEEDED},fp16"),
        (f"fuse,{NEEDED}", f"fuse,{NEEDED}"),
        ("split-pools,int8", "split-pools,conv-for-split,deconv-for-resize,int8"),
    ],
)
def test_rewrites_stand_before_what_quantizes_and_behind_the_rest(
    device: Path, passes: str, want: str
) -> None:
    assert fitted(passes, device) == want


def test_only_what_is_needed_is_inserted(device: Path) -> None:
    device.write_text(NPU.replace('"Concat"', '"Concat", "Split"').replace("= 3", "= 5"))
    assert fitted("int8", device) == "deconv-for-resize,int8"
    device.write_text(NPU.replace('"ConvTranspose", ', "").replace("= 3", "= 5"))
    assert fitted("int8", device) == "conv-for-split,int8"
    device.write_text("")
    assert fitted("int8", device) == "int8"
    assert fitted("int8", Path("portable")) == "int8"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> yqc.Result:
    folder = tmp_path_factory.mktemp("fitted")
    (folder / "npu.toml").write_text(NPU)
    return compiled(folder, "int8{ranges=minmax}", folder / "npu.toml")


def test_the_report_has_what_is_left_and_why(made: yqc.Result) -> None:
    device = made.report.device
    assert device is not None
    assert ",".join(device.inserted) == NEEDED
    kinds = {node.op_type for node in onnx.load(made.files.onnx).graph.node}
    assert {"ConvTranspose", "MaxPool", "Tanh"} <= kinds
    assert not {"Split", "Resize"} & kinds
    assert [(one.node, one.op, one.limit, one.remedy) for one in device.unfit] == [
        ("tanh", "Tanh", "operators", None)
    ]
    assert device.unfit_before == 4
    assert (device.slow_activations, device.swap) == (4, "relu")
    assert Report.from_json(made.report.to_json()).device == device
    assert json.loads(made.files.report.read_text())["device"]["unfit"][0]["op"] == "Tanh"
    page = made.files.page.read_text()
    assert "1 node: the device has no Tanh (1)" in page


def test_the_terminal_shows_it(made: yqc.Result, capsys: pytest.CaptureFixture[str]) -> None:
    from rich import print as show  # noqa: PLC0415  # as a user does

    show(made.report)
    text = " ".join(capsys.readouterr().out.split())
    assert "4 nodes of the float file do not fit, 1 of this one's" in text
    assert "left 1 node: the device has no Tanh (1) no pass removes it" in text
    assert "slow 4 activations that the device's file does not name as fast; relu puts" in text


def test_the_recipe_repeats_it_and_says_when_the_file_has_changed(
    made: yqc.Result, tmp_path: Path
) -> None:
    settings = read_recipe(made.files.recipe)
    target = Path(settings.target)
    again = yqc.compile(
        nets.seeded(Net()), settings=settings, output=tmp_path / "x.onnx", evaluate=False
    )
    assert again.files.onnx.read_bytes() == made.files.onnx.read_bytes()
    assert not any("file of the target" in one for one in again.report.warnings)
    target.write_text(NPU + "stride = 2\n")
    other = yqc.compile(
        nets.seeded(Net()), settings=settings, output=tmp_path / "x.onnx", evaluate=False
    )
    target.write_text(NPU)
    assert any("another file of the target" in one for one in other.report.warnings)


def test_metadata_name_base_and_file_without_its_folder(made: yqc.Result) -> None:
    about = {p.key: p.value for p in onnx.load(made.files.onnx).metadata_props}
    assert about["yqc.target"] == "portable"
    assert about["yqc.device"] == f"npu.toml {find_target(made.report.target).sha256[:12]}"


def test_a_refused_rewrite_is_the_reason(device: Path, tmp_path: Path) -> None:
    class Twice(Net):
        def forward(self, images: Tensor) -> Tensor:
            csp: Any = self.csp
            y = csp.cv1(images)
            left, right = y.chunk(2, 1)
            z: Tensor = csp.cv2(torch.cat([y, left + right], 1))
            return z

    done = yqc.compile(
        nets.seeded(Twice()), "fuse", output=tmp_path / "x.onnx", imgsz=16, target=device,
        evaluate=False,
    )  # fmt: skip
    assert done.report.device is not None
    assert [(one.op, one.remedy, one.fix) for one in done.report.device.unfit] == [
        ("Split", None, "conv-for-split leaves it: csp_cv1_act has other users")
    ]


def test_a_device_may_ask_for_raw_heads(device: Path, checkpoint: Path, tmp_path: Path) -> None:
    device.write_text('decode = "raw"')
    out = tmp_path / "x.onnx"
    done = yqc.compile(checkpoint, "fuse", output=out, imgsz=64, target=device, evaluate=False)
    assert {one.name for one in onnx.load(done.files.onnx).graph.output} >= {"box_8", "cls_8"}


def test_a_low_opset_is_written(device: Path, tmp_path: Path) -> None:
    device.write_text("[limits]\nopset = 14")
    done = compiled(tmp_path, "fuse", device)
    assert onnx.load(done.files.onnx).opset_import[0].version == 14
    assert done.report.device is not None
    assert done.report.device.unfit == ()
    assert choose_opset(Settings(target=str(device), opset=18)) == 18
    assert choose_opset(Settings(target="portable")) is None


def test_an_opset_too_low_for_packed_weights_is_refused_before_any_work(device: Path) -> None:
    device.write_text("[limits]\nopset = 14")
    with pytest.raises(yqc.EmitError, match="opset 14 is too low: the weights that pack-int4"):
        yqc.compile("absent.pt", "int4", target=device)


def test_the_file_of_a_device_is_not_overwritten(device: Path) -> None:
    with pytest.raises(yqc.YqcError, match=r"npu\.toml"):
        yqc.compile(nets.seeded(Net()), "fuse", output=device, imgsz=16, target=device)
    assert device.read_text() == NPU
