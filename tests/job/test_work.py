"""What an interrupted compile keeps: of one compile, found by a rerun, gone when it succeeds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import fx, nn

import yqc
from tests.command import Run, beside
from yqc.errors import OutputError
from yqc.graph.compare import fingerprint
from yqc.job.work import Work, stores_of
from yqc.models.source import open_model
from yqc.pipeline import base, resume
from yqc.store import Store

TENSORS = {"a": torch.arange(6).view(2, 3), "b.c": torch.rand(4, generator=torch.Generator())}


KEY = {"passes": "p", "seed": 1, "output": "/out/x.onnx"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def open_again(store: Store, *, resume: bool = True, **key: object) -> Work:
    return Work([store], {**KEY, **key}, resume=resume)


def test_tensors_lie_in_memory_as_they_did(store: Store) -> None:
    """Sums over channels-last tensors are rounded in another order than over others."""
    x = torch.rand(2, 7, 20, 20, generator=torch.Generator().manual_seed(0))
    last = x.contiguous(memory_format=torch.channels_last)
    open_again(store).save("one", {"plain": x, "last": last}, {"n": 1})
    found = open_again(store).load("one")
    assert found is not None
    tensors, about = found
    assert about == {"n": 1}
    assert {k: v.stride() for k, v in tensors.items()} == {
        "plain": x.stride(),
        "last": last.stride(),
    }
    assert torch.equal((tensors["last"] * last).sum((2, 3)), (last * last).sum((2, 3)))


def test_what_was_kept_is_found_by_a_rerun(store: Store) -> None:
    work = open_again(store)
    assert work.load("recover-1") is None
    assert not store.folder.exists()
    work.save("recover-1", TENSORS, {"step": 3})
    found = open_again(store).load("recover-1")
    assert found is not None
    tensors, about = found
    assert about == {"step": 3}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)


def test_later_tensors_replace_earlier_ones(store: Store) -> None:
    work = open_again(store)
    work.save("one", TENSORS, {"step": 1})
    work.save("one", {}, {"step": 2})
    assert work.load("one") == ({}, {"step": 2})
    assert len(store.entries()) == 1


def test_without_resume_it_starts_anew(store: Store) -> None:
    open_again(store).save("one", TENSORS, {})
    fresh = open_again(store, resume=False)
    assert fresh.load("one") is None
    fresh.save("one", {}, {"own": True})
    assert fresh.load("one") == ({}, {"own": True})


@pytest.mark.parametrize("other", [{"seed": 2}, {"passes": "q"}, {"loaded": ["abc"]}])
def test_another_compile_does_not_go_on_with_it(store: Store, other: dict[str, Any]) -> None:
    open_again(store).save("one", TENSORS, {})
    work = open_again(store, **other)
    assert work.load("one") is None
    assert work.differences() == next(iter(other))
    assert open_again(store).differences() == ""


def test_a_finished_compile_removes_all_work_on_its_output(store: Store) -> None:
    open_again(store, seed=2).save("one", TENSORS, {})
    open_again(store, output="/out/other.onnx").save("one", TENSORS, {})
    store.put("float", {}, b"kept")
    work = open_again(store)
    work.save("one", TENSORS, {})
    work.delete()
    left = [entry.key.get("output") for entry in store.entries() if entry.kind == "work"]
    assert left == ["/out/other.onnx"]
    assert store.get("float", {}) == b"kept"


OTHER = """
import sys
from pathlib import Path
from yqc.job.work import Work
from yqc.store import Store
work = Work([Store(Path("store"))], {"passes": "p", "output": "/out/x.onnx"}, resume=False)
work.save("one", {}, {"whose": "theirs"})
print("kept", flush=True)
sys.stdin.read()
work.save("two", {}, {})
work.delete()
"""


def test_a_compile_beside_another_keeps_nothing_and_takes_nothing_away(
    store: Store, tmp_path: Path
) -> None:
    with beside(OTHER, tmp_path) as said:
        said.readline()
        with pytest.raises(OutputError, match="belongs to a compile that is still running"):
            open_again(store)
        mine = open_again(store, resume=False)
        mine.save("three", TENSORS, {})
        assert mine.load("three") is None
        assert len(store.entries()) == 1
    assert store.entries() == []
    mine.save("three", TENSORS, {})
    assert mine.load("three") is not None


def test_a_store_that_cannot_be_written_costs_a_warning_once(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file in its place")
    said: list[str] = []
    work = Work([Store(tmp_path / "store")], KEY, resume=False, warn=said.append)
    work.save("one", TENSORS, {})
    work.save("two", TENSORS, {})
    work.delete()
    assert len(said) == 1
    assert "a kill would lose this compile's work: nothing can be kept" in said[0]


def test_where_resuming_was_asked_for_it_is_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("yqc.store.store.os.fsync", full)
    with pytest.raises(OutputError, match=r"cannot keep one for --resume: .*No space left"):
        open_again(store).save("one", TENSORS, {})


def test_a_folder_of_the_users_beside_the_output_is_left_alone(tmp_path: Path) -> None:
    folder, user = tmp_path / "x.cache", Store(tmp_path / "user")
    assert [s.folder for s in stores_of(folder, user, resume=False)] == [user.folder, folder]
    assert [s.folder for s in stores_of(folder, user, resume=True)] == [folder, user.folder]
    other = tmp_path / "y.cache"
    other.mkdir()
    for _ in range(2):
        for resumes in (True, False):
            assert stores_of(other, user, resume=resumes) == (user,)
        (other / "holiday.jpg").touch()
    assert [p.name for p in other.iterdir()] == ["holiday.jpg"]


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


def kept(folder: Path) -> list[str]:
    """Return the names of the work in a store."""
    return [str(e.key["name"]) for e in Store(folder).entries() if e.kind == "work"]


def test_an_interrupted_pipeline_goes_on_after_its_last_long_pass(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    runs.clear()
    passes = yqc.Pipeline([Halve(), Halve(fail=True)])
    whole = yqc.Pipeline([Halve(), Halve()])

    def go(pipeline: yqc.Pipeline, name: str, *, resume: bool) -> yqc.Result:
        out = tmp_path / name
        return yqc.compile(checkpoint, pipeline, output=out, evaluate=False, resume=resume)

    want = go(whole, "want.onnx", resume=False)
    assert not (tmp_path / "want.cache").exists()
    assert kept(cache_folder) == []
    monkeypatch.setattr(resume, "LONG", 0.0)
    runs.clear()
    with pytest.raises(KeyboardInterrupt):
        go(passes, "x.onnx", resume=False)
    assert kept(cache_folder) == ["stage"]
    assert not (tmp_path / "x.cache").exists()
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


@dataclass(frozen=True)
class Again(Halve):
    """Halve all weights, too."""

    name: ClassVar[str] = "again"


def test_another_pipeline_begins_behind_the_passes_that_it_shares(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    def go(passes: list[yqc.Pass], **more: Any) -> tuple[list[str], bytes]:
        runs.clear()
        out = tmp_path / "x.onnx"
        yqc.compile(checkpoint, passes, output=out, evaluate=False, html=False, **more)
        return list(runs), out.read_bytes()

    _, alone = go([Halve(), Again(), Halve()])
    monkeypatch.setattr(resume, "LONG", 0.0)
    assert go([Halve(), Halve()])[0] == ["halve", "halve"]
    ran, shared = go([Halve(), Again(), Halve()])
    assert (ran, shared == alone) == (["again", "halve"], True)
    assert go([Halve(), Halve()], imgsz=96)[0] == ["halve", "halve"]
    assert go([Halve(), Halve()], verify=False)[0] == ["halve", "halve"]
    ran, shared = go([Halve(), Halve()], opset=18, nms=True)
    assert ran == []
    for entry in Store(cache_folder).entries():
        entry.path.write_bytes(entry.path.read_bytes()[:-1])  # damaged: made anew
    assert go([Halve(), Halve()], opset=18, nms=True) == (["halve", "halve"], shared)


@dataclass(frozen=True)
class Ahead(yqc.Pass):
    """Look at what comes later."""

    name: ClassVar[str] = "ahead"

    def run(self, gm: fx.GraphModule, ctx: yqc.Context) -> None:
        runs.append(f"{self} {','.join(ctx.upcoming)}")


@dataclass(frozen=True)
class Seer(Ahead):
    """Look at what comes later, and say that it does."""

    name: ClassVar[str] = "seer"
    reads_upcoming: ClassVar[frozenset[str]] = frozenset({"ahead"})


def test_upcoming_passes_decide_where_a_pass_reads_them(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "LONG", 0.0)

    def go(*passes: yqc.Pass) -> list[str]:
        runs.clear()
        yqc.compile(checkpoint, passes, output=tmp_path / "x.onnx", evaluate=False, html=False)
        return list(runs)

    assert go(Ahead(), Seer(), Ahead()) == ["ahead ", "seer ahead", "ahead "]
    assert go(Ahead(), Seer(), Seer()) == ["seer ", "seer "]
    again = go(Ahead(), Seer(), Seer(), Ahead())
    assert again == ["seer ahead", "ahead "]  # for the first one, nothing that it reads has changed


@pytest.mark.slow
def test_a_run_does_not_start_behind_marks_that_files_leave_out(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cache_folder: Path,
) -> None:
    """`calibrate` leaves outputs for `bias-correct`, which would measure them anew otherwise."""
    monkeypatch.setattr(resume, "LONG", 0.0)

    def go(name: str, **more: Any) -> bytes:
        out = tmp_path / name
        choices: dict[str, Any] = {"imgsz": 64, "calib_images": 4, "evaluate": False} | more
        yqc.compile(checkpoint, "int8", output=out, data=data, html=False, **choices)
        return out.read_bytes()

    want = go("a.onnx")
    stages = [e for e in Store(cache_folder).entries() if e.kind == "stage"]
    behind = [e.key["passes"][-1][0].partition("{")[0] for e in stages]
    assert {"fold-bn", "quantize"} <= set(behind)
    assert "calibrate" not in behind
    for entry, name in zip(stages, behind, strict=True):
        if name == "quantize":
            entry.path.unlink()
    assert go("b.onnx") == want


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
    work = open_again(Store(tmp_path / "store"))
    steps = yqc.Pipeline([Strange()]).run(
        gm, yqc.Context(), watchers=[resume.Stages(work, [Strange()])]
    )
    assert [step.record.rewrites for step in steps] == [1]
    assert work.load_stage([Strange()], 1) is None


MINE = """
import yqc
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Mine(yqc.Pass):
    name: ClassVar[str] = "mine"

    def run(self, gm, ctx):
        for conv in yqc.calls(gm, __import__("torch").nn.Conv2d):
            conv.module.weight.data.mul_({factor})
            ctx.rewrote(conv.node, "scaled")
