"""Numbers that are not finite, and files that differ from their graphs, fail a compile."""

import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, fx, nn

import yqc
from tests.command import Run
from tests.conftest import SMALL
from tests.passes import nets as passes_nets
from yqc.data import scenes
from yqc.emit import emit, save
from yqc.emit.tensors import to_onnx
from yqc.errors import CheckpointError, EmitError, PassError
from yqc.graph.compare import first_not_finite, perturbed, rounding_noise
from yqc.job import verification
from yqc.job.files import evaluate_file
from yqc.job.verification import check_weights, verify_file
from yqc.progress import Silent
from yqc.settings import Settings
from yqc.targets import find_target
from yqc.testing import traced


@pytest.fixture(params=["first", "last", "statistics"])
def damaged(
    request: pytest.FixtureRequest, checkpoints: ModuleType, tmp_path: Path
) -> tuple[Path, str]:
    """A checkpoint with NaN in a weight or an infinity in a variance, and what holds it."""
    detector = checkpoints.make(SMALL, nc=len(scenes.NAMES))
    if request.param == "statistics":
        name, tensor = next(
            (n, t) for n, t in detector.named_buffers() if n.endswith("running_var")
        )
        tensor[0] = math.inf
    else:
        found = list(detector.named_parameters())
        name, tensor = found[0] if request.param == "first" else found[-1]
        tensor.data.view(-1)[-1] = math.nan
    path = tmp_path / "damaged.pt"
    checkpoints.save(path, detector, "ultralytics", names=list(scenes.NAMES), args={"imgsz": 64})
    return path, name


@pytest.mark.parametrize("passes", ["fuse", "int8"])
@pytest.mark.parametrize("with_data", [False, True])
def test_damaged_weights_are_named_and_nothing_is_written(
    damaged: tuple[Path, str], data: Path, run: Run, passes: str, with_data: bool
) -> None:
    path, name = damaged
    more = ["--data", data] if with_data else []
    done = run("compile", path, "--passes", passes, "-q", *more)
    assert done.code == 1
    assert name in done.err
    assert "holds numbers that are not finite" in done.err
    assert list(Path.cwd().iterdir()) == []


def test_a_damaged_checkpoint_is_not_evaluated(
    damaged: tuple[Path, str], data: Path, run: Run
) -> None:
    path, name = damaged
    done = run("eval", path, "--data", data)
    assert done.code == 1
    assert name in done.err


def test_a_damaged_file_is_not_evaluated(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    result = yqc.compile(checkpoint, "fuse", output=tmp_path / "x.onnx", evaluate=False)
    model = onnx.load(result.files.onnx)
    bias = next(t for t in model.graph.initializer if t.name.endswith("cv3.0.2.bias"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) * math.nan, bias.name))
    onnx.save(model, tmp_path / "nan.onnx")
    with pytest.raises(CheckpointError, match="computes numbers that are not finite in output0"):
        evaluate_file(tmp_path / "nan.onnx", Settings(data=str(data)), progress=Silent())


class Deep(nn.Module):
    """Convolutions that amplify rounding by a thousand."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(3)))
        self.gain = 1e4

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.convs(x) * self.gain)


X = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_rounding_noise_is_that_of_one_unit_in_the_last_place() -> None:
    gm = traced(nn.Conv2d(3, 2, 1, bias=False), X.shape)
    weight, other = (g.get_parameter("weight") for g in (gm, perturbed(gm)))
    steps = (weight.view(torch.int32) - other.view(torch.int32)).abs()
    assert steps.eq(1).all()
    assert 0 < rounding_noise(gm, X) < 1e-6
    assert rounding_noise(traced(Deep(), X.shape), X) > 1e-4


def test_the_first_node_that_is_not_finite_is_found() -> None:
    class Divides(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x / 0.0).neg()

    gm = traced(Divides(), X.shape)
    node = first_not_finite(gm, X + 1)
    assert node is not None
    assert node.name == "truediv"
    assert first_not_finite(traced(Deep(), X.shape), X) is None


def test_a_file_that_differs_from_its_graph_is_refused(tmp_path: Path) -> None:
    gm = traced(nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU()), X.shape)
    save(emit(gm), tmp_path / "x.onnx")
    assert verify_file(gm, gm, tmp_path / "x.onnx", X, None).warnings == ()
    gm.get_parameter("0.weight").data[0] *= 1.01
    with pytest.raises(EmitError, match=r"the emitted file differs from its graph: by 0\.00"):
        verify_file(gm, gm, tmp_path / "x.onnx", X, None)


def test_infinities_within_a_graph_are_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention masks hold minus infinity on purpose."""

    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(torch.log(torch.relu(x - 0.5)), 1)

    monkeypatch.setattr(verification, "FLOOR", 0.0)
    gm, x = traced(Masked(), X.shape), torch.rand(X.shape) * 0.4
    x[:, 0] = 0.9
    assert first_not_finite(gm, x) is not None
    save(emit(gm), tmp_path / "x.onnx")
    assert verify_file(gm, gm, tmp_path / "x.onnx", x, None).warnings == ()


