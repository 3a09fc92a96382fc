"""Write files so that a failure leaves nothing half-written and no older file destroyed."""

import contextlib
import os
import secrets
from pathlib import Path

import onnx

from yqc.errors import OutputError


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model by `write_file`; the same model always gives the same bytes."""
    write_file(path, model.SerializeToString(deterministic=True))


def write_file(path: Path, data: bytes) -> None:
    """Write a file under a temporary name beside it, then move it in place in one step.

    Raises:
        OutputError: the folder is absent or not writable, the disk is full, or `path` is a folder;
            nothing is left behind, and an older file at `path` is untouched.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; free the place or choose another "
            f"with -o"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a crash, where the system can do that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