"""


@pytest.mark.slow
def test_what_decides_the_result_is_in_the_key(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an edit of a file with passes, or with another `emit`, nothing kept is taken."""
    monkeypatch.setattr(resume, "LONG", 0.0)
    out, mine = tmp_path / "x.onnx", tmp_path / "mine.py"

    def go(name: Path, factor: float, **more: object) -> bytes:
        mine.write_text(MINE.replace("{factor}", str(factor)))
        registry = yqc.Registry.default()
        registry.load_file(mine)
        how = {"evaluate": False, "registry": registry, "html": False, **more}
        yqc.compile(checkpoint, "mine,dce", output=name, **how)  # type: ignore[arg-type]
        return name.read_bytes()

    want = go(tmp_path / "want.onnx", 0.75)
    with monkeypatch.context() as patch:
        patch.setattr("yqc.compiler.verify_sizes", interrupt)
        with pytest.raises(KeyboardInterrupt):
            go(out, 0.5)
    assert go(out, 0.75, resume=True) == want
    with monkeypatch.context() as patch:
        patch.setattr("yqc.compiler.verify_sizes", interrupt)
        with pytest.raises(KeyboardInterrupt):
            go(out, 0.75)
    assert go(out, 0.75, resume=True, emit="onnx,pt2") == want
    assert torch.export.load(tmp_path / "x.pt2") is not None


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_recovery_that_was_killed_ends_in_the_same_file(
    checkpoint: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cache_folder: Path,
) -> None:
    monkeypatch.setattr(base, "PAUSE", 0.0)
    monkeypatch.setattr(base, "LONGEST", 0.0)
    passes = "recover{steps=6 batch=4 bn_l1=0.001}"

    def go(name: str, *, resume: bool = False) -> bytes:
        out = tmp_path / name
        yqc.compile(checkpoint, passes, output=out, data=data, evaluate=False, resume=resume)
        return out.read_bytes()

    want = go("want.onnx")
    Store(cache_folder).remove()
    save = Work.save

    def kill(self: Work, *args: object) -> None:
        save(self, *args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(Work, "save", kill)
    with pytest.raises(KeyboardInterrupt):
        go("x.onnx")
    assert not (tmp_path / "x.onnx").exists()
    monkeypatch.setattr(Work, "save", save)
    assert go("x.onnx", resume=True) == want
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("x.")) == [
        "x.onnx",
        "x.recipe.toml",
        "x.report.html",
        "x.report.json",
    ]


def test_the_command_begins_there_too(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "LONG", 0.0)
    how = [checkpoint, "--no-eval", "--no-html", "-o", "x.onnx"]
    assert "kept from" not in run("compile", *how, "--passes", "fold-bn").err
    assert (
        "kept from an earlier run: fold-bn\n" in run("compile", *how, "--passes", "fold-bn,dce").err
    )
    seen = run("compile", *how, "--passes", "fold-bn,dce", "--print-after", "fold-bn")
    assert "kept from" not in seen.err
    assert seen.out.startswith("# after 1 fold-bn\n")
