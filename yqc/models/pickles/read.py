"""Read a checkpoint file without running anything of it.

A `.pt` file is a pickle, and a pickle is a program. Its opcodes are read first, and a class or
function that is not on the allow-list stops everything there. What is left runs on a machine of our
own that makes tensors, plain containers and `Inert` objects, and imports nothing the file names.
"""

import hashlib
import os
import tarfile
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import Any

from yqc.errors import CheckpointError
from yqc.models.pickles import bounds, legacy
from yqc.models.pickles.globals import Gate
from yqc.models.pickles.machine import Machine
from yqc.models.pickles.scan import scan
from yqc.models.pickles.tensors import Storages
from yqc.models.pickles.values import Allowance, Inert, MalformedError, Named, shown
from yqc.models.pickles.zip import Archive

__all__ = ["Inert", "Named", "read_checkpoint", "read_with_sha256", "shown"]

_ELEMENTS_PER_BYTE = 4
"""Elements of tensors allowed for a byte of the file. Storages are shared by several tensors (model
and average, views); half would refuse float16 files with tied weights, double only allows more."""


_DAMAGES = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError)
"""What a damaged file raises where nothing else says what is wrong."""


def read_checkpoint(path: Path, known: Callable[[str], bool]) -> Any:  # noqa: ANN401  # data
    """Read a checkpoint as `read_with_sha256` does, without the hash."""
    return read_with_sha256(path, known)[0]


def read_with_sha256(
    path: Path, known: Callable[[str], bool], inert: Callable[[str], bool] = lambda _: False
) -> tuple[Any, str]:
    """Read the object that a checkpoint file holds, as data, and hash the bytes that were read.

    Both forms of torch.save are read: zip, and the row of pickles from before PyTorch 1.6.
    Containers are Python's own (an OrderedDict is a dict, a deque a list, a torch.Size a tuple, a
    path a str), numpy scalars are Python's numbers, tensors and parameters are torch's, on the CPU,
    in the element type of the file, and share storages as they did. Every other object is an
    `Inert`, every class that stands for itself a `Named`. The result contains no cycle, is at most
    200 levels deep, and may be walked recursively.

    Args:
        path: the file.
        known: says of a class path ("models.common.Conv") whether yqc has a twin for it.
        inert: says of another one whether objects of it may be read as data.

    Returns:
        The object, and the file's SHA-256 as 64 hexadecimal digits.

    Raises:
        ForbiddenGlobalError: the pickle names what is neither allowed nor known; nothing ran.
        CheckpointError: the file is absent, damaged, of another kind, or exceeds an allowance.
    """
    origin = shown(str(path), limit=1000)
    try:
        if path.exists() and not path.is_file():
            raise MalformedError("it is no file; give the checkpoint itself")
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            allowance = Allowance(elements=Allowance.elements + _ELEMENTS_PER_BYTE * before.st_size)
            value = _read(file, Gate(origin, known, inert), allowance)
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            if file_stamp(os.fstat(file.fileno())) != file_stamp(before):
                raise MalformedError("it was written to while it was read; try again")
            return value, sha256
    except MalformedError as why:
        raise CheckpointError(f"{origin}: cannot be read as a checkpoint: {why}") from why
    except OSError as error:
        raise CheckpointError(f"{origin}: cannot be opened: {error.strerror or error}") from error
    except _DAMAGES as error:
        what = f"it is damaged ({type(error).__name__}: {shown(str(error))})"
        raise CheckpointError(f"{origin}: cannot be read as a checkpoint: {what}") from error


def file_stamp(status: os.stat_result) -> tuple[int, int, int]:
    """Return what changes when a file is replaced or written to: inode, size, time in ns."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(file: BufferedReader, gate: Gate, allowance: Allowance) -> object:
    head = file.read(tarfile.BLOCKSIZE)
    file.seek(0)
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        archive = Archive(file)
        script = scan(archive.pickle())
        gate.check(script.globals())
        value = Machine(gate, Storages(archive.storage).load, allowance).run(script.sound())
    elif _begins_like_a_pickle(head, file):
        value = legacy.read_legacy(file, gate, allowance)
    else:
        raise MalformedError(_kind(head))
    bounds.check_bounds(value)
    return value


def _begins_like_a_pickle(head: bytes, file: BufferedReader) -> bool:
    """Whether it is a pickle: from protocol 2 on by its first byte, else by scanning it."""
    if head.startswith(b"\x80"):
        return True
    short = file.read(1 << 20)
    file.seek(0)
    return bool(head) and scan(short).flaw is None


def _kind(head: bytes) -> str:
    """Describe a file that begins neither as a zip archive nor as a pickle."""
    if not head:
        return "it is empty"
    if head[257:262] == b"ustar":
        return "it is of PyTorch's first, tar form; load and save it again with a newer PyTorch"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; fetch the file itself with git lfs pull"
    if head.lstrip()[:1] == b"<":
        return "it is a web page, so the download went wrong; fetch it again"
    if head.isascii():
        return "it is text"
    return "it is neither a zip archive nor a pickle, so torch.save did not write it"
