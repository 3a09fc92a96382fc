"""Writing results: a set of files that appears whole, or not at all.

The files are written in a folder of their own beside the output and then moved, each in one step,
the ONNX file last. So a kill at any moment leaves every file whole, and a new ONNX file never
stands beside an older report or recipe; only a kill between two moves can leave a new report beside
an older ONNX file, and the next compile sets that right. What a killed compile has left in its
folder is removed by the next one of the same output; the folder of one that still runs is not.
"""

import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock

from yqc.errors import OutputError
from yqc.job.locks import NAME as LOCK
from yqc.job.locks import lock_folder, remove_unlocked


@dataclass(frozen=True)
class Outputs:
    """The files of one compile, next to each other: `X.onnx`, `X.report.json`, `X.recipe.toml`."""

    onnx: Path

    @property
    def report(self) -> Path:
        """The measured report."""
        return self.beside(".report.json")

    @property
    def page(self) -> Path:
        """The report as an HTML page, where it was not turned off."""
        return self.beside(".report.html")

    @property
    def recipe(self) -> Path:
        """The recipe that makes these files again."""
        return self.beside(".recipe.toml")

    @property
    def reproducer(self) -> Path:
        """What a failing pass leaves behind."""
        return self.beside(".reproducer.yqc")

    @property
    def exported(self) -> Path:
        """The float graph, for `torch.export.load`; written where `--emit` asks for it."""
        return self.beside(".pt2")

    @property
    def cache(self) -> Path:
        """The folder of what an interrupted compile needs to go on."""
        return self.beside(".cache")

    def beside(self, suffix: str) -> Path:
        """Return the path with the stem of the ONNX file and another suffix."""
        return self.onnx.with_name(self.onnx.stem + suffix)

    def check(self) -> None:
        """Find out before any work whether the files can be written.

        Raises:
            OutputError: the folder does not exist or cannot be written, or a folder is in the way.
        """
        folder = self.onnx.parent
        if self.onnx.suffix != ".onnx":
            raise OutputError(f"the output {self.onnx} must end in .onnx")
        if not folder.is_dir():
            raise OutputError(
                f"cannot write {self.onnx}: there is no folder {folder}; make it first"
            )
        for path in (self.onnx, self.report, self.recipe):
            if path.is_dir():
                raise OutputError(f"cannot write {path}: a folder of that name is in the way")
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OutputError(
                f"cannot write into {folder}: {error.strerror}; choose another place with -o"
            ) from error

    def _stale(self, written: set[str]) -> list[Path]:
        """List the files of an earlier compile that the new set does not replace.

        A page counts as yqc's beside a report of yqc's, a saved float graph beside a recipe that
        asks for one; whatever else bears these names is somebody's own.
        """
        page, exported = self.page.name not in written, self.exported.name not in written
        found = [self.page] if page and '"schema": ' in _start(self.report) else []
        asked = any(line.startswith("emit = ") and "pt2" in line for line in _lines(self.recipe))
        found += [self.exported] if exported and asked else []
        return [path for path in found if path.is_file()]

    @contextmanager
    def staged(self) -> Iterator["Outputs"]:
        """Give a place to write the files to, and move them in place when all went well.

        After an error nothing is left behind, and older files are as they were. After a kill the
        place is left behind; it goes the next time.

        Raises:
            OutputError: a file cannot be written or moved.
        """
        prefix = f".{self.onnx.stem}.partial-"
        for left in self.onnx.parent.glob(f"{glob.escape(prefix)}*"):
            remove_unlocked(left)
        try:
            folder, lock = _place(prefix, self.onnx.parent)
        except OSError as error:
            raise OutputError(f"cannot write into {self.onnx.parent}: {error.strerror}") from error
        try:
            stage = Outputs(folder / self.onnx.name)
            yield stage
            written = [path for path in folder.iterdir() if path.name != LOCK]
            with _one_at_a_time(self.onnx):
                stale = self._stale({path.name for path in written})
                _move(sorted(written, key=lambda path: path == stage.onnx), self.onnx.parent)
                for path in stale:
                    path.unlink()
        except OSError as error:
            raise OutputError(
                f"cannot write {self.onnx}: {error.strerror or error}; older files are untouched"
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.release(force=True)


@contextmanager
def _one_at_a_time(output: Path) -> Iterator[None]:
    """Let one process of this machine move files to an output, so that sets are not mixed."""
    user = os.getuid() if hasattr(os, "getuid") else 0  # a container's user may have no name
    name = hashlib.sha256(str(output.resolve()).encode()).hexdigest()
    with FileLock(Path(tempfile.gettempdir()) / f"yqc-{user}-{name[:32]}.lock"):
        yield


def _place(prefix: str, parent: Path) -> tuple[Path, BaseFileLock]:
    """Make a folder that no other process removes."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = lock_folder(folder)
        except FileNotFoundError:  # another compile took it for one that was left
            continue
        if lock is not None:
            return folder, lock


def _move(files: Sequence[Path], place: Path) -> None:
    """Move files into a folder; if one cannot be moved, put back what the others replaced."""
    older = [(place / f.name, f.with_name(f"{f.name}.older")) for f in files]
    for target, kept in older:
        if target.exists():
            shutil.copy2(target, kept)
    try:
        for file in files:
            move_flushed(file, place / file.name)
    except OSError:
        for (target, kept), file in zip(older, files, strict=True):
            if kept.exists():
                kept.replace(target)
            elif not file.exists():
                target.unlink()
        raise


def _start(path: Path) -> str:
    """Return the first characters of a text file, none where it cannot be read."""
    return "\n".join(_lines(path))[:200]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def move_flushed(path: Path, target: Path) -> None:
    """Move a file once its bytes are on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.replace(target)
