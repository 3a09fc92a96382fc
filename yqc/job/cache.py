"""What an interrupted compile needs to go on: files in a folder beside the output.

The folder belongs to one compile: `key.json` in it names the input, the settings, the passes and
the versions. Passes keep tensors and plain values there under names (`Context.cache`), each in one
file that is written to another name, flushed, and moved in place, so a kill at any moment leaves
it whole, or as it was. The folder appears with the first thing that is kept, and goes when the
compile has succeeded. Of two compiles of one output at the same time, the one that came first has
the folder, and the other keeps nothing.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import BaseFileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from yqc.data import Data
from yqc.errors import OutputError
from yqc.job.outputs import move_flushed
from yqc.models.source import Source
from yqc.pipeline.base import Pass
from yqc.settings import SETTINGS, Settings
from yqc.store.locks import NAME as LOCK
from yqc.store.locks import lock_folder
from yqc.version import __version__

KEY = "key.json"
PARTIAL = ".partial"
OTHER = {"passes", "emit"}
"""Settings that are not in the key: the passes are, expanded, and emitting comes afterwards."""


class FolderCache:
    """Keeps tensors and plain values by name, for one compile.

    Args:
        folder: where; it need not exist.
        key: what distinguishes this compile from others; plain values.
        resume: go on with what is there, if it is of the same key. Without it, what another run
            has left is removed.

    Raises:
        OutputError: there is something to go on with, but it belongs to another compile, or to
            one that still runs, or the folder cannot be read or removed.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], *, resume: bool) -> None:
        self.folder = folder
        self._key = json.dumps(dict(key), sort_keys=True, indent=1)
        self._lock = self._locked()
        if self.is_busy:
            if resume:
                raise OutputError(
                    f"{folder} belongs to a compile that is still running; wait for it, or leave "
                    "--resume out"
                )
            return
        found = self._found() if resume else None
        if found is None:  # without a key, files may be of any compile: one was killed in delete()
            self.delete()
        elif found != self._key:
            raise OutputError(
                f"{folder} was left by another compile (it differs in {_difference(found, key)}); "
                "leave --resume out to start anew"
            )

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to go on with."""
        return self.is_busy or self._found() is None

    @property
    def is_busy(self) -> bool:
        """Whether another process has the folder; nothing is kept then."""
        return self._lock is None and self.folder.is_dir() and self._is_own()

    def load(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what was kept under a name, or None if there is nothing, or it is damaged."""
        if self.is_empty:
            return None
        try:
            with safe_open(self._path(name), "pt") as file:
                about = json.loads(file.metadata()["about"])
                return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            return None

    def save(self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Keep tensors and plain values under a name, in place of what was kept before.

        Nothing is kept while another compile has the folder.

        Raises:
            OutputError: the disk is full, or the folder cannot be written.
        """
        if not self._open():
            return
        plain = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        try:
            with self.file(self._path(name).name) as path:
                save_file(plain, path, metadata={"about": json.dumps(dict(about))})
        except SafetensorError as error:
            raise OutputError(f"cannot keep {name} for --resume: {error}") from error

    @contextlib.contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Give a path to write a file to; it gets its name when it is whole.

        Raises:
            OutputError: the disk is full, the folder cannot be written, or another compile has it.
        """
        path = self.folder / name
        if not self._open():
            raise OutputError(f"another compile keeps its results in {self.folder}")
        try:
            partial = path.with_name(path.name + PARTIAL)
            yield partial
            move_flushed(partial, path)
        except OSError as error:
            raise OutputError(f"cannot keep {path} for --resume: {error}") from error

    def found(self, name: str) -> Path | None:
        """Return the path of a file that was kept, or None."""
        path = self.folder / name
        return path if not self.is_empty and path.is_file() else None

    def delete(self) -> None:
        """Remove the folder and everything that was kept."""
        if self.is_busy or not self.folder.is_dir():
            return
        if any(self.folder.iterdir()) and not self._is_own():
            raise OutputError(
                f"{self.folder} is in the way, and no yqc cache; move it, or choose another -o"
            )
        try:
            (self.folder / KEY).unlink(missing_ok=True)  # from here on nobody goes on with it
            shutil.rmtree(self.folder)
        except OSError as error:
            raise OutputError(f"cannot remove {self.folder}: {error.strerror or error}") from error
        if self._lock is not None:
            self._lock.release(force=True)
            self._lock = None

    def _open(self) -> bool:
        """Make the folder and its key unless they are there; return whether they are our own."""
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock = self._lock or lock_folder(self.folder)
            found = self._found()
            if self._lock is not None and found is None:
                partial = self.folder / (KEY + PARTIAL)
                partial.write_text(self._key, encoding="utf-8")
                move_flushed(partial, self.folder / KEY)
        except OSError as error:
            raise OutputError(f"cannot keep anything in {self.folder}: {error}") from error
        return self._lock is not None and found in {None, self._key}

    def _locked(self) -> BaseFileLock | None:
        """Lock the folder if it is there and holds nothing of somebody else's."""
        try:
            return lock_folder(self.folder) if self._is_own() else None
        except FileNotFoundError:
            return None

    def _found(self) -> str | None:
        try:
            return (self.folder / KEY).read_text(encoding="utf-8")
        except OSError:
            return None

    def _is_own(self) -> bool:
        names = {path.name.strip(".").removesuffix(PARTIAL) for path in self.folder.iterdir()}
        return all(name in {KEY, LOCK} or name.endswith((".safetensors", ".yqc")) for name in names)

    def _path(self, name: str) -> Path:
        if not name.replace("-", "").replace("_", "").isalnum() or len(name) > 100:  # noqa: PLR2004
            name = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        return self.folder / f"{name}.safetensors"


def open_cache(
    folder: Path,
    settings: Settings,
    passes: Sequence[Pass],
    source: Source,
    data: Data | None,
    *,
    resume: bool,
) -> FolderCache:
    """Open the cache of one compile; everything that decides its result is in its key.

    Raises:
        OutputError: it belongs to another compile, or cannot be read.
    """
    images = [] if data is None else [*data.train.images]
    key = {
        "input": source.sha256 or source.path,
        "passes": ",".join(map(str, passes)),
        "settings": {name: getattr(settings, name) for name in SETTINGS if name not in OTHER},
        "images": hashlib.sha256("\n".join(map(_stamp, images)).encode()).hexdigest(),
        "versions": {"yqc": __version__, "torch": torch.__version__},
        "threads": torch.get_num_threads(),
    }
    return FolderCache(folder, key, resume=resume)


def _stamp(path: Path) -> str:
    """Return what differs where another file has the same name later."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return f"{path} {status.st_size} {status.st_mtime_ns}"
    return str(path)


def _difference(found: str, key: Mapping[str, Any]) -> str:
    """Name the parts of a key that differ from what was found."""
    try:
        other = dict(json.loads(found))
    except ValueError:
        return "everything"
    now = json.loads(json.dumps(dict(key)))
    names = [k for k in {**other, **now} if other.get(k) != now.get(k)]
    return ", ".join(names) or "everything"
