"""What is checked before any work starts, and what tells one compile's cache from another's."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import fx, nn

import yqc
from yqc.data import Split
from yqc.errors import LoweringError, PipelineError
from yqc.job.checks import check_device, check_images
from yqc.job.inputs import find_data
from yqc.job.judge import FEWEST, judges
from yqc.job.keys import compile_key
from yqc.models.source import open_model
from yqc.pipeline.base import JUDGES
from yqc.settings import Settings

TRAINS = yqc.Pipeline.parse("recover{steps=1}").expand()


def test_a_pass_that_trains_may_use_a_device_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("cpu", "cuda", "cuda:1"):
        check_device(device, TRAINS)
    with pytest.raises(PipelineError, match="there is no device 'cuda:2' here"):
        check_device("cuda:2", TRAINS)


def test_a_device_that_is_absent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PipelineError, match=r"no device 'cuda' here \(0 found by torch\)"):
        check_device("cuda", TRAINS)


def test_a_pass_that_learns_needs_images_before_anything_starts(
    checkpoint: Path, tmp_path: Path
) -> None:
    check_images(Settings(data="data.yaml"), TRAINS)
    with pytest.raises(PipelineError, match="recover learns from images, and none are given"):
        yqc.compile(checkpoint, "fold-bn,recover", output=tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


class Recurrent(nn.Module):
    """Holds two modules without an ONNX form."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.cell, self.pair = (
            nn.Conv2d(3, 4, 3),
            nn.GRUCell(4, 4),
            nn.Bilinear(4, 4, 2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x).mean((2, 3))
        return self.pair(self.cell(y), y)  # type: ignore[no-any-return]


def test_what_cannot_be_written_is_said_before_any_pass_runs(tmp_path: Path) -> None:
    ran: list[str] = []

    class Watch(yqc.Watcher):
        def before(self, *_: object) -> None:
            ran.append("a pass")

    with pytest.raises(LoweringError, match=r"(?s)for nn\.GRUCell at .*without a .*: nn\.Bilinear"):
        yqc.compile(
            *(Recurrent(), "fold-bn"),
            imgsz=(16, 16),
            output=tmp_path / "x.onnx",
            watchers=[Watch()],
        )
    assert (ran, list(tmp_path.iterdir())) == ([], [])


def test_a_pass_of_ones_own_may_replace_what_cannot_be_written(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Drop(yqc.Pass):
        name: ClassVar[str] = "drop"

        def run(self, gm: fx.GraphModule, ctx: yqc.Context) -> None:
            output = gm.graph.output_node()
            mean = next(n for n in gm.graph.nodes if n.target == "mean")
            with gm.graph.inserting_before(output):
                half = gm.graph.call_method("narrow", (mean, 1, 0, 2))
            output.args = (half,)
            gm.graph.eliminate_dead_code()

    result = yqc.compile(
        *(Recurrent(), [Drop()]),
        imgsz=(16, 16),
        output=tmp_path / "x.onnx",
        evaluate=False,
        html=False,
    )
    assert result.files.onnx.is_file()


def test_the_key_of_a_compile_knows_images_that_were_changed(checkpoint: Path, data: Path) -> None:
    settings = Settings(data=str(data))
    source, pipeline = open_model(checkpoint), yqc.Pipeline(TRAINS)

    def key() -> dict[str, object]:
        return compile_key(source, find_data(settings, source), settings, pipeline, TRAINS)

    first = key()
    assert key() == first
    found = find_data(settings, source)
    assert found is not None
    image = found.train.images[0]
    content = image.read_bytes()
    image.write_bytes(content + b"\0")
    assert key() != first
    image.write_bytes(content)
    assert key() == first
    assert compile_key(source, found, replace(settings, emit="onnx,pt2"), pipeline, TRAINS) != first


def test_large_graphs_are_judged_on_fewer_images_and_none_on_more_than_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    split = Split("train", tuple(Path(f"{i}.jpg") for i in range(99)))
    gm = yqc.trace(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 10, 10))  # 100 multiply-accumulates
    counts = []
    for work, asked in ((1e4, 128), (2e3, 128), (1e2, 128), (1e2, 3)):
        monkeypatch.setattr("yqc.job.judge.JUDGED", work)
        counts.append(len(judges(split, Settings(calib_images=asked), gm).images))
    assert counts == [JUDGES, 20, FEWEST, 3]
