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
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from yqc.errors import OutputError
from yqc.store.folders import MARKER, make_temporary, remove_left, remove_locked
from yqc.store.locks import NAME as LOCK

STAGED = "x.onnx"
"""Name of the ONNX file until it is moved; runtimes open no file whose name is no UTF-8."""
OLDER = ".older"
"""Ending of the copies of older files while new ones are moved in their place."""


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
        """The store of what an interrupted compile goes on with, where `--resume` asks for it."""
        return self.beside(".cache")

    def beside(self, suffix: str) -> Path:
        """Return the path with the stem of the ONNX file and another suffix."""
        return self.onnx.with_name(self.onnx.stem + suffix)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that a compile may write."""
        return (
            *(self.onnx, self.report, self.recipe, self.page),
            *(self.exported, self.reproducer),
        )

    def check(self, reads: Iterable[Path] = ()) -> None:
        """Find out before any work whether the files can be written.

        `reads` are the files that the compile reads; none of them may be written over.

        Raises:
            OutputError: the folder does not exist or cannot be written, the name is too long, or
                a folder, a pipe, a device or a file that is read is in the way.
        """
        if self.onnx.suffix != ".onnx":
            raise OutputError(f"the output {self.onnx} must end in .onnx")
        sources = [path for path in reads if os.path.exists(path)]  # noqa: PTH110  # never fails
        for path in self.files:
            _refuse_in_the_way(path, sources)
        folder = self.onnx.parent
        if not os.path.isdir(folder):  # noqa: PTH112  # False for a name that no folder can have
            raise OutputError(
                f"cannot write {self.onnx}: there is no folder {folder}; make it first"
            )
        longest = max((path.name for path in self.files), key=lambda name: len(os.fsencode(name)))
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OutputError(
                f"cannot write into {folder}: {error.strerror}; choose another place with -o"
            ) from error
        try:
            with tempfile.TemporaryDirectory(prefix=self._prefix, dir=folder) as trial:
                Path(trial, longest + OLDER).touch()
        except OSError as error:
            raise OutputError(
                f"cannot write {self.onnx}: {error.strerror}; choose another name with -o"
            ) from error

    @property
    def _prefix(self) -> str:
        """How the names of the folders begin that the files are written in."""
        return f".{self.onnx.stem}.partial-"

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
        for left in self.onnx.parent.glob(f"{glob.escape(self._prefix)}*"):
            remove_left(left)
        try:
            folder, lock = make_temporary(self._prefix, self.onnx.parent)
        except OSError as error:
            raise OutputError(f"cannot write into {self.onnx.parent}: {error.strerror}") from error
        try:
            stage = Outputs(folder / STAGED)
            yield stage
            written = [path for path in folder.iterdir() if path.name not in {LOCK, MARKER}]
            with _one_at_a_time(self.onnx):
                moves = [(p, self.beside(p.name.removeprefix(stage.onnx.stem))) for p in written]
                stale = self._stale({target.name for _, target in moves})
                _move(sorted(moves, key=lambda move: move[0] == stage.onnx))
                for path in stale:
                    path.unlink()
        except OSError as error:
            raise OutputError(
                f"cannot write {self.onnx}: {error.strerror or error}; older files are untouched"
            ) from error
        finally:
            remove_locked(folder, lock)


@contextmanager
def _one_at_a_time(output: Path) -> Iterator[None]:
    """Let one process of this machine move files to an output, so that sets are not mixed."""
    user = os.getuid() if hasattr(os, "getuid") else 0  # a container's user may have no name
    name = hashlib.sha256(os.fsencode(output.resolve())).hexdigest()
    with FileLock(Path(tempfile.gettempdir()) / f"yqc-{user}-{name[:32]}.lock"):
        yield


def _move(moves: Sequence[tuple[Path, Path]]) -> None:
    """Move files to their targets; if one cannot be moved, put back what the others replaced."""
    older = [file.with_name(file.name + OLDER) for file, _ in moves]
    for (_, target), kept in zip(moves, older, strict=True):
        if target.exists():
            shutil.copy2(target, kept)
    try:
        for file, target in moves:
            move_flushed(file, target)
    except OSError:
        for (file, target), kept in zip(moves, older, strict=True):
            if kept.exists():
                kept.replace(target)
            elif not file.exists():
                target.unlink()
        raise


def _refuse_in_the_way(path: Path, sources: Sequence[Path]) -> None:
    """Raise an OutputError if a file cannot be written because of what bears its name."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise OutputError(f"cannot write {path}: {why}; choose another name with -o") from error
    if stat.S_ISDIR(mode):
        raise OutputError(f"cannot write {path}: a folder of that name is in the way")
    if not stat.S_ISREG(mode):
        raise OutputError(f"cannot write {path}: a pipe, socket or device is in the way")
    if any(os.path.samefile(path, source) for source in sources):  # noqa: PTH121  # text, too
        raise OutputError(f"cannot write {path}: this compile reads it; choose another -o")


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
