"""A store of results: bytes under keys, in one folder, safe under kills and many processes.

An entry is one file, named by the SHA-256 of its kind and key:

    yqc-store 1                                          the form
    {"kind": ..., "key": {...}, "size": ..., "sha256": ...}     of the content behind this line
    content

A key holds everything that decides the result, so an entry is never out of date: what was computed
from something else, or by another version, has another name. An entry is written to another name,
flushed and moved in place, so it is whole or not there; a flipped bit is found by its hash.
"""

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from yqc.store.folders import MARKER, is_marked, mark

FORM = b"yqc-store 1\n"
SUFFIX, PARTIAL = ".entry", ".partial"
BOUND = 5_000_000_000
"""Bytes of all entries. A nano detector and 5000 images take 50 MB, an interrupted compile of it
some 100 MB; half of the bound forgets earlier, double takes more of a disk."""
LEFT = 3600.0
"""Seconds after which a file that is still partial was left by a kill. Half of it could meet a slow
disk; double keeps it longer."""


@dataclass(frozen=True)
class Entry:
    """What a store holds under one key, without its content."""

    path: Path
    kind: str
    key: dict[str, Any]
    bytes: int
    used: float
    """When it was last read or written, in seconds since 1970."""


class Store:
    """Keeps results of long work between runs.

    Used by:
        `float`  the float model as an ONNX file (`yqc.job.baseline`)
        `boxes`  what the float model finds in images: those of the evaluation
                 (`yqc.job.baseline`), those that agreement is judged on (`yqc.job.judge`)
        `stage`  the graph behind passes that took long, which any compile that begins with them
                 starts from (`yqc.pipeline.resume`)
        `work`   what an interrupted compile goes on with within a pass (`yqc.job.work`,
                 `Context.cache`)

    Args:
        folder: where; made on first use. One that is there and not empty must have yqc's marker.
        bound: bytes of all entries; the least recently used go first.
    """

    def __init__(self, folder: Path, bound: int = BOUND) -> None:
        self.folder, self.bound = folder, bound
        self.trouble = ""
        """Why something could not be kept or read, a sentence; empty if all went well."""

    def get(self, kind: str, key: Mapping[str, Any]) -> bytes | None:
        """Return what is kept under a key; None if there is nothing, or it is damaged."""
        path = self._path(kind, key)
        try:
            if not is_marked(self.folder) or path.is_symlink() or not path.is_file():
                return None
            _, content = read_entry(path)
            with contextlib.suppress(OSError):  # a store that cannot be written can be read
                os.utime(path)
        except FileNotFoundError:  # another process has just removed it
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            self.trouble = f"{path} is damaged and left aside ({error})"
            return None
        return content

    def put(self, kind: str, key: Mapping[str, Any], content: bytes) -> bool:
        """Keep bytes under a key; return whether that was possible, else say why in `trouble`."""
        about = {"kind": kind, "key": dict(key), "size": len(content)}
        about["sha256"] = hashlib.sha256(content).hexdigest()
        head = FORM + json.dumps(about, sort_keys=True).encode() + b"\n"
        if len(head) + len(content) > self.bound:
            return False
        partial = None
        try:
            self.open()
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=PARTIAL, delete=False) as file:
                partial = Path(file.name)
                file.write(head)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path(kind, key))
        except OSError as error:
            self.trouble = f"nothing can be kept in {self.folder} ({error.strerror or error})"
            if partial is not None:
                with contextlib.suppress(OSError):
                    partial.unlink()
            return False
        self.trim()
        return True

    def drop(self, kind: str, key: Mapping[str, Any]) -> None:
        """Remove what is kept under a key, if anything is."""
        with contextlib.suppress(OSError):
            if is_marked(self.folder):
                self._path(kind, key).unlink()

    def open(self) -> None:
        """Make the folder.

        Raises:
            OSError: that is not possible, or it is there and somebody else's.
        """
        if is_marked(self.folder):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if not all(path.name.startswith(MARKER) for path in self.folder.iterdir()):
            raise FileExistsError(0, "it holds files that are not yqc's")
        mark(self.folder)

    def entries(self) -> list[Entry]:
        """List the entries, the least recently used first; what is no entry is left out."""
        return sorted(self._entries(), key=lambda entry: entry.used)

    def _entries(self) -> Iterator[Entry]:
        if not is_marked(self.folder):
            return
        for path in self.folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                if path.is_symlink() or not path.is_file():
                    continue
                status, about = path.stat(), read_head(path)
                kind, key = str(about["kind"]), dict(about["key"])
                if entry_name(kind, key) == path.name:
                    yield Entry(path, kind, key, status.st_size, status.st_mtime)

    def damaged(self) -> list[Path]:
        """List the files named as entries that are damaged or of another form; read all of them."""
        found = []
        for path in sorted(self.folder.glob(f"*{SUFFIX}")) if is_marked(self.folder) else ():
            try:
                read_entry(path)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, TypeError, KeyError):
                found.append(path)
        return found

    def trim(self, bound: int | None = None) -> int:
        """Remove the least recently used entries beyond the bound; return the bytes removed.

        Partial files that a killed process has left go, too. Nothing is done while another process
        does it.
        """
        bound, removed = self.bound if bound is None else bound, 0
        if not is_marked(self.folder):
            return 0
        try:
            with FileLock(self.folder / "lock", timeout=0):
                for path in self.folder.glob(f"*{PARTIAL}"):
                    with contextlib.suppress(OSError):
                        if time.time() - path.stat().st_mtime > LEFT:
                            path.unlink()
                files = []
                for path in self.folder.glob(f"*{SUFFIX}"):
                    with contextlib.suppress(OSError):
                        status = path.stat()
                        files.append((status.st_mtime, status.st_size, path))
                excess = sum(size for _, size, _ in files) - bound
                for _, size, path in sorted(files):
                    if excess <= 0:
                        break
                    with contextlib.suppress(OSError):
                        path.unlink()
                        excess, removed = excess - size, removed + size
        except (Timeout, OSError):
            pass
        return removed

    def remove(self) -> None:
        """Remove all entries, and the folder if nothing else is in it."""
        if not is_marked(self.folder):
            return
        for pattern in (f"*{SUFFIX}", f"*{PARTIAL}", "lock"):
            for path in self.folder.glob(pattern):
                with contextlib.suppress(OSError):
                    path.unlink()
        if {path.name for path in self.folder.iterdir()} == {MARKER}:
            with contextlib.suppress(OSError):
                (self.folder / MARKER).unlink()
                self.folder.rmdir()

    def _path(self, kind: str, key: Mapping[str, Any]) -> Path:
        return self.folder / entry_name(kind, key)


