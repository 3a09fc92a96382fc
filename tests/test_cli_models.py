"""The command line on models of several families: heads, bare weights, any batch size."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import yaml

from tests.command import Run
from yqc.data import scenes

CELLS = 8 * 8 + 4 * 4 + 2 * 2
"""Of an image of 64 x 64."""
AUXILIARY = "the auxiliary heads serve training only and were left out"

Said = Callable[..., str]


@pytest.fixture
def said(run: Run) -> Said:
    """Runs `yqc` in an empty folder: its output if it exits with `code`, else its message."""

    def said(*arguments: object, code: int = 0) -> str:
        done = run(*arguments)
        assert done.code == code, done.err
        return done.err if code else done.out

    return said


@pytest.fixture
def write(checkpoints: ModuleType, specs: Mapping[str, Any]) -> Callable[[str], Any]:
    """Writes the checkpoint NAME.pt of a small model and returns its detector."""

    def write(name: str, scale: str = "") -> Any:
        spec = specs[name]
        detector = checkpoints.make(spec, nc=len(scenes.NAMES), scale=scale)
        told = {"args": {"imgsz": 64}, "opt": {"imgsz": 64}, "names": list(scenes.NAMES)}
        top = {"opt": told.pop("opt")}
        checkpoints.save(Path(f"{name}.pt"), detector, spec["project"], top=top, **told)
        return detector

    return write


def outputs(path: str, images: torch.Tensor) -> np.ndarray:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"images": images.numpy()})[0])


def assert_same(got: np.ndarray, want: np.ndarray) -> None:
    """Outputs are close; rows of an end-to-end head whose scores are all but equal may swap."""
    if want.shape[2] != 6:
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-3)
        return
    np.testing.assert_allclose(got[..., 4], want[..., 4], rtol=0, atol=1e-4)
    for one, other in zip(got, want, strict=True):
        apart = np.abs(one[:, None] - other[None]).max(2)
        assert apart.min(0).max() < 1e-2, "a detection is missing"
        assert apart.min(1).max() < 1e-2, "a detection is new"


def noise(batch: int, high: int = 64, wide: int = 64) -> torch.Tensor:
    return torch.rand(batch, 3, high, wide, generator=torch.Generator().manual_seed(5))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolo26"])
def test_either_head_of_an_end_to_end_model(
    name: str, said: Said, write: Callable[[str], Any], data: Path
) -> None:
    detector = write(name)
    nc, scores = len(scenes.NAMES), {}
    for head, shape in (("one2one", (1, CELLS, 6)), ("one2many", (1, 4 + nc, CELLS))):
        asked = ("--head", head, "--data", data)
        text = said(
            "compile", f"{name}.pt", "--passes", "fuse", *asked, "--json", "-q", "-o", "x.onnx"
        )
        report = json.loads(text)
        assert f'head = "{head}"' in Path("x.recipe.toml").read_text(encoding="utf-8")
        detector = detector if head == "one2one" else write(name)
        detector.head.choose_branch(head)
        with torch.no_grad():
            want = detector(noise(1)).numpy()
        got = outputs("x.onnx", noise(1))
        assert got.shape == want.shape == shape
        assert_same(got, want)
        assert report["accuracy"]["images"] == 3
        # The very same evaluation of the file and of the checkpoint.
        found = [
            json.loads(said("eval", *model, "--data", data, "--json", "-q"))["scores"]
            for model in (["x.onnx"], [f"{name}.pt", "--head", head])
        ]
        assert found[0] == pytest.approx(found[1], abs=1e-3)
        scores[head] = found[1]
    plain = json.loads(said("eval", f"{name}.pt", "--data", data, "--json", "-q"))["scores"]
    assert scores["one2one"] != scores["one2many"]
    assert plain == scores["one2one"], "end to end is the default"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov5", "yolov8"])
def test_a_model_with_one_head_has_no_other(
    name: str, said: Said, write: Callable[[str], Any]
) -> None:
    write(name)
    asked = ("compile", f"{name}.pt", "--passes", "fuse", "--no-eval", "-q", "-o")
    message = said(*asked, "x.onnx", "--head", "one2one", code=1)
    assert message == f"yqc: {name}.pt: the model has no one-to-one head; leave --head out\n"
    assert not Path("x.onnx").exists()
    said(*asked, "plain.onnx")
    said(*asked, "many.onnx", "--head", "one2many")  # Its only head is of that kind.
    assert Path("plain.onnx").read_bytes() == Path("many.onnx").read_bytes()


def test_what_is_built_already_takes_neither_head_nor_architecture(
    said: Said, write: Callable[[str], Any], data: Path
) -> None:
    write("yolov10")
    asked = ("--passes", "dce", "--no-eval", "-q", "-o", "x.onnx")
    said("compile", "yolov10.pt", *asked, "--save-temps", "temps")
    graph, head = Path("temps") / "00-trace.yqc", ("--head", "one2many")
    message = said("compile", graph, *asked, *head, code=1)
    assert message == f"yqc: {graph} is a graph that was traced already; leave --head out\n"
    message = said("eval", "x.onnx", "--data", data, "-q", *head, code=1)
    assert message == "yqc: x.onnx is an ONNX file, built already; leave --head out\n"


@pytest.mark.slow
def test_bare_weights_with_their_yaml_are_the_whole_checkpoint(
    said: Said, write: Callable[..., Any], data: Path, specs: Mapping[str, Any]
) -> None:
    detector = write("yolov8", "n")
    torch.save({k: v.half() for k, v in detector.state_dict().items()}, "weights.pt")
    spec = {**specs["yolov8"], "names": list(scenes.NAMES)}
    Path("yolov8.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    arch = ("--arch", "yolov8n.yaml")  # The scale stands in the name only.
    asked = ("--passes", "fuse", "--imgsz", 64, "--no-eval", "-q", "-o")
    message = said("compile", "weights.pt", *asked, "w.onnx", code=1)
    assert "name its model YAML with --arch" in message
    said("compile", "weights.pt", *asked, "w.onnx", *arch)
    said("compile", "yolov8.pt", *asked, "m.onnx")
    bare, whole = (onnx.load(f"{name}.onnx") for name in "wm")
    assert bare.graph.SerializeToString() == whole.graph.SerializeToString()
    about = [{p.key: p.value for p in model.metadata_props} for model in (bare, whole)]
    assert {k for k, v in about[0].items() if about[1][k] != v} == {"yqc.input_sha256"}

    message = said("compile", "yolov8.pt", *asked, "m.onnx", *arch, code=1)
    assert "the file holds its own architecture; leave --arch out" in message
    looked = [
        json.loads(said("inspect", *given, "--json"))
        for given in (["weights.pt", *arch], ["yolov8.pt"])
    ]
    same = ("family", "names", "strides", "params", "output", "blocks")
    assert [looked[0][key] for key in same] == [looked[1][key] for key in same]
    assert looked[0]["name"] == "yolov8n"
    measured = [
        json.loads(said("eval", *given, "--data", data, "--imgsz", 64, "--json", "-q"))["scores"]
        for given in (["weights.pt", *arch], ["yolov8.pt"])
    ]
    assert measured[0] == measured[1]


def test_the_report_says_that_auxiliary_heads_are_left_out(
    said: Said, write: Callable[[str], Any]
) -> None:
    write("yolov7-e6e")
    asked = ("compile", "yolov7-e6e.pt", "--passes", "fuse", "--no-eval", "-o", "x.onnx")
    shown = said(*asked)
    assert AUXILIARY in " ".join(shown.split())
    assert AUXILIARY in json.loads(Path("x.report.json").read_text(encoding="utf-8"))["warnings"]
    assert AUXILIARY in json.loads(said("inspect", "yolov7-e6e.pt", "--json"))["warnings"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov5", "yolov8", "yolov10"])
def test_a_dynamic_model_runs_at_any_batch_size(
    name: str, said: Said, write: Callable[[str], Any]
) -> None:
    detector = write(name)
    asked = ("--dynamic", "--imgsz", "64,96", "--no-eval", "-q", "-o", "x.onnx")
    said("compile", f"{name}.pt", "--passes", "fuse", *asked)
    for batch in (1, 3):
        with torch.no_grad():
            want = detector(noise(batch, 64, 96)).numpy()
        got = outputs("x.onnx", noise(batch, 64, 96))
        assert got.shape == want.shape
        assert_same(got, want)
