"""A session opens model and data once, and its compiles give what single ones give."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import yqc
from yqc.compiler import Result
from yqc.data import images
from yqc.errors import YqcError
from yqc.job import inputs
from yqc_passes.fold_bn import FoldBatchNorm


def figures(result: Result) -> dict[str, Any]:
    """Return a report without times, and without where the float figures are from."""
    found: dict[str, Any] = json.loads(result.report.to_json())
    found.pop("latency")
    found["accuracy"].pop("baseline")
    for one in found["passes"]:
        one.pop("seconds")
    return found


@pytest.fixture(scope="module")
def opened(checkpoint: Path, data: Path) -> yqc.Session:
    return yqc.Session(checkpoint, data=data, calib_images=8, threads=1)


@pytest.mark.slow
def test_compiles_of_a_session_are_those_of_single_calls(
    opened: yqc.Session, checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    for passes in ("fuse", "int8"):
        how: dict[str, Any] = {"output": tmp_path / f"{passes}.onnx", "latency": False}
        shared = opened.compile(passes, **how, html=False)
        content = shared.files.onnx.read_bytes()
        alone = yqc.compile(
            checkpoint, passes, data=data, calib_images=8, threads=1, **how, html=False
        )
        assert alone.files.onnx.read_bytes() == content
        assert figures(shared) == figures(alone)
        assert shared.files.recipe.read_text() == alone.files.recipe.read_text()
    kept = [",".join(passes) for passes in opened.prefixes.kept]
    assert kept[:3] == ["reparam", "reparam,fold-bn", "reparam,fold-bn,dce"]
    assert not any("calibrate" in passes for passes in kept)


def test_a_pipeline_starts_behind_the_passes_of_another(
    opened: yqc.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {"evaluate": False, "html": False}
    first = opened.compile("fold-bn,dce", output=tmp_path / "x.onnx", **how)
    monkeypatch.setattr(FoldBatchNorm, "run", None)
    again = opened.compile("fold-bn", output=tmp_path / "y.onnx", **how)
    assert [r.name for r in again.report.passes] == ["fold-bn"]
    assert again.report.passes[0] == first.report.passes[0]
    assert again.context.rewrites == [r for r in first.context.rewrites if r.by == "fold-bn"]


def test_model_and_data_are_opened_and_images_read_once(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = dict[str, int]()

    def counted(module: Any, name: str) -> None:
        function = getattr(module, name)

        def call(*given: Any, **named: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            return function(*given, **named)

        monkeypatch.setattr(module, name, call)

    counted(inputs, "open_model")
    counted(inputs, "load_data")
    counted(images, "_place")
    session = yqc.Session(checkpoint, data=data, calib_images=8)
    for _ in range(2):
        session.compile(
            "int8{ranges=minmax}",
            output=tmp_path / "x.onnx",
            evaluate=False,
            html=False,
        )
    assert counts == {"open_model": 1, "load_data": 1, "_place": 8}


def test_a_session_refuses_what_compile_refuses(opened: yqc.Session, tmp_path: Path) -> None:
    with pytest.raises(YqcError, match="no-such-pass"):
        opened.compile("no-such-pass", output=tmp_path / "x.onnx")
    with pytest.raises(YqcError, match="calib_image is no argument of"):
        yqc.Session("m.pt", calib_image=3)
    with pytest.raises(YqcError, match=r"absent\.pt"):
        yqc.Session("absent.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_model_is_compiled_as_it_is_now(checkpoint: Path, data: Path) -> None:
    loaded = yqc.load(checkpoint)
    with pytest.raises(YqcError, match=r"give head to yqc\.load"):
        yqc.evaluate(loaded, data, head="one2one")
    before = yqc.evaluate(loaded, data)
    assert before.scores.map == yqc.evaluate(checkpoint, data).scores.map
    for parameter in loaded.module.parameters():
        parameter.data.zero_()
    assert yqc.evaluate(loaded, data).scores.map != before.scores.map


def test_a_changed_model_is_compiled_with_evaluation(
    checkpoint: Path, data: Path, tmp_path: Path
) -> None:
    loaded = yqc.load(checkpoint)
    for parameter in loaded.module.parameters():
        parameter.data.mul_(1.01)
    out = tmp_path / "x.onnx"
    result = yqc.compile(loaded, "fuse", data=data, output=out, latency=False, html=False)
    accuracy = result.report.accuracy
    assert accuracy.kind == "map"
    assert accuracy.drop == pytest.approx(0, abs=1e-6)
    original = dict(result.original.named_parameters())
    wanted = dict(loaded.module.named_parameters())["model.0.conv.weight"]
    assert torch.equal(original["model.0.conv.weight"], wanted)
    assert (result.report.input.path, result.report.input.sha256) == (str(checkpoint), "")
