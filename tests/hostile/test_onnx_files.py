"""Malformed and malicious ONNX files through every command that reads one."""

import os
from pathlib import Path

import onnx
import pytest

from tests.hostile.conftest import Bounded
from tests.hostile.onnx_files import BYTES, MODELS, endless, model
from yqc.evaluation import runner

pytestmark = pytest.mark.slow

SOUND = {
    "input-zero", "input-scalar", "input-no-shape", "input-string", "input-sequence", "inputs-two",
    "output-string", "constant-sparse", "initializer-nan", "no-inputs", "value-unknown",
    "metadata-nested", "metadata-nonsense", "metadata-size-huge", "names-strange", "if-nested-20",
    "quantize-scale-0", "quantize-scale-empty", "conv-group-0", "if-nested-deep",
    "initializer-twice", "makes-much-expand", "makes-much-tile",
}  # fmt: skip
"""Files that a runtime opens; most are no detectors."""


@pytest.fixture(params=[*MODELS, *BYTES])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hostile(tmp_path: Path, name: str) -> Path:
    """A file beside a pipe and a link to a device, which its weights may name."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link-to-zero").symlink_to("/dev/zero")
    path = tmp_path / "hostile.onnx"
    made = MODELS[name]().SerializeToString() if name in MODELS else BYTES[name]()
    path.write_bytes(made)
    return path


def test_every_command_ends_well(bounded: Bounded, hostile: Path, name: str, data: Path) -> None:
    sound = hostile.with_name("sound.onnx")
    onnx.save(model(), sound)
    for target in ("onnxruntime", "openvino", "tensorrt", "portable"):
        done = bounded("lint", hostile, "--target", target)
        if name not in SOUND and target in {"onnxruntime", "portable"}:
            assert done.code == 1, (target, done)
    assert bounded("inspect", hostile).code in {0, 1}
    assert bounded("inspect", hostile, "--as", "text").code in {0, 1}
    assert bounded("diff", sound, hostile, "--params").code in {0, 1}
    assert bounded("bench", hostile, "--runs", 1, "--nodes", "-q").code in {0, 1}
    assert bounded("eval", hostile, "--data", data, "-q").code in {0, 1}
    assert bounded("compile", hostile, "--passes", "dce").code == 1


def test_a_run_without_end_is_given_up(
    bounded: Bounded, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LONGEST_RUN", 0.2)
    path = tmp_path / "endless.onnx"
    onnx.save(endless(), path)
    assert bounded("lint", path).code == 0
    for command in (("bench", path, "--nodes", "-q"), ("eval", path, "--data", data, "-q")):
        done = bounded(*command)
        assert done.code == 1
        assert "does not run at 32x32" in done.err
