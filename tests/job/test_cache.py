"""What an interrupted compile keeps: whole files, of one compile, gone when it succeeds."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import fx, nn

import yqc
from tests.command import beside
from yqc.errors import OutputError, PassError
from yqc.graph.compare import fingerprint
from yqc.job.cache import KEY, FolderCache
from yqc.models.source import open_model
from yqc.pipeline import resume
from yqc.store.locks import NAME as LOCK
from yqc.training import state as keeping

TENSORS = {"a": torch.arange(6).view(2, 3), "b.c": torch.rand(4, generator=torch.Generator())}


@pytest.fixture
def cache(tmp_path: Path) -> FolderCache:
    return FolderCache(tmp_path / "x.cache", {"passes": "p", "seed": 1}, resume=True)


def again(cache: FolderCache, *, resume: bool = True, **key: object) -> FolderCache:
    return FolderCache(cache.folder, {"passes": "p", "seed": 1, **key}, resume=resume)


def test_what_was_kept_is_found_by_a_rerun(cache: FolderCache) -> None:
    assert cache.load("recover-1") is None
    assert not cache.folder.exists()
    cache.save("recover-1", TENSORS, {"step": 3})
    found = again(cache).load("recover-1")
    assert found is not None
    tensors, about = found
    assert about == {"step": 3}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)


def test_later_tensors_replace_earlier_ones_and_nothing_else_stays(cache: FolderCache) -> None:
    cache.save("one", TENSORS, {"step": 1})
    cache.save("one", {}, {"step": 2})
    assert cache.load("one") == ({}, {"step": 2})
    assert sorted(p.name for p in cache.folder.iterdir()) == [KEY, LOCK, "one.safetensors"]


def test_without_resume_it_starts_anew(cache: FolderCache) -> None:
    cache.save("one", TENSORS, {})
    fresh = again(cache, resume=False)
    assert fresh.load("one") is None
    assert not cache.folder.exists()


def test_another_compile_does_not_go_on_with_it(cache: FolderCache) -> None:
    cache.save("one", TENSORS, {})
    with pytest.raises(OutputError, match=r"left by another compile \(it differs in seed\)"):
        again(cache, seed=2)
    assert cache.load("one") is not None


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, b'{"a": 1}'])
def test_a_damaged_file_counts_as_none(cache: FolderCache, damage: bytes) -> None:
    cache.save("one", TENSORS, {})
    (cache.folder / "one.safetensors").write_bytes(damage)
    assert cache.load("one") is None


def test_a_kill_while_writing_leaves_what_was_there(
    cache: FolderCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.save("one", TENSORS, {"step": 1})

    def kill(*_: object, **__: object) -> None:
        (cache.folder / "one.safetensors.partial").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("yqc.job.cache.save_file", kill)
    with pytest.raises(KeyboardInterrupt):
        cache.save("one", TENSORS, {"step": 2})
    found = again(cache).load("one")
    assert found is not None
    assert found[1] == {"step": 1}
    cache.delete()
    assert not cache.folder.exists()


def test_what_has_no_key_is_not_gone_on_with(cache: FolderCache) -> None:
    """As a kill in the middle of `delete` leaves it; the next key could be another compile's."""
    cache.save("one", TENSORS, {})
    (cache.folder / KEY).unlink()
    fresh = again(cache, seed=2)
    fresh.save("two", {}, {})
    assert fresh.load("one") is None


def test_a_folder_that_is_not_its_own_is_not_removed(cache: FolderCache) -> None:
    cache.folder.mkdir()
    (cache.folder / "holiday.jpg").write_bytes(b"")
    with pytest.raises(OutputError, match="is in the way, and no yqc cache"):
        again(cache, resume=False)
    assert (cache.folder / "holiday.jpg").exists()


OTHER = """
import sys
from pathlib import Path
from yqc.job.cache import FolderCache
cache = FolderCache(Path("x.cache"), {"passes": "theirs"}, resume=False)
cache.save("one", {}, {"whose": "theirs"})
print("kept", flush=True)
sys.stdin.read()
cache.save("two", {}, {})
cache.delete()
"""


def test_a_compile_beside_another_keeps_nothing_and_takes_nothing_away(tmp_path: Path) -> None:
    with beside(OTHER, tmp_path) as said:
        said.readline()
        folder = tmp_path / "x.cache"
        with pytest.raises(OutputError, match="belongs to a compile that is still running"):
            FolderCache(folder, {"passes": "theirs"}, resume=True)
        mine = FolderCache(folder, {"passes": "mine"}, resume=False)
        mine.save("three", TENSORS, {})
        assert mine.load("one") is None
        assert mine.found("one.safetensors") is None
        with pytest.raises(OutputError, match="another compile keeps"), mine.file("stage.yqc"):
            raise AssertionError
        mine.delete()
        assert sorted(p.name for p in folder.iterdir()) == [KEY, LOCK, "one.safetensors"]
    assert not folder.exists()
    mine.save("three", TENSORS, {})
    assert mine.load("three") is not None


