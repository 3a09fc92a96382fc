"""A compile goes on from a snapshot as if the one that wrote it had not stopped there."""

import itertools
import json
import zipfile
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import yqc
from tests.slow import slow_but
from yqc.errors import CheckpointError, EmitError, PassError, PipelineError
from yqc.graph.serial import load_graph, save_graph

PIPELINES = (
    "prune{ratio=0.3 criterion=l2 recover_steps=2},int8",
    "int4{spare=0 skip=model.[1-9]*}",
    "rice{bits=5 skip=model.[1-9]*}",
)
HOW: dict[str, Any] = {"evaluate": False, "html": False, "verify": False}
Runs: TypeAlias = dict[str, tuple[yqc.Result, Path]]


@pytest.fixture(scope="module")
def runs(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Whole runs of the pipelines, and the folders of their snapshots."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for passes in PIPELINES:
            folder = tmp_path_factory.mktemp("whole")
            temps = folder / "temps"
            how: dict[str, Any] = {**HOW, "data": data, "calib_images": 4, "threads": 1}
            how |= {"save_temps": temps, "output": folder / "x.onnx"}
            result = yqc.compile(checkpoint, passes, **how)
            found[passes] = result, temps
    return found


class StopBehind(yqc.Watcher):
    """Ends a run behind its first new pass."""

    def after(self, step: yqc.Step) -> None:
        raise RuntimeError("enough")


def content(path: Path) -> dict[str, Any]:
    """Return what a snapshot holds, but for times."""
    with zipfile.ZipFile(path) as file:
        found: dict[str, Any] = json.loads(file.read("graph.json"))
        for step in found["info"]["steps"]:
            del step["record"]["seconds"]
        tensors = file.read("tensors.safetensors")
        return {**found, "tensors": tensors, "float": file.read("float.yqc")}


@pytest.mark.slow
@pytest.mark.parametrize("passes", slow_but(PIPELINES, PIPELINES[0]))
def test_every_pass_does_behind_a_snapshot_what_it_did_in_the_whole_run(
    runs: Runs, passes: str, tmp_path: Path
) -> None:
    whole, temps = runs[passes]
    steps = yqc.Pipeline.parse(whole.report.pipeline.expanded).steps
    snapshots = sorted(temps.glob("*.yqc"))
    assert len(snapshots) == len(steps) + 1
    for count, (before, behind) in enumerate(itertools.pairwise(snapshots)):
        how: dict[str, Any] = {"output": tmp_path / "y.onnx", "save_temps": tmp_path / "temps"}
        with pytest.raises(PassError, match="enough"):
            yqc.compile(before, list(steps[count:]), watchers=[StopBehind()], **how, **HOW)
        assert content(tmp_path / "temps" / behind.name) == content(behind), before.name


@pytest.mark.parametrize("passes", slow_but(PIPELINES, PIPELINES[0]))
def test_the_file_is_that_of_the_whole_run(runs: Runs, passes: str, tmp_path: Path) -> None:
    whole, temps = runs[passes]
    *_, before, last = sorted(temps.glob("*.yqc"))
    snapshot, rest = (before, "quantize") if "int8" in passes else (last, "")
    again = yqc.compile(snapshot, rest, output=tmp_path / "y.onnx", **HOW)
    assert again.files.onnx.read_bytes() == whole.files.onnx.read_bytes()
    assert again.files.recipe.read_text() == whole.files.recipe.read_text()
    records = [(r.name, r.rewrites, r.skips, r.says) for r in again.report.passes]
    assert records == [(r.name, r.rewrites, r.skips, r.says) for r in whole.report.passes]


def test_settings_of_the_run_hold_where_none_are_given(
    runs: Runs, checkpoint: Path, data: Path
) -> None:
    _, temps = runs[PIPELINES[1]]
    session = yqc.Session(temps / "02-fold-bn.yqc", seed=0, target="openvino")
    assert session.settings.data == str(data)
    assert (session.settings.calib_images, session.settings.target) == (4, "openvino")
    assert (session.source.path, session.source.family) == (str(checkpoint), "ultralytics")
    assert session.source.sha256


def test_other_passes_may_follow(runs: Runs, tmp_path: Path) -> None:
    _, temps = runs[PIPELINES[1]]
    result = yqc.compile(temps / "02-fold-bn.yqc", "half", output=tmp_path / "y.onnx", **HOW)
    assert [one.name for one in result.report.passes] == ["reparam", "fold-bn", "half"]
    assert result.report.pipeline.text == "reparam,fold-bn,half"


def test_load_reads_graph_files_and_snapshots(runs: Runs, tmp_path: Path) -> None:
    whole, temps = runs[PIPELINES[1]]
    loaded = yqc.load(temps / "02-fold-bn.yqc")
    assert len(loaded.names) == len(whole.report.input.names)
    result = yqc.compile(loaded, "half", output=tmp_path / "y.onnx", **HOW)
    assert [one.name for one in result.report.passes] == ["reparam", "fold-bn", "half"]
    with pytest.raises(CheckpointError, match="traced already; leave --head out"):
        yqc.load(temps / "02-fold-bn.yqc", head="one2one")


def test_what_cannot_be_is_refused_in_a_sentence(runs: Runs, tmp_path: Path) -> None:
    whole, temps = runs[PIPELINES[0]]
    last = max(temps.glob("*.yqc"))
    with pytest.raises(EmitError, match="is quantized already; compile an earlier snapshot"):
        yqc.compile(last, "dce", emit="onnx,pt2", output=tmp_path / "y.onnx", **HOW)
    with pytest.raises(PipelineError, match="observe"):
        yqc.compile(last, "observe", output=tmp_path / "y.onnx", **HOW)
    gm, info, _ = load_graph(last)
    for key, value in (("recipe", "passes = 3"), ("steps", [3]), ("rewrites", None)):
        broken = tmp_path / f"{key}.yqc"
        save_graph(gm, broken, {**info, key: value}, original=read_original(last))
        with pytest.raises(CheckpointError, match=rf"{key}\.yqc does not say"):
            yqc.compile(broken, "dce", output=tmp_path / "y.onnx", **HOW)
    assert whole.report.passes
    assert not (tmp_path / "y.onnx").exists()


def read_original(path: Path) -> bytes:
    """Return the float graph within a snapshot."""
    with zipfile.ZipFile(path) as file:
        assert json.loads(file.read("graph.json"))["info"]["kind"] == "snapshot"
        return file.read("float.yqc")