def entry_name(kind: str, key: Mapping[str, Any]) -> str:
    """Return the name of an entry's file."""
    text = json.dumps([kind, dict(key)], sort_keys=True)
    return f"{hashlib.sha256(text.encode()).hexdigest()}{SUFFIX}"


def read_head(path: Path) -> dict[str, Any]:
    """Return what the first lines of an entry say; a ValueError if it is none."""
    with path.open("rb") as file:
        if file.readline(len(FORM)) != FORM:
            raise ValueError("it is no entry of this form")
        about = json.loads(file.readline(1 << 24))
        if not isinstance(about, dict):
            raise TypeError("its head is no object")
        about["begin"] = file.tell()
    return about


def read_entry(path: Path) -> tuple[dict[str, Any], bytes]:
    """Return head and content of an entry; a ValueError if they do not fit each other."""
    about = read_head(path)
    with path.open("rb") as file:
        file.seek(about["begin"])
        content = file.read()
    if entry_name(about["kind"], about["key"]) != path.name:
        raise ValueError("it is of another key")
    if hashlib.sha256(content).hexdigest() != about.get("sha256"):
        raise ValueError("its content is not what was written")
    return about, content


def user_store() -> Store:
    """Return the store in the user's cache folder, by the platform's convention.

    `YQC_CACHE_BOUND` gives other bytes than `BOUND`; 0 keeps nothing.
    """
    try:
        bound = max(0, int(os.environ.get("YQC_CACHE_BOUND", "")))
    except ValueError:
        bound = BOUND
    return Store(Path(platformdirs.user_cache_dir("yqc", appauthor=False)), bound)
