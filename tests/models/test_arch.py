"""Model YAMLs: state dicts get their architecture, and mistakes are named."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from yqc.errors import CheckpointError, UnknownBlockError, UnsupportedTaskError
from yqc.models.arch import build_detector, check_architecture, load_weights, read_architecture
from yqc.models.arch_rows import Scaling, activation_of
from yqc.models.load import load
from yqc.models.pickles.read import read_checkpoint
from yqc.models.register import known

Specs = Mapping[str, Any]


def write(path: Path, spec: Mapping[str, Any], **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**spec, **changes}), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["yolov5", "yolov7", "yolov7-e6e", "yolov8", "yolov10", "yolo26"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_state_dict_with_its_yaml_is_a_model(
    name: str, wrapped: bool, tmp_path: Path, checkpoints: ModuleType, specs: Specs
) -> None:
    detector = checkpoints.make(specs[name], nc=4)
    x = checkpoints.images(1)
    with torch.no_grad():
        want = detector(x)
    state = {f"module.{k}" if wrapped else k: v.half() for k, v in detector.state_dict().items()}
    torch.save({"model": state} if wrapped else state, tmp_path / "weights.pt")
    arch = write(tmp_path / f"{name}.yaml", specs[name], names=["a", "b", "c", "d"])

    model = load(tmp_path / "weights.pt", arch=arch)

    assert model.family == specs[name]["project"]
    assert model.names == ("a", "b", "c", "d")
    assert model.blocks
    assert not {"AnchorHead", "RepConv7", "DistanceHead"} & set(model.blocks)
    torch.testing.assert_close(model.module(x), want, rtol=1e-5, atol=1e-4)


def test_the_scale_stands_in_the_file_name(
    tmp_path: Path, checkpoints: ModuleType, specs: Specs
) -> None:
    write(tmp_path / "yolov8.yaml", specs["yolov8"])
    state = checkpoints.make(specs["yolov8"], scale="s").state_dict()
    torch.save(state, tmp_path / "w.pt")
    assert load(tmp_path / "w.pt", arch=tmp_path / "yolov8s.yaml").name == "yolov8s"
    with pytest.raises(CheckpointError, match=r"not those of .*yolov8n\.yaml: .* is not part"):
        load(tmp_path / "w.pt", arch=tmp_path / "yolov8n.yaml")
    assert read_architecture(tmp_path / "yolov8.yaml").scale == "n"


def test_without_a_yaml_a_state_dict_is_refused(
    tmp_path: Path, checkpoints: ModuleType, specs: Specs
) -> None:
    detector = checkpoints.make(specs["yolov8"])
    torch.save(detector.state_dict(), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="without an architecture; name its model YAML"):
        load(tmp_path / "w.pt")
    path = checkpoints.save(tmp_path / "m.pt", detector, "ultralytics")
    with pytest.raises(CheckpointError, match="holds its own architecture; leave --arch out"):
        load(path, arch=write(tmp_path / "a.yaml", specs["yolov8"]))


def test_weights_of_another_model_are_refused(
    tmp_path: Path, checkpoints: ModuleType, specs: Specs
) -> None:
    state = checkpoints.make(specs["yolov8"]).state_dict()
    arch = write(tmp_path / "other.yaml", specs["yolo11"])
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"is missing; .* and \d+ more"):
        load(tmp_path / "w.pt", arch=arch)
    detector = build_detector(check_architecture(specs["yolov8"]), 3)
    with pytest.raises(CheckpointError, match=r"model\.99\.weight is not part of the model"):
        load_weights(detector, {**state, "model.99.weight": torch.rand(1)}, arch)


def test_scaling() -> None:
    scaling = Scaling(0.33, 0.25, 512)
    assert [scaling.channels(c) for c in (64, 100, 1024)] == [16, 32, 128]
    assert [scaling.repeats(n) for n in (1, 2, 3, 9)] == [1, 1, 1, 3]


@pytest.mark.parametrize(("scale", "inner"), [("n", "Bottleneck"), ("m", "C3k")])
def test_larger_scales_of_yolo11_have_larger_steps(scale: str, inner: str, specs: Specs) -> None:
    model = build_detector(check_architecture(specs["yolo11"], scale), 3)
    assert type(model.model[2].m[0]).__name__ == inner  # type: ignore[index]


def test_activations_of_a_yaml(specs: Specs) -> None:
    model = build_detector(check_architecture(specs["yolov6"]), 3)
    kinds = {type(m.act) for m in model.modules() if type(m).__name__ == "Conv"}
    assert kinds == {nn.ReLU}
    leaky = activation_of("nn.LeakyReLU(0.1, inplace=True)")
    assert isinstance(leaky, nn.LeakyReLU)
    assert leaky.negative_slope == 0.1
    assert not leaky.inplace


@pytest.mark.parametrize(
    "text", ["nn.Bilinear(1)", "__import__('os')", "nn.ReLU", "nn.ReLU(open('x'))"]
)
def test_texts_are_never_evaluated(text: str, specs: Specs) -> None:
    with pytest.raises((ValueError, CheckpointError)):
        activation_of(text)
    rows = [[-1, 1, "Conv", [16, 3, 2, None, 1, text]], *specs["yolov7-tiny"]["backbone"][1:]]
    with pytest.raises(CheckpointError, match="row 0 of the model YAML"):
        build_detector(check_architecture({**specs["yolov7-tiny"], "backbone": rows}), 3)


def test_anchors_count_in_cells_of_their_level(specs: Specs) -> None:
    head = build_detector(check_architecture(specs["yolov5"]), 3).head
    assert head.anchors[0, 0].tolist() == [10 / 8, 13 / 8]  # type: ignore[index]
    assert head.anchors[2, 2].tolist() == [73 / 32, 26 / 32]  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"backbone": None}, CheckpointError, "backbone is no list of rows"),
        ({"head": [[-1, 1, "Conv"]]}, CheckpointError, "head is no list of rows"),
        ({"scale": "q"}, CheckpointError, "has no scale 'q', only n, s"),
        ({"head": [[-1, 1, "Wombat", []]]}, UnknownBlockError, "names Wombat"),
        ({"head": [[-1, 1, "nn.Bilinear", []]]}, UnknownBlockError, "names nn.Bilinear"),
        ({"head": [[-1, 1, "Conv", []]]}, CheckpointError, "row 7 of the model YAML"),
        ({"head": [[-1, 1, "Conv", [8, 3]]]}, CheckpointError, "not a detection head"),
        ({"head": [[[3, 4], 1, "SemanticSegment", ["nc"]]]}, UnsupportedTaskError, "semantic"),
        ({"head": [[[3, 9], 1, "Detect", ["nc"]]]}, CheckpointError, "not before it"),
    ],
)
def test_mistakes_in_a_yaml_are_named(
    change: Any, error: type[CheckpointError], said: str, specs: Specs
) -> None:
    with pytest.raises(error) as caught:
        build_detector(check_architecture({**specs["yolov8"], **change}, name="mine"), 3)
    assert said in str(caught.value)


def test_files_that_are_no_yaml(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_architecture(path)
    path.write_text("a: [1", encoding="utf-8")
    with pytest.raises(CheckpointError, match="is no YAML"):
        read_architecture(path)
    path.write_text("- 1", encoding="utf-8")
    with pytest.raises(CheckpointError, match="it is not a mapping"):
        read_architecture(path)


PUBLISHED = {
    "yolov5nu": {"n": 2_654_816, "s": 9_153_152, "m": 25_111_456},
    "yolov8n": {"n": 3_157_200, "s": 11_166_560, "m": 25_902_640, "x": 68_229_648},
    "yolo11n": {"s": 9_458_752, "m": 20_114_688, "l": 25_372_160, "x": 56_966_176},
    "yolo12n": {"s": 9_284_096, "m": 20_199_168, "l": 26_450_784, "x": 59_210_784},
    "yolo26n": {"s": 10_009_784, "m": 21_896_248, "l": 26_299_704, "x": 58_993_368},
}
"""Parameters of the full-size models as their project states them, for 80 classes."""

CUT = {
    "yolo11n": {9: 1024, 10: 1024},
    "yolo12n": {14: 256},
    "yolo26n": dict.fromkeys(range(7, 11), 1024),
}
"""Rows whose channels the golden files changed."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_full_size_models_have_as_many_parameters_as_published(name: str, shared: Path) -> None:
    ckpt = read_checkpoint(shared / "golden" / f"{name}.pt", known)
    spec = (ckpt["ema"] or ckpt["model"]).state["yaml"]
    rows = [*spec["backbone"], *spec["head"]]
    for i, channels in CUT.get(name, {}).items():
        rows[i] = [*rows[i][:3], [channels, *rows[i][3][1:]]]
    whole = {**spec, "backbone": rows[:-1], "head": rows[-1:]}
    depth = spec["scales"]["n"][0]
    whole["scales"] = {**spec["scales"], "n": [depth, 0.25, 1024]}
    for scale, count in PUBLISHED[name].items():
        with torch.device("meta"):
            detector = build_detector(check_architecture({**whole, "scale": scale}), 80)
        assert sum(p.numel() for p in detector.parameters()) == count


def test_a_head_that_is_given_several_maps_at_once_is_refused(specs: Specs) -> None:
    detector = build_detector(check_architecture(specs["yolov9e"]), 2)
    *others, last = detector.routes
    detector.routes = (*others, replace(last, sources=(6, 12, 13)))
    with pytest.raises(CheckpointError, match="layer 6, a CBLinear, does not make one map"):
        detector.measure_strides()
