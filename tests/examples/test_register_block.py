"""The example of a block: a checkpoint that holds it is refused, and compiles with the file."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import yqc.models.register as table
from tests.command import Done, Run

EXAMPLE = Path(__file__).parents[2] / "examples" / "register_block.py"
SPEC = {
    "backbone": [[-1, 1, "Conv", [8, 3, 2]] for _ in range(5)],
    "head": [[[2, 3, 4], 1, "Detect", ["nc"]]],
}
X = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))


class Original(nn.Module):
    """The block as its own package would compute it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(8, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.act = nn.SiLU()
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.gain = 1.5
        self.pickle_as = "acme.blocks.SEConv"

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        y = y / (1 + torch.exp(-y))
        pooled = torch.nn.functional.adaptive_avg_pool2d(y, 1)
        logits = self.excite(torch.clamp(self.squeeze(pooled), min=0))
        return y * 1.5 / (1 + torch.exp(-logits))  # type: ignore[no-any-return]


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `yqc` as a process of its own would, with no block registered before."""

    def fresh(*arguments: object) -> Done:
        monkeypatch.setattr(table, "_registered", {})
        return run(*arguments)

    return fresh


@pytest.fixture
def unknown(tmp_path: Path, checkpoints: ModuleType) -> tuple[Path, Tensor]:
    """A checkpoint with two blocks of another package, and what its detector gives for `X`."""
    detector = checkpoints.make(SPEC)
    for i in (1, 3):
        detector.model[i] = Original()
    checkpoints.randomise(detector)
    detector.eval()
    with torch.no_grad():
        want = detector(X)
    path = tmp_path / "best.pt"
    named = {"yaml_file": "yolov8n.yaml", "args": {"imgsz": 64}}
    checkpoints.save(path, detector, "ultralytics", names=["a", "b", "c"], **named)
    return path, want


LINES = """\
    import torch, yqc
    class SEConvTwin(torch.nn.Module):
        def forward(self, x): ...  # weights and settings come by name
    yqc.register_block("acme.blocks.SEConv", SEConvTwin)
"""


def test_is_refused_with_the_lines_and_compiles_with_the_file(
    unknown: tuple[Path, Tensor], run: Run, tmp_path: Path
) -> None:
    path, want = unknown
    output = tmp_path / "x.onnx"
    asked = ("compile", path, "--passes", "fuse", "--imgsz", "64,96", "--no-eval", "-q")
    code, out, err = run(*asked, "-o", output)
    assert (code, out) == (1, "")
    assert err.startswith(
        f"yqc: {path}: model.1 is a acme.blocks.SEConv, for which yqc has no twin"
    )
    assert err.endswith(f"in a file for --load:\n{LINES}")
    assert not output.exists()

    assert run(*asked, "-o", output, "--load", EXAMPLE) == (0, "", "")
    session = ort.InferenceSession(output, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"images": X.numpy()})
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-4, atol=1e-3)
    assert not any(name.partition(".")[0] == "acme" for name in sys.modules)


def test_inspect_names_it_and_with_the_file_knows_it(
    unknown: tuple[Path, Tensor], run: Run
) -> None:
    path, _ = unknown
    code, out, err = run("inspect", path)
    assert (code, err) == (0, "")
    lines = [line.split(maxsplit=1) for line in out.splitlines() if line and line[0] != " "]
    rows = {name: " ".join(rest) for name, *rest in lines}
    assert rows["unknown"] == "acme.blocks.SEConv"
    assert rows["model"] == "yolov8n, ultralytics"
    assert rows["strides"] == "8, 16, 32"
    assert "2 SEConv" in rows["blocks"]
    assert not {"parameters", "MACs", "output"} & rows.keys()
    assert out.endswith(LINES)
    known: dict[str, Any] = json.loads(run("inspect", path, "--json", "--load", EXAMPLE)[1])
    found: dict[str, Any] = json.loads(run("inspect", path, "--json")[1])
    assert (known["unknown"], known["advice"]) == ([], None)
    assert known["params"] > 0
    assert known["macs"] > 0
    assert found["unknown"] == ["acme.blocks.SEConv"]
    assert "register_block" in found["advice"]
    assert [found[key] for key in ("params", "macs", "output")] == [None] * 3
    same = ("sha256", "bytes", "family", "name", "task", "names", "strides", "imgsz", "blocks")
    assert [found[key] for key in same] == [known[key] for key in same]


def test_evaluates_with_the_file(
    tmp_path: Path, run: Run, checkpoints: ModuleType, data: Path
) -> None:
    detector = checkpoints.make(SPEC, nc=6)
    detector.model[1] = Original()
    path = checkpoints.save(tmp_path / "m.pt", detector, "ultralytics", args={"imgsz": 64})
    asked = ("eval", path, "--data", data, "--json", "-q")
    code, _, err = run(*asked)
    assert code == 1
    assert err.endswith(LINES)
    code, out, err = run(*asked, "--load", EXAMPLE)
    assert (code, err) == (0, "")
    assert json.loads(out)["images"] == 3