def test_outputs_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    class Divides(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 0.0

    gm = traced(Divides(), X.shape)
    save(emit(gm), tmp_path / "x.onnx")
    with pytest.raises(EmitError, match="not finite, first at truediv"):
        verify_file(gm, gm, tmp_path / "x.onnx", X + 1, None, strict=False)


def test_a_difference_is_a_warning_where_outputs_are_not_compared(tmp_path: Path) -> None:
    gm = traced(nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU()), X.shape)
    save(emit(gm), tmp_path / "x.onnx")
    gm.get_parameter("0.weight").data[0] *= 1.01
    (warning,) = verify_file(gm, gm, tmp_path / "x.onnx", X, None, strict=False).warnings
    assert warning.startswith("the emitted file differs from its graph: by ")


def test_rounding_that_a_graph_amplifies_is_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "FLOOR", 0.0)
    gm = traced(Deep(), X.shape)
    save(emit(perturbed(gm, seed=1)), tmp_path / "x.onnx")
    trip = verify_file(gm, gm, tmp_path / "x.onnx", X, None).trip
    assert trip is not None
    assert not trip.within(1e-6, 1e-6, 1e-6)


class Rounds(nn.Module):
    """Rounds to multiples of a scale; 0.5 lies between two steps of 1."""

    scale: Tensor

    def __init__(self, scale: float, shift: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("zero_point", torch.tensor(0, dtype=torch.uint8))
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        q = torch.ops.yqc.quantize_linear(x, self.scale, self.zero_point)
        y: Tensor = torch.ops.yqc.dequantize_linear(q, self.scale, self.zero_point)
        return y + self.shift


def test_a_step_more_is_no_difference_and_five_are(tmp_path: Path) -> None:
    x = torch.full(X.shape, 0.5)
    original, gm = traced(nn.Identity(), x.shape), traced(Rounds(1.0), x.shape)
    assert gm(x).max() == 0
    for scale, shift in ((0.999999, 0.0), (0.999999, 5.0)):
        save(emit(traced(Rounds(scale, shift), x.shape)), tmp_path / f"{shift}.onnx")
    x[..., 0] = 10.0
    found = verify_file(gm, original, tmp_path / "0.0.onnx", x, None)
    assert found.trip is not None
    assert found.trip.plain.values == pytest.approx(0.1, rel=1e-3)  # twice the graph's own 0.05
    with pytest.raises(EmitError, match=r"the emitted file differs from its graph: by 0\.6"):
        verify_file(gm, original, tmp_path / "5.0.onnx", x, None)


def test_a_pass_that_makes_weights_infinite_is_named(checkpoint: Path, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Break(yqc.Pass):
        name: ClassVar[str] = "break"

        def run(self, gm: fx.GraphModule, ctx: yqc.Context) -> None:
            next(gm.parameters()).data.fill_(math.inf)

    with pytest.raises(PassError, match=r"not finite"):
        yqc.compile(checkpoint, [Break()], output=tmp_path / "x.onnx", verify=False)
    assert list(tmp_path.glob("x.onnx")) == []


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("onnxruntime", []),
        (
            "portable",
            ["onnxruntime decodes weights at every inference, not when it loads the file"],
        ),
    ],
)
def test_weights_that_are_decoded_at_every_inference_are_named(
    target: str, said: list[str], tmp_path: Path
) -> None:
    gm = passes_nets.traced("fold-bn,pack-int4", passes_nets.calibrated())
    save(emit(gm, target=target), tmp_path / "x.onnx")
    names = [f"{name}_weight" for name in ("stem_conv", "a_conv", "b_conv", "out")]
    want = [f"{sentence}: {', '.join(names)}" for sentence in said]
    assert list(check_weights(gm, tmp_path / "x.onnx", find_target("onnxruntime"))) == want
    assert check_weights(gm, tmp_path / "x.onnx", find_target("portable")) == ()


def test_weights_that_were_unpacked_are_named(tmp_path: Path) -> None:
    gm = passes_nets.traced("fold-bn,pack-int4", passes_nets.calibrated())
    model = emit(gm)
    at, made = next(
        (i, n) for i, n in enumerate(model.graph.node) if n.output[0] == "a_conv_weight"
    )
    weight = torch.zeros(4, 4, 1, 1)
    model.graph.initializer.append(to_onnx(weight, made.output[0]))
    del model.graph.node[at]
    save(model, tmp_path / "x.onnx")
    (warning,) = check_weights(gm, tmp_path / "x.onnx", find_target("onnxruntime"))
    assert warning == "the file stores packed weights as floats: a_conv_weight"
