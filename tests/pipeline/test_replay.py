"""Reproducers: what a failing pass leaves behind, and what runs it again."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from tests.steps import ALL, Calibrate, Crash, Fold, Idle, Words, X, failure, net, registry
from yqc import Context, Pipeline, text
from yqc.errors import CheckpointError, PassError
from yqc.graph.serial import load_graph, save_graph
from yqc.pipeline.replay import replay
from yqc.pipeline.watchers import Reproducer, Verify


def test_a_failure_leaves_what_is_needed_to_run_it_again(tmp_path: Path) -> None:
    gm, path = net(), tmp_path / "x.reproducer.yqc"
    before = text(gm)
    error = failure("idle,crash", gm, Verify(), Reproducer(path))
    assert str(error).endswith(f"; run it again with: yqc replay {path}")
    saved, info, more = load_graph(path)
    assert text(saved) == before, "the graph before the pass, not the one it left half done"
    assert torch.equal(saved(X), net()(X))
    assert (info["pass"], info["index"], info["seed"]) == ("crash", 2, 0)
    assert info["error"] == "ZeroDivisionError: a channel without weights"
    assert torch.equal(more["example"], X)
    assert set(info["versions"]) == {"python", "torch"}


def test_replay_fails_the_same_way(tmp_path: Path) -> None:
    path = tmp_path / "x.reproducer.yqc"
    failure("liar{by=3}", net(), Verify(), Reproducer(path))
    with pytest.raises(PassError) as caught:
        replay(path, ALL)
    assert "liar{by=3.0}: it declares that it keeps the numbers" in str(caught.value)
    assert "; the first failure was PassError: it declares" in str(caught.value)


def test_replay_says_so_once_the_pass_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "x.reproducer.yqc"
    failure("liar", net(), Verify(), Reproducer(path))

    @dataclass(frozen=True)
    class Mended(Idle):
        name: ClassVar[str] = "liar"

    assert replay(path, registry(Mended)).startswith(
        "liar works on this graph now: 0 rewrites, 2 skips (it failed with PassError: it declares"
    )


def test_replay_does_not_ask_for_the_passes_before(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Late(Crash):
        name: ClassVar[str] = "late"
        requires: ClassVar[Words] = frozenset({"calibrated"})

    path, kinds = tmp_path / "x.reproducer.yqc", registry(Fold, Calibrate, Late)
    with pytest.raises(PassError):
        Pipeline.parse("fold,calibrate,late", kinds).run(net(), Context(), [Reproducer(path)])
    with pytest.raises(PassError, match="pass 1 of 1, late: ZeroDivisionError"):
        replay(path, kinds)


def test_replay_refuses_what_is_no_reproducer(tmp_path: Path) -> None:
    path = tmp_path / "a.yqc"
    with pytest.raises(CheckpointError, match=r"there is no file .*a\.yqc"):
        replay(path, ALL)
    save_graph(net(), path, {"kind": "model"})
    with pytest.raises(CheckpointError, match=r"a\.yqc is no reproducer"):
        replay(path, ALL)
    path.write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="it is damaged"):
        replay(path, ALL)


def test_a_reproducer_that_cannot_be_written_does_not_hide_the_failure(tmp_path: Path) -> None:
    error = failure("crash", net(), Reproducer(tmp_path / "absent" / "x.yqc"))
    assert "a channel without weights; no reproducer was written (cannot write" in str(error)
