"""A resized graph is what a trace at that size gives, of every family."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, fx, nn

from tests.slow import slow_but
from yqc.emit import emit
from yqc.emit.roundtrip import compare_outputs, open_session, run_session
from yqc.errors import TraceError
from yqc.graph.compare import perturbed
from yqc.graph.resizing import find_difference, resize_graph, trial_size
from yqc.models.load import LoadedModel, load
from yqc.models.source import why_fixed
from yqc.models.trace import trace

SPECS: Mapping[str, Any] = yaml.safe_load(
    (Path(__file__).parents[1] / "models" / "specs.yaml").read_text(encoding="utf-8")
)
SIZES = (4, 4), (2, 3), (5, 3)
"""In largest strides; not square but the traced one."""
GOLDEN = ("yolov5n", "yolov7-tiny", "yolov8n", "yolo12n", "yolo26n")
"""One of each kind of head and decoding."""


QUICK = ("yolov5", "yolov7-tiny", "yolov8", "yolov10", "yolo11-pose")
FIXED = {"ultralytics-rare"}
"""Families whose attention (AIFI) stores the position of every pixel of its map."""


@pytest.mark.parametrize("name", FIXED)
def test_a_net_that_stores_positions_is_refused(
    name: str, tmp_path: Path, checkpoints: ModuleType
) -> None:
    path = checkpoints.save(
        tmp_path / "x.pt", checkpoints.make(SPECS[name]).half(), SPECS[name]["project"]
    )
    with pytest.raises(TraceError, match="it stores a number for each position of a map"):
        resized(load(path))


@pytest.mark.parametrize("name", slow_but(sorted({*SPECS} - FIXED), *QUICK))
def test_every_family(name: str, tmp_path: Path, checkpoints: ModuleType) -> None:
    detector = checkpoints.make(SPECS[name])
    path = checkpoints.save(tmp_path / "x.pt", detector.half(), SPECS[name]["project"])
    traced, other = resized(load(path))
    assert find_difference(other, traced) is None


def resized(loaded: LoadedModel, side: int = 4) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Trace a model at another size than `side` strides; and resize its graph to that."""
    step = max(map(int, loaded.strides))
    gm = trace(loaded.module, torch.zeros(1, loaded.channels, side * step, side * step))
    size = trial_size(gm, step)
    return trace(loaded.module, torch.zeros(1, loaded.channels, *size)), resize_graph(gm, size)


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_a_file_runs_at_three_sizes(name: str, shared: Path) -> None:
    loaded = load(shared / "golden" / f"{name}.pt")
    step, channels = max(map(int, loaded.strides)), loaded.channels
    gm = trace(loaded.module, torch.zeros(1, channels, 4 * step, 4 * step))
    traced, other = resized(loaded)
    assert find_difference(other, traced) is None
    model = emit(gm, dynamic=True, other=other)
    dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", channels, "height", "width"]
    session = open_session(model)
    for high, wide in SIZES:
        shape = (1, channels, high * step, wide * step)
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            own = traced if shape[2:] == trial_size(gm, step) else resize_graph(gm, shape[2:])
            want, rounded = [own(x).numpy()], [perturbed(own)(x).numpy()]
        noise = compare_outputs(want, rounded, loaded.form)  # these nets amplify rounding
        found = compare_outputs(want, run_session(session, [x.numpy()]), loaded.form)
        assert found.boxes <= max(1e-3, 8 * noise.boxes)
        assert found.scores <= max(1e-3, 8 * noise.scores)


class Positions(nn.Module):
    """A convolution to which a table of positions, or a number of cells, is added."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv, self.kind = nn.Conv2d(3, 4, 3, 2, 1), kind
        self.table = nn.Parameter(torch.rand(4, 32, 32))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if self.kind == "table":
            return y + self.table
        if self.kind == "count":
            return y / y.shape[-1]
        if self.kind == "linear":
            return y.flatten(1) @ self.table.flatten()[:, None]
        return y


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("table", "stores a number for each position"),
        ("count", "node truediv depends on the traced size"),
        ("linear", "does not fit another size"),
        ("none", ""),
    ],
)
def test_what_is_fixed_to_its_size_is_named(kind: str, reason: str) -> None:
    module = Positions(kind).eval()
    gm = trace(module, torch.zeros(1, 3, 64, 64))
    said = why_fixed(gm, (), module)
    assert (reason in said) if reason else not said


def test_an_end_to_end_head_is_traced_large_enough(tmp_path: Path, checkpoints: ModuleType) -> None:
    path = checkpoints.save(tmp_path / "x.pt", checkpoints.make(SPECS["yolov10"]), "ultralytics")
    gm = trace(load(path).module, torch.zeros(1, 3, 64, 64))
    with pytest.raises(TraceError, match="it picks all 84 positions; trace at a larger size"):
        resize_graph(gm, (96, 64))
