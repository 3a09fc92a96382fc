"""The whole job from Python: what is written, what the report says, and what survives a failure."""

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

import yqc
from yqc import Context, Pass, Pipeline, Result, calls
from yqc.data import scenes
from yqc.errors import (
    CheckpointError,
    DataError,
    EmitError,
    OutputError,
    PassError,
    PipelineError,
    TraceError,
    YqcError,
)
from yqc.graph.serial import load_graph, save_graph
from yqc.models.source import open_model
from yqc.recipe import Settings, read_recipe


def outputs(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def run(path: Path, images: Tensor) -> NDArray[np.float32]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(["output0"], {"images": images.numpy()})[0]
    return found


@pytest.fixture(scope="module")
def compiled(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """One compile with everything: fused, verified, evaluated."""
    output = tmp_path_factory.mktemp("compiled") / "small.onnx"
    settings = Settings(data=str(data), calib_images=4)
    return yqc.compile(checkpoint, "fuse", output=output, settings=settings)


# What is written


def test_writes_its_files_and_nothing_else(compiled: Result) -> None:
    assert sorted(outputs(compiled.files.onnx.parent)) == [
        "small.onnx",
        "small.recipe.toml",
        "small.report.html",
        "small.report.json",
    ]


def test_the_file_computes_what_the_model_did(compiled: Result, checkpoint: Path) -> None:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        want = yqc.load(checkpoint).module(images).numpy()
    got = run(compiled.files.onnx, images)
    assert got.shape == (1, 4 + len(scenes.NAMES), 84)
    np.testing.assert_allclose(got[:, :4], want[:, :4], rtol=0, atol=0.01)
    np.testing.assert_allclose(got[:, 4:], want[:, 4:], rtol=0, atol=1e-4)


def test_the_file_says_what_runtimes_ask_for(compiled: Result, checkpoint: Path) -> None:
    found = {p.key: p.value for p in onnx.load(compiled.files.onnx).metadata_props}
    assert json.loads(found["imgsz"]) == [64, 64]
    assert {k: found[k] for k in ("task", "stride", "batch")} == {
        "task": "detect",
        "stride": "32",
        "batch": "1",
    }
    assert all(name in found["names"] for name in scenes.NAMES)
    assert found["yqc.version"] == yqc.__version__
    assert found["yqc.pipeline"] == "fuse"
    assert found["yqc.input_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()


def test_nodes_keep_the_names_of_the_graph(compiled: Result) -> None:
    names = {n.name for n in onnx.load(compiled.files.onnx).graph.node if n.op_type == "Conv"}
    assert names <= {n.name for n in compiled.gm.graph.nodes}
    assert "model_0_conv" in names


# What the report says


def report(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.files.report.read_text(encoding="utf-8"))
    return found


def test_the_report_is_what_was_returned(compiled: Result) -> None:
    assert report(compiled) == json.loads(compiled.report.to_json())
    assert (report(compiled)["schema"], report(compiled)["yqc"]) == ("1", yqc.__version__)


def test_the_report_names_the_input(compiled: Result, checkpoint: Path) -> None:
    found = report(compiled)["input"]
    graph = yqc.trace(yqc.load(checkpoint).module, torch.zeros(1, 3, 64, 64))
    assert found == {
        "path": str(checkpoint),
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "family": "ultralytics",
        "task": "detect",
        "params": sum(p.numel() for p in graph.parameters()),
        "nc": len(scenes.NAMES),
        "names": list(scenes.NAMES),
        "strides": [8, 16, 32],
        "imgsz": [64, 64],
    }


def test_the_report_lists_the_passes(compiled: Result) -> None:
    found = report(compiled)
    assert found["pipeline"] == {"text": "fuse", "expanded": "reparam,fold-bn,dce"}
    assert [p["name"] for p in found["passes"]] == ["reparam", "fold-bn", "dce"]
    reparam, fold, _ = found["passes"]
    assert (reparam["rewrites"], reparam["changed"]) == (0, False)
    norms = len(calls(compiled.original, nn.BatchNorm2d))
    assert (fold["rewrites"], fold["changed"], fold["skips"]) == (norms, True, [])
    assert fold["nodes_before"] - fold["nodes_after"] == norms
    assert 0 < fold["max_abs_error"] < 1e-2
    assert fold["sqnr_db"] > 90


def test_anyone_can_recompute_the_sizes(compiled: Result) -> None:
    size, model = report(compiled)["size"], onnx.load(compiled.files.onnx)
    arrays = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer]
    arrays += [
        onnx.numpy_helper.to_array(n.attribute[0].t)
        for n in model.graph.node
        if n.op_type == "Constant"
    ]
    weights, params = sum(a.nbytes for a in arrays), report(compiled)["input"]["params"]
    folded = 4 * sum(c.module.num_features for c in calls(compiled.original, nn.BatchNorm2d))
    assert size["weight_bytes"] == weights
    assert size["file_bytes"] == compiled.files.onnx.stat().st_size
    assert (size["params_before"], size["fp32_bytes"], size["fp16_bytes"]) == (
        params,
        4 * params,
        2 * params,
    )
    assert size["params_after"] == params - folded / 4, "gamma and beta go, biases come"
    assert size["ratio_vs_fp32"] == pytest.approx(4 * params / weights)
    assert size["ratio_vs_fp16"] == pytest.approx(2 * params / weights)
    assert size["file_ratio_vs_fp32"] == pytest.approx(4 * params / size["file_bytes"])


def test_the_report_counts_multiplications(compiled: Result) -> None:
    stem = 8 * 32 * 32 * 3 * 9
    found = report(compiled)["compute"]
    assert found["macs_before"] == found["macs_after"] > stem


def test_the_report_measures_accuracy_of_both(compiled: Result) -> None:
    found = report(compiled)["accuracy"]
    assert (found["kind"], found["images"]) == ("map", 3)
    for side in ("float", "compiled"):
        assert set(found[side]) == {"map", "map50", "map75", "small", "medium", "large"}
        assert 0 <= found[side]["map"] <= 1
    assert found["drop"] == pytest.approx(found["float"]["map"] - found["compiled"]["map"])


def test_the_report_lists_every_layer(compiled: Result) -> None:
    layers = report(compiled)["layers"]
    assert [x["name"] for x in layers] == [c.target for c in calls(compiled.gm, nn.Conv2d)]
    stem = layers[0]
    assert (stem["op"], stem["shape"], stem["role"]) == ("Conv2d", [8, 3, 3, 3], "backbone")
    assert (stem["weight_bits"], stem["weight_bytes"]) == (32, 4 * (8 * 27 + 8))
    assert {x["role"] for x in layers} == {"backbone", "neck", "head.box", "head.cls"}


def test_the_report_measures_latency(compiled: Result) -> None:
    found = report(compiled)["latency"]
    assert set(found) == {"float_ms", "compiled_ms", "ratio", "threads"}
    assert min(found["float_ms"], found["compiled_ms"]) > 0


def test_both_graphs_are_returned(compiled: Result) -> None:
    assert calls(compiled.original, nn.BatchNorm2d)
    assert not calls(compiled.gm, nn.BatchNorm2d)
    assert {r.by for r in compiled.context.rewrites} == {"fold-bn"}


# Recipes


def test_the_recipe_says_how_it_was_made(compiled: Result, checkpoint: Path, data: Path) -> None:
    wanted = Settings(passes="fuse", data=str(data), calib_images=4)
    assert read_recipe(compiled.files.recipe) == wanted
    found = tomllib.loads(compiled.files.recipe.read_text())["input"]
    assert found["path"] == str(checkpoint)


def test_the_recipe_makes_the_same_bytes(
    compiled: Result, checkpoint: Path, tmp_path: Path
) -> None:
    settings = read_recipe(compiled.files.recipe)
    again = yqc.compile(
        checkpoint, output=tmp_path / "again.onnx", settings=settings, evaluate=False
    )
    assert again.files.onnx.read_bytes() == compiled.files.onnx.read_bytes()
    assert again.files.recipe.read_bytes() == compiled.files.recipe.read_bytes()


# Where models come from


class Plain(nn.Module):
    """A network that yqc has never seen, and that is no detector."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.act = nn.Conv2d(3, 4, 3, 2), nn.SiLU()

    def forward(self, images: Tensor) -> Tensor:
        return self.act(self.conv(images))  # type: ignore[no-any-return]


SMALL = Settings(imgsz=(16, 24))


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


def test_a_module_cannot_be_evaluated(tmp_path: Path, data: Path) -> None:
    settings = Settings(imgsz=(16, 16), data=str(data))
    with pytest.raises(DataError, match="the model is no YOLO detector and cannot be evaluated"):
        yqc.compile(Plain(), output=tmp_path / "x.onnx", settings=settings)
    assert outputs(tmp_path) == {}


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


@dataclass(frozen=True)
class Scale(Pass):
    """Multiply the weights of every convolution."""

    name: ClassVar[str] = "scale"

    by: float = 2.0

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for each in calls(gm, nn.Conv2d):
            with torch.no_grad():
                each.module.weight *= self.by
            ctx.rewrote(each.node, f"times {self.by:g}")


@dataclass(frozen=True)
class Crash(Pass):
    name: ClassVar[str] = "crash"

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:  # noqa: ARG002
        raise ZeroDivisionError("a channel without weights")


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


# What survives a failure


@pytest.fixture
def older(tmp_path: Path) -> dict[str, bytes]:
    """The outputs of an earlier run, at x.onnx."""
    yqc.compile(Plain(), output=tmp_path / "x.onnx", settings=SMALL)
    return outputs(tmp_path)


@pytest.mark.parametrize(
    ("step", "error", "seen"),
    [
        ("emit", EmitError("no form"), EmitError),
        ("save", OSError(28, "No space left on device"), OutputError),
        ("roundtrip", RuntimeError("broken"), RuntimeError),
        ("layers", KeyboardInterrupt(), KeyboardInterrupt),
        ("write_recipe", OSError(5, "Input/output error"), OutputError),
    ],
)
def test_a_failure_at_any_step_leaves_the_older_outputs(  # fixtures
    step: str,
    error: BaseException,
    seen: type[BaseException],
    older: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(f"yqc.compiler.{step}", fail)
    with pytest.raises(seen):
        yqc.compile(Plain(), [Scale()], output=tmp_path / "x.onnx", settings=SMALL)
    assert outputs(tmp_path) == older


@pytest.mark.parametrize(
    ("model", "passes", "settings", "error"),
    [
        (Plain(), "no-such-pass", SMALL, PipelineError),
        (Path("absent.pt"), "fuse", SMALL, CheckpointError),
        (Plain(), "fuse", Settings(imgsz=(1, 1)), TraceError),
        (Plain(), "fuse", Settings(imgsz=(16, 16), opset=3), YqcError),
    ],
)
def test_nothing_is_written_on_bad_input(  # fixtures
    model: nn.Module | Path,
    passes: str,
    settings: Settings,
    error: type[YqcError],
    older: dict[str, bytes],
    tmp_path: Path,
) -> None:
    with pytest.raises(error):
        yqc.compile(model, passes, output=tmp_path / "x.onnx", settings=settings)
    assert outputs(tmp_path) == older


def test_a_failing_pass_leaves_its_reproducer(older: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "x.reproducer.yqc"
    with pytest.raises(PassError) as caught:
        yqc.compile(Plain(), [Scale(), Crash()], output=tmp_path / "x.onnx", settings=SMALL)
    assert str(caught.value) == (
        "pass 2 of 2, crash: ZeroDivisionError: a channel without weights; "
        f"run it again with: yqc replay {path}"
    )
    found = outputs(tmp_path)
    assert found.pop(path.name)
    assert found == older
    gm, _, more = load_graph(path)
    assert more["example"].shape == (1, 3, 16, 24)
    weight = gm.get_submodule("conv").weight
    torch.testing.assert_close(weight, 2 * Plain().conv.weight)


def test_a_device_that_no_pass_can_use_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no pass here can run on 'cuda'"):
        yqc.compile(checkpoint, "fold-bn", output=tmp_path / "x.onnx", device="cuda")
    assert list(tmp_path.iterdir()) == []


def test_unreadable_calibration_images_are_an_error_that_says_so(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i}.jpg").write_bytes(b"no image")
    with pytest.raises(PassError, match="calibrate: DataError: calibration needs at least"):
        yqc.compile(checkpoint, "int8", output=tmp_path / "x.onnx", data=folder)
    assert not (tmp_path / "x.onnx").exists()
