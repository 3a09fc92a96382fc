"""Weights alone: wherever a file keeps them and however it names them, the same model comes out."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from yqc.errors import CheckpointError
from yqc.models.blocks.conv import Conv
from yqc.models.load import load
from yqc.models.split_weights import join_parts

State = dict[str, Tensor]


def prefixed(prefix: str) -> Callable[[State], Any]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def bare_layers(state: State) -> Any:
    return {name.removeprefix("model."): tensor for name, tensor in state.items()}


def compiled_blocks(state: State) -> Any:
    return {name.replace(".conv.", "._orig_mod.conv."): tensor for name, tensor in state.items()}


def without_what_models_compute(state: State) -> Any:
    ends = (".num_batches_tracked", ".dfl.conv.weight")
    return {name: tensor for name, tensor in state.items() if not name.endswith(ends)}


def older_weights_beside(state: State) -> Any:
    return {"model": {name: tensor + 1 for name, tensor in state.items()}, "ema": {"shadow": state}}


FORMS: dict[str, Callable[[State], Any]] = {
    "module": prefixed("module."),
    "model": prefixed("model."),
    "all": prefixed("module._orig_mod.model.model."),
    "layers": bare_layers,
    "compiled blocks": compiled_blocks,
    "model_state_dict": lambda state: {"epoch": 3, "model_state_dict": state, "optimizer": {}},
    "net": lambda state: {"net": state, "acc": 0.5},
    "weights": lambda state: {"weights": {**state, "names": ["a"]}},
    "keys beside": lambda state: {**state, "epoch": 3, "best": 0.1, "names": ["x", "y", "z"]},
    "nothing computed": without_what_models_compute,
    "average first": older_weights_beside,
    "deep": lambda state: {"checkpoint": {"state": {"model": state}}},
}


@pytest.fixture(scope="module")
def arch(tmp_path_factory: pytest.TempPathFactory, specs: Mapping[str, Any]) -> Path:
    path = tmp_path_factory.mktemp("arch") / "tiny.yaml"
    path.write_text(yaml.safe_dump(dict(specs["yolov8"])), encoding="utf-8")
    return path


def outputs(path: Path, arch: Path, checkpoints: ModuleType) -> Tensor:
    with torch.no_grad():
        found: Tensor = load(path, arch=arch).module(checkpoints.images(1))
    return found


@pytest.fixture
def want(v8: Any, checkpoints: ModuleType) -> Tensor:
    with torch.no_grad():
        found: Tensor = v8(checkpoints.images(1))
    return found


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_found_and_named(
    form: str, tmp_path: Path, v8: Any, arch: Path, want: Tensor, checkpoints: ModuleType
) -> None:
    path = tmp_path / "w.pt"
    torch.save(FORMS[form](v8.state_dict()), path)
    torch.testing.assert_close(outputs(path, arch, checkpoints), want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_safetensors(
    name: str, tmp_path: Path, v8: Any, arch: Path, want: Tensor, checkpoints: ModuleType
) -> None:
    path = tmp_path / name
    save_file({f"model.{k}": v.clone() for k, v in v8.state_dict().items()}, path)
    torch.testing.assert_close(outputs(path, arch, checkpoints), want, rtol=1e-5, atol=1e-4)
    assert len(load(path, arch=arch).sha256) == 64
    with pytest.raises(CheckpointError, match="without an architecture; name its model YAML"):
        load(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="damaged safetensors file"):
        load(path, arch=arch)


def test_names_and_size_beside_the_weights(tmp_path: Path, v8: Any, arch: Path) -> None:
    beside = {"names": ["x", "y", "z"], "train_args": {"imgsz": 320}}
    torch.save({"state_dict": v8.state_dict(), **beside}, tmp_path / "w.pt")
    found = load(tmp_path / "w.pt", arch=arch)
    assert (found.names, found.imgsz) == (("x", "y", "z"), (320, 320))


def test_batch_norms_that_were_folded_before_saving(
    tmp_path: Path, v8: Any, arch: Path, checkpoints: ModuleType
) -> None:
    for module in v8.modules():
        if isinstance(module, Conv):
            folded = nn.utils.fusion.fuse_conv_bn_eval(module.conv, module.bn)
            module.conv, module.bn = folded, nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        want = v8(checkpoints.images(1))
    torch.save(v8.state_dict(), tmp_path / "w.pt")
    torch.testing.assert_close(outputs(tmp_path / "w.pt", arch, checkpoints), want)


def masked(conv: nn.Conv2d) -> nn.Module:
    prune.random_unstructured(conv, "weight", 0.5)  # type: ignore[no-untyped-call]
    return prune.ln_structured(conv, "weight", 0.3, 2, 0)  # type: ignore[no-untyped-call,no-any-return]


TORCHS_OWN: dict[str, Callable[[nn.Conv2d], nn.Module]] = {
    "prune": masked,
    "weight_norm": lambda conv: weight_norm(conv, dim=1),
    "weight_norm whole": lambda conv: weight_norm(conv, dim=None),  # type: ignore[arg-type]
    "spectral_norm": spectral_norm,
    "new weight_norm": parametrizations.weight_norm,
    "new spectral_norm": parametrizations.spectral_norm,
}


@pytest.mark.parametrize("how", TORCHS_OWN)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_in_parts_are_joined(
    how: str, tmp_path: Path, v8: Any, arch: Path, checkpoints: ModuleType
) -> None:
    TORCHS_OWN[how](v8.model[0].conv)
    v8.eval()
    state = v8.state_dict()
    with torch.no_grad():
        want = v8(checkpoints.images(1))
    torch.save(state, tmp_path / "w.pt")
    torch.testing.assert_close(outputs(tmp_path / "w.pt", arch, checkpoints), want)


def test_parts_that_do_not_fit_stay() -> None:
    parts = {"a.weight_orig": torch.rand(2, 3), "a.weight_mask": torch.rand(4, 5)}
    assert join_parts(parts) == parts
    whole = {"a.weight": torch.rand(2), "a.weight_g": torch.rand(2), "a.weight_v": torch.rand(2)}
    assert join_parts(whole) == whole
    assert not parametrize.is_parametrized(nn.Conv2d(1, 1, 1))


def test_a_number_of_anchors_takes_their_sizes_from_the_weights(
    tmp_path: Path, checkpoints: ModuleType, specs: Mapping[str, Any]
) -> None:
    detector = checkpoints.make(specs["yolov5"])
    spec = tmp_path / "five.yaml"
    spec.write_text(yaml.safe_dump({**specs["yolov5"], "anchors": 3}), encoding="utf-8")
    state = detector.state_dict()
    torch.save(state, tmp_path / "w.pt")
    with torch.no_grad():
        want = detector(checkpoints.images(1))
    torch.testing.assert_close(outputs(tmp_path / "w.pt", spec, checkpoints), want)
    torch.save({k: v for k, v in state.items() if "anchors" not in k}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="gives a number of anchors, not their sizes"):
        load(tmp_path / "w.pt", arch=spec)


def test_the_cases_that_hold_weights_alone(shared: Path) -> None:
    cases = shared / "cases"
    if not (cases / "sd.npz").is_file():
        pytest.skip("needs the cases")
    with np.load(cases / "sd.npz") as arrays:
        x, want = arrays["x"], arrays["y"]
    for name in ("sd-yolo-prefix.pt", "sd.safetensors"):
        with torch.no_grad():
            got = load(cases / name, arch=cases / "tiny8.yaml").module(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(got[:, :4], want[:, :4], rtol=0, atol=0.02)
        np.testing.assert_allclose(got[:, 4:], want[:, 4:], rtol=0, atol=5e-5)
    assert load(cases / "anchors-int-sd.pt", arch=cases / "anchors-int.yaml").layout == "yolov5"


def archive(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"x")


OTHERS: dict[str, tuple[bytes, str]] = {
    "m.onnx": (b"\x08\x08\x12\x07pytorch", "is an ONNX file; give the checkpoint it was made"),
    "onnx.pt": (b"\x08\x08\x12\x07pytorch", "is an ONNX file; give"),
    "m.engine": (b"\x10\0\0\0ftrt", "is a TensorRT engine; give"),
    "named.engine": (b"\x02\0\0\0{}ftrt\0", "is a TensorRT engine; give"),
    "m.tflite": (b"\x1c\0\0\0TFL3", "is a TFLite model; give"),
    "tflite.pt": (b"\x1c\0\0\0TFL3", "is a TFLite model; give"),
    "m.xml": (b'<?xml version="1.0"?><net name="m">', "is an OpenVINO model; give"),
    "m.h5": (b"\x89HDF\r\n", "is a Keras model; give"),
    "m.param": (b"7767517\n", "is an NCNN model; give"),
    "m.mlmodel": (b"\x08\x01\x99", "is a CoreML model; give"),
    "m.pt.gz": (b"\x1f\x8b\x08", "is a gzip archive; unpack it"),
    "m.yaml": (b"nc: 3\n", "is a YAML file; give the checkpoint"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_named_with_what_to_give(name: str, tmp_path: Path) -> None:
    content, said = OTHERS[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path} {said}")
    assert "\n" not in str(caught.value)


def test_archives_and_folders_of_other_formats(tmp_path: Path) -> None:
    archive(tmp_path / "a.pt", "m/data.pkl", "m/constants.pkl", "m/code/x.py")
    archive(tmp_path / "b.pt", "m/archive_format", "m/models/model.json")
    archive(tmp_path / "c.zip", "runs/best.pt")
    (tmp_path / "m_openvino_model").mkdir()
    (tmp_path / "m_openvino_model" / "m.xml").write_text("<net/>")
    (tmp_path / "m.mlpackage").mkdir()
    for name, said in (
        ("a.pt", "is a TorchScript export; give"),
        ("b.pt", r"is a program of torch\.export; give"),
        ("c.zip", "is a zip archive; unpack it"),
        ("m_openvino_model", "is an OpenVINO model; give"),
        ("m.mlpackage", "is a CoreML model; give"),
    ):
        with pytest.raises(CheckpointError, match=said):
            load(tmp_path / name)
