"""Folders that yqc may write into and remove: only those with its marker inside.

The marker is a `CACHEDIR.TAG` (https://bford.info/cachedir/), which backup programs know, with a
line that names yqc. A folder of the same name that somebody else made is never touched.
"""

import os
import shutil
import tempfile
from pathlib import Path

from filelock import BaseFileLock

from yqc.errors import OutputError
from yqc.store.locks import NAME as LOCK
from yqc.store.locks import lock_folder

MARKER = "CACHEDIR.TAG"
SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55"
"""First line of every such file, by its specification."""
TEXT = f"{SIGNATURE}\n# This folder was made by yqc; what is in it may be removed at any time.\n"

KEEPS_OPEN = os.name == "nt"
"""Whether the system keeps files that are open, as a lock's is, when their folder is removed."""


def is_marked(folder: Path) -> bool:
    """Return whether a folder has yqc's marker."""
    marker = folder / MARKER
    try:
        if not marker.is_file() or marker.is_symlink():
            return False
        with marker.open("rb") as file:
            return file.read(len(TEXT) + 1) == TEXT.encode()
    except OSError:
        return False


def mark(folder: Path) -> None:
    """Put the marker into a folder, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f"{MARKER}.", delete=False) as file:
        file.write(TEXT.encode())
    Path(file.name).replace(folder / MARKER)


def check_work_folder(folder: Path, inner: str) -> Path:
    """Return a folder that may be written to: none yet, an empty one, or one of earlier work.

    Args:
        folder: the folder of results.
        inner: the name of the marked folder in it, which says that it is of earlier work.

    Raises:
        OutputError: it holds something else, or is no folder.
    """
    if folder.is_dir():
        if any(folder.iterdir()) and not is_marked(folder / inner):
            raise OutputError(f"{folder} holds something else; choose another folder with -o")
    elif folder.exists() or folder.is_symlink():
        raise OutputError(f"{folder} is no folder; choose another one with -o")
    elif not folder.absolute().parent.is_dir():
        raise OutputError(f"there is no folder {folder.parent}; make it first")
    return folder


def open_work_folder(output: Path, inner: str, *, resume: bool) -> Path:
    """Make a folder of results and the marked one in it; unless `resume`, an older one goes.

    Returns:
        The marked folder.

    Raises:
        OutputError: that is not possible.
    """
    folder = output / inner
    try:
        if is_marked(folder) and not resume:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not is_marked(folder):
            mark(folder)
        for left in output.glob(".partial-*"):  # of work that was killed
            shutil.rmtree(left, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror}") from error
    return folder


def make_temporary(prefix: str, parent: Path) -> tuple[Path, BaseFileLock]:
    """Make a marked folder that no other process removes while this one runs.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        try:
            lock = lock_folder(folder)
            mark(folder)
        except FileNotFoundError:  # another process took it for one that was left, still empty
            if not parent.is_dir():
                raise
            continue
        if lock is not None:
            return folder, lock


def remove_left(folder: Path) -> None:
    """Remove what a killed process has left of `make_temporary`; nothing else, and never in use."""
    if folder.is_symlink() or not folder.is_dir():
        return
    try:
        if not (is_marked(folder) or _holds_nothing(folder)):
            return
        lock = lock_folder(folder)
    except OSError:  # it is gone
        return
    if lock is None:
        return
    if lock.lock_counter == 1:  # this process did not have it before
        remove_locked(folder, lock)
    else:
        lock.release()


def remove_locked(folder: Path, lock: BaseFileLock) -> None:
    """Remove a folder of `make_temporary`, and give its lock back."""
    shutil.rmtree(folder, ignore_errors=True)
    lock.release(force=True)
    if KEEPS_OPEN:  # elsewhere a folder of that name is another process's by now
        shutil.rmtree(folder, ignore_errors=True)


def _holds_nothing(folder: Path) -> bool:
    """Return whether a process was killed before it had marked a folder of its own."""
    return all(path.name == LOCK or path.name.startswith(MARKER) for path in folder.iterdir())