def test_a_disk_that_is_full_is_told(cache: FolderCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("yqc.job.cache.save_file", full)
    with pytest.raises(OutputError, match=r"for --resume: .*No space left"):
        cache.save("one", TENSORS, {})


def test_strange_names_become_plain_file_names(cache: FolderCache) -> None:
    cache.save("../../etc/passwd", {}, {"step": 1})
    assert cache.load("../../etc/passwd") == ({}, {"step": 1})
    assert all(p.parent == cache.folder for p in cache.folder.rglob("*"))


runs: list[str] = []


@dataclass(frozen=True)
class Halve(yqc.Pass):
    """Halve all weights."""

    name: ClassVar[str] = "halve"

    fail: bool = False
    """Be interrupted."""

    def run(self, gm: fx.GraphModule, ctx: yqc.Context) -> None:
        runs.append(str(self))
        if self.fail and len(runs) == 2:
            raise KeyboardInterrupt
        for conv in yqc.calls(gm, nn.Conv2d):
            conv.module.weight.data.mul_(0.5)
            ctx.rewrote(conv.node, "halved")
        ctx.skipped(gm.graph.output_node(), "no weight")
        ctx.warn(f"warning {len(ctx.rewrites)}")


def test_an_interrupted_pipeline_goes_on_after_its_last_long_pass(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "LONG", 0.0)
    runs.clear()
    passes = yqc.Pipeline([Halve(), Halve(fail=True)])
    whole = yqc.Pipeline([Halve(), Halve()])

    def go(pipeline: yqc.Pipeline, name: str, *, resume: bool) -> yqc.Result:
        out = tmp_path / name
        return yqc.compile(checkpoint, pipeline, output=out, evaluate=False, resume=resume)

    want = go(whole, "want.onnx", resume=False)
    assert not (tmp_path / "want.cache").exists()
    runs.clear()
    with pytest.raises(KeyboardInterrupt):
        go(passes, "x.onnx", resume=False)
    assert sorted(p.name for p in (tmp_path / "x.cache").iterdir()) == [KEY, LOCK, "stage.yqc"]
    runs.append("before the rerun")
    result = go(passes, "x.onnx", resume=True)
    assert runs == ["halve", "halve{fail=true}", "before the rerun", "halve{fail=true}"]
    assert fingerprint(result.gm) == fingerprint(want.gm)
    assert [p.rewrites for p in result.report.passes] == [p.rewrites for p in want.report.passes]
    assert [p.max_abs_error for p in result.report.passes] == [
        p.max_abs_error for p in want.report.passes
    ]
    assert result.report.warnings == want.report.warnings
    assert result.report.passes[0].skips == want.report.passes[0].skips
    assert not (tmp_path / "x.cache").exists()


class Odd(nn.ReLU):
    """An activation that no table of saved graphs knows."""


@dataclass(frozen=True)
class Strange(yqc.Pass):
    """Put a module of its own into the graph."""

    name: ClassVar[str] = "strange"

    def run(self, gm: fx.GraphModule, ctx: yqc.Context) -> None:
        act = yqc.calls(gm, nn.SiLU)[0]
        gm.set_submodule(act.target, Odd())
        ctx.rewrote(act.node, "became odd")


def test_a_graph_that_cannot_be_kept_stops_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "LONG", 0.0)
    gm = open_model(checkpoint).gm
    cache = FolderCache(tmp_path / "x.cache", {}, resume=True)
    steps = yqc.Pipeline([Strange()]).run(gm, yqc.Context(), watchers=[resume.Stages(cache)])
    assert [step.record.rewrites for step in steps] == [1]
    assert cache.found("stage.yqc") is None


def test_the_key_names_what_decides_the_result(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "LONG", 0.0)

    def stop(*_: object, **__: object) -> None:
        raise PassError("stopped")

    monkeypatch.setattr("yqc.compiler.verify_file", stop)
    out = tmp_path / "x.onnx"
    with pytest.raises(PassError, match="stopped"):
        yqc.compile(checkpoint, "fold-bn", output=out, evaluate=False)
    key = json.loads((tmp_path / "x.cache" / KEY).read_text())
    assert key["passes"] == "fold-bn"
    assert key["settings"]["seed"] == 0
    assert len(key["input"]) == 64
    with pytest.raises(OutputError, match="differs in settings"):
        yqc.compile(checkpoint, "fold-bn", output=out, evaluate=False, seed=5, resume=True)
    with pytest.raises(OutputError, match="differs in passes"):
        yqc.compile(checkpoint, "reparam", output=out, evaluate=False, resume=True)


def test_a_recovery_that_was_killed_ends_in_the_same_file(
    checkpoint: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "PAUSE", 0.0)
    passes = "recover{steps=6 batch=4 bn_l1=0.001}"

    def go(name: str, *, resume: bool = False) -> bytes:
        out = tmp_path / name
        yqc.compile(checkpoint, passes, output=out, data=data, evaluate=False, resume=resume)
        return out.read_bytes()

    want = go("want.onnx")
    save = FolderCache.save

    def kill(self: FolderCache, *args: object) -> None:
        save(self, *args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(FolderCache, "save", kill)
    with pytest.raises(KeyboardInterrupt):
        go("x.onnx")
    assert not (tmp_path / "x.onnx").exists()
    monkeypatch.setattr(FolderCache, "save", save)
    assert go("x.onnx", resume=True) == want
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("x.")) == [
        "x.onnx",
        "x.recipe.toml",
        "x.report.html",
        "x.report.json",
    ]
