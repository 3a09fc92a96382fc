"""Writing files: whole or not at all."""

import errno
import io
import os
from pathlib import Path
from typing import Any, Never

import onnx
import pytest
from onnx import TensorProto, helper

from yqc.emit import save, write_file
from yqc.errors import OutputError


def tiny() -> onnx.ModelProto:
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", info[:1], info[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_saves_a_model_that_loads_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save(tiny(), path)
    assert onnx.load(path) == tiny()
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_has_the_usual_permissions(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    write_file(tmp_path / "file", b"x")
    assert (tmp_path / "file").stat().st_mode == plain.stat().st_mode


def test_replaces_an_older_file_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_file(path, b"new")
        assert reader.read() == b"old"  # Whoever has it open keeps it.
    assert path.read_bytes() == b"new"


class Full(io.FileIO):
    """A disk that is full after two bytes."""

    def write(self, data: Any) -> Never:
        super().write(bytes(data)[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("fault", ["write", "fsync", "replace"])
def test_a_write_that_fails_half_way_keeps_the_old_file(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def fails(*_: object) -> Never:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if fault == "write":
        monkeypatch.setattr(Path, "open", lambda self, mode: Full(self, mode.rstrip("b")))
    elif fault == "fsync":
        monkeypatch.setattr(os, "fsync", fails)
    else:
        monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OutputError, match=rf"cannot write {path}: No space left on device; "):
        save(tiny(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> Never:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(tiny(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_absent_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere/model.onnx: No such file or directory"):
        save(tiny(), tmp_path / "nowhere" / "model.onnx")


def test_a_folder_in_the_place_of_the_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(OutputError, match=r"model.onnx: Is a directory"):
        save(tiny(), tmp_path / "model.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
