"""The whole job from Python: what survives a failure."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import yqc
from tests.compiling import SMALL, Plain, outputs
from tests.steps import Crash, Scale
from yqc.errors import (
    CheckpointError,
    DataError,
    EmitError,
    OutputError,
    PassError,
    PipelineError,
    TraceError,
    YqcError,
)
from yqc.graph.serial import load_graph


@pytest.fixture
def older(tmp_path: Path) -> dict[str, bytes]:
    """The outputs of an earlier run, at x.onnx."""
    yqc.compile(Plain(), output=tmp_path / "x.onnx", settings=SMALL)
    return outputs(tmp_path)


@pytest.mark.parametrize(
    ("step", "error", "seen"),
    [
        ("Compiled.emit", EmitError("no form"), EmitError),
        ("save", OSError(28, "No space left on device"), OutputError),
        ("verify_sizes", RuntimeError("broken"), RuntimeError),
        ("make_report", KeyboardInterrupt(), KeyboardInterrupt),
        ("make_page", OSError(5, "Input/output error"), OutputError),
    ],
)
def test_a_failure_at_any_step_leaves_the_older_outputs(  # fixtures
    step: str,
    error: BaseException,
    seen: type[BaseException],
    older: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(f"yqc.compiler.{step}", fail)
    with pytest.raises(seen):
        yqc.compile(Plain(), [Scale()], output=tmp_path / "x.onnx", settings=SMALL)
    assert outputs(tmp_path) == older


@pytest.mark.parametrize(
    ("model", "passes", "settings", "error"),
    [
        (Plain(), "no-such-pass", {}, PipelineError),
        (Path("absent.pt"), "fuse", {}, CheckpointError),
        (Plain(), "fuse", {"imgsz": (1, 1)}, TraceError),
        (Plain(), "fuse", {"imgsz": 16, "opset": 3}, YqcError),
    ],
)
def test_nothing_is_written_on_bad_input(  # fixtures
    model: nn.Module | Path,
    passes: str,
    settings: dict[str, Any],
    error: type[YqcError],
    older: dict[str, bytes],
    tmp_path: Path,
) -> None:
    with pytest.raises(error):
        yqc.compile(model, passes, output=tmp_path / "x.onnx", **settings)
    assert outputs(tmp_path) == older


def test_a_failing_pass_leaves_its_reproducer(older: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "x.reproducer.yqc"
    with pytest.raises(PassError) as caught:
        yqc.compile(Plain(), [Scale(), Crash()], output=tmp_path / "x.onnx", settings=SMALL)
    assert str(caught.value) == (
        "pass 2 of 2, crash: ZeroDivisionError: a channel without weights; "
        f"run it again with: yqc replay {path}"
    )
    found = outputs(tmp_path)
    assert found.pop(path.name)
    assert found == older
    gm, _, more = load_graph(path)
    assert more["example"].shape == (1, 3, 16, 24)
    weight = gm.get_submodule("conv").weight
    torch.testing.assert_close(weight, 2 * Plain().conv.weight)


def test_a_device_that_no_pass_can_use_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no pass here can run on 'cuda'"):
        yqc.compile(checkpoint, "fold-bn", output=tmp_path / "x.onnx", device="cuda")
    assert list(tmp_path.iterdir()) == []


def test_unreadable_calibration_images_are_an_error_that_says_so(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i}.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"^calibration needs at least .* unreadable"):
        yqc.compile(checkpoint, "int8", output=tmp_path / "x.onnx", data=folder)
    assert not list(tmp_path.glob("x.*"))  # refused before the passes: no reproducer, either
