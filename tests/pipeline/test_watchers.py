"""Watchers that print and keep the graph after every pass."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import fx, nn

from yqc import Context, Pass, Pipeline, calls, text, trace
from yqc.errors import OutputError
from yqc.graph.serial import load_graph, load_original
from yqc.pipeline.watchers import PrintGraph, Snapshots

X = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Act(Pass):
    """Replace the activation."""

    name: ClassVar[str] = "act"

    slope: float = 0.25

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        for each in calls(gm, nn.SiLU):
            gm.set_submodule(each.target, nn.LeakyReLU(self.slope))
            ctx.rewrote(each.node, "LeakyReLU")


def net() -> fx.GraphModule:
    torch.manual_seed(1)
    return trace(nn.Sequential(nn.Conv2d(3, 2, 3), nn.SiLU()), X)


BEFORE = """\
%input_1: f32[1,3,6,6] = input
%_0: f32[1,2,4,4] = Conv2d(%input_1)
%_1: f32[1,2,4,4] = SiLU(%_0)
return %_1
"""
AFTER = BEFORE.replace("SiLU", "LeakyReLU")


def printed(after: list[str], before: list[str]) -> list[str]:
    written: list[str] = []
    watcher = PrintGraph(after, before, written.append)
    Pipeline((Act(), Act(0.5))).run(net(), Context(), [watcher])
    return written


@pytest.mark.parametrize("names", [["act"], ["all"], ["dce", "act"]])
def test_prints_a_graph_after_the_passes_that_changed_it(names: list[str]) -> None:
    assert printed(names, []) == [
        f"# after 1 act\n{AFTER}",
        "# after 2 act{slope=0.5}: unchanged\n",
    ]


def test_prints_a_graph_before_passes() -> None:
    assert printed([], ["act"]) == [
        f"# before 1 act\n{BEFORE}",
        f"# before 2 act{{slope=0.5}}\n{AFTER}",
    ]


@pytest.mark.parametrize("names", [[], [""], ["dce"]])
def test_prints_nothing_that_was_not_asked_for(names: list[str]) -> None:
    assert printed(names, names) == []


def test_keeps_the_graph_of_every_stage(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "temps"
    gm = net()
    traced = text(gm)
    Pipeline((Act(), Act(0.5))).run(gm, Context(), [Snapshots(folder)])
    assert sorted(p.name for p in folder.iterdir()) == [
        *("00-trace.txt", "00-trace.yqc"),
        *("01-act.txt", "01-act.yqc"),
        *("02-act.txt", "02-act.yqc"),
    ]
    assert (folder / "00-trace.txt").read_text() == BEFORE == traced + "\n"
    assert (folder / "01-act.txt").read_text() == AFTER
    first, info, _ = load_graph(folder / "00-trace.yqc")
    assert torch.equal(first(X), net()(X))
    assert (info["kind"], info["steps"]) == ("snapshot", [])
    last, info, _ = load_graph(folder / "02-act.yqc")
    assert torch.equal(last(X), gm(X))
    assert [step["pass"] for step in info["steps"]] == ["act", "act{slope=0.5}"]
    original = load_original(folder / "02-act.yqc")
    assert original is not None
    assert torch.equal(original(X), first(X))


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot make the folder .*file/temps: Not a directory"):
        Pipeline(()).run(net(), Context(), [Snapshots(tmp_path / "file" / "temps")])


def test_a_stage_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "00-trace.txt").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*00-trace\.txt: Is a directory"):
        Pipeline(()).run(net(), Context(), [Snapshots(tmp_path)])


def test_the_example_is_the_contexts_or_noise_of_the_seed() -> None:
    gm = net()
    assert Context(example=X).example_for(gm) is X
    noise = Context(seed=3).example_for(gm)
    assert noise.shape == X.shape
    assert 0 <= noise.min() < noise.max() <= 1
    assert torch.equal(noise, Context(seed=3).example_for(gm))
    assert not torch.equal(noise, Context(seed=4).example_for(gm))
