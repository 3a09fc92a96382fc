"""Every family loads from its project's pickled form, traces, and computes what it did before."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from tests.slow import slow_but
from yqc.models.load import load
from yqc.models.register import SHARED, ULTRALYTICS
from yqc.models.trace import trace

SPECS: Mapping[str, Any] = yaml.safe_load(
    Path(__file__).with_name("specs.yaml").read_text(encoding="utf-8")
)
STRIDES = {
    "yolov5-p6": (8, 16, 32, 64),
    "yolov8-p2": (4, 8, 16, 32),
    "yolo11-cls": (1,),
}
QUICK = (
    *("yolov5", "yolov7-tiny", "yolov8", "yolov9t", "yolov10", "yolo11", "yolo12", "yolo26"),
    *("yolov8-seg", "yolo11-pose", "yolov8-obb", "yolo11-cls"),
)
CASES = [
    *((name, "") for name in SPECS),
    *(("yolov8", "s"), ("yolo11", "m"), ("yolo12", "l")),
]


@pytest.mark.parametrize(("name", "scale"), slow_but(CASES, *QUICK))
def test_loads_and_computes_the_same(
    name: str, scale: str, tmp_path: Path, checkpoints: ModuleType
) -> None:
    project = SPECS[name]["project"]
    detector = checkpoints.make(SPECS[name], scale=scale)
    x = checkpoints.images()
    with torch.no_grad():
        want = detector(x)
    path = checkpoints.save(tmp_path / "best.pt", detector.half(), project, names=["a", "b", "c"])

    loaded = load(path)

    assert loaded.family == project
    assert loaded.names == ("a", "b", "c")
    assert loaded.strides == STRIDES.get(name, (8, 16, 32))
    assert {p.dtype for p in loaded.module.parameters()} == {torch.float32}
    assert not any(m.training for m in loaded.module.modules())
    got = loaded.module(x)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)
    graph = trace(loaded.module, torch.zeros(1, *x.shape[1:]))
    torch.testing.assert_close(graph(x), got, rtol=0, atol=0)  # Traced at batch 1, run at 2.


@pytest.mark.parametrize("channels", slow_but([1, 4], 4))
@pytest.mark.parametrize("name", slow_but(SPECS, *QUICK))
def test_any_number_of_channels(
    name: str, channels: int, tmp_path: Path, checkpoints: ModuleType
) -> None:
    detector = checkpoints.make({**SPECS[name], "channels": channels})
    x = torch.rand(1, channels, 64, 96, generator=torch.Generator().manual_seed(0))
    x = torch.rand(1, channels, 128, 128) if name == "yolov5-p6" else x
    with torch.no_grad():
        want = detector(x)
    path = checkpoints.save(tmp_path / "best.pt", detector.half(), SPECS[name]["project"])
    loaded = load(path)
    assert loaded.channels == channels
    torch.testing.assert_close(loaded.module(x), want, rtol=1e-5, atol=1e-4)


def test_the_specs_use_every_block(checkpoints: ModuleType) -> None:
    used = set()
    for spec in SPECS.values():
        for module in checkpoints.make(spec).modules():
            if not type(module).__module__.startswith("torch."):
                used.add(type(module))
    known = {*ULTRALYTICS.values(), *SHARED.values()}
    rest = {"Sum", "PlainDualHead", "PlainTripleHead"}  # No YAML of the projects names them.
    assert {twin.__name__ for twin in known - used} == rest


@pytest.mark.parametrize("name", ["yolov10", "yolo26"])
def test_one2many_gives_what_the_end_to_end_head_leaves_out(
    name: str, tmp_path: Path, checkpoints: ModuleType
) -> None:
    detector = checkpoints.make(SPECS[name])
    x = checkpoints.images()
    path = checkpoints.save(tmp_path / "m.pt", detector, "ultralytics")
    detector.head.choose_branch("one2many")
    with torch.no_grad():
        want = detector(x)

    loaded = load(path, head="one2many")

    assert loaded.layout == "yolov8"
    assert load(path).layout == "end2end"
    assert not any("one2one" in name for name, _ in loaded.module.named_modules())
    torch.testing.assert_close(loaded.module(x), want, rtol=1e-5, atol=1e-4)


def test_the_end_to_end_graph_holds_no_one_to_many_branch(
    tmp_path: Path, checkpoints: ModuleType
) -> None:
    path = checkpoints.save(tmp_path / "m.pt", checkpoints.make(SPECS["yolov10"]), "ultralytics")
    graph = trace(load(path).module, checkpoints.images(1))
    targets = {str(n.target) for n in graph.graph.nodes if n.op == "call_module"}
    assert any(".one2one_cv2." in t for t in targets)
    assert not any(".cv2.0.0." in t and "model.8" in t and "one2one" not in t for t in targets)


def test_auxiliary_heads_and_the_layers_that_feed_them_are_dropped(
    tmp_path: Path, checkpoints: ModuleType
) -> None:
    path = checkpoints.save(tmp_path / "w6.pt", checkpoints.make(SPECS["yolov7-e6e"]), "yolov7")
    loaded = load(path)
    assert loaded.warnings == (
        "the auxiliary heads serve training only and were left out",
        "the file names 0 classes, but its head has 3",
    )
    names = {name.rpartition(".")[0] for name, _ in loaded.module.named_parameters()}
    assert not any(name.startswith(("model.13.", "model.14.", "model.15.")) for name in names)
    assert not any(".m2" in name or ".ia" in name or ".im" in name for name in names)
    assert any(name.startswith("model.12.") for name in names)


def test_node_names_follow_the_layers(tmp_path: Path, checkpoints: ModuleType) -> None:
    path = checkpoints.save(tmp_path / "m.pt", checkpoints.make(SPECS["yolov8"]), "ultralytics")
    names = [n.name for n in trace(load(path).module, checkpoints.images(1)).graph.nodes]
    assert {"model_0_conv", "model_2_m_0_cv1_act", "model_10_cv2_0_0_conv"} <= set(names)


def test_no_grid_is_a_constant_of_the_graph(tmp_path: Path, checkpoints: ModuleType) -> None:
    for name in ("yolov8", "yolov5", "yolov10"):
        spec = SPECS[name]
        path = checkpoints.save(tmp_path / f"{name}.pt", checkpoints.make(spec), spec["project"])
        graph = trace(load(path).module, torch.zeros(1, 3, 256, 320))
        constants = dict(graph.named_buffers())
        taken = [n.target for n in graph.graph.nodes if n.op == "get_attr"]
        assert taken
        assert max(constants[t].numel() for t in taken) <= max(320 // 8, 16)
