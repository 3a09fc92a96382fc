"""Locks on folders that a running process works in, so that other compiles leave them alone.

A lock is a file in the folder, locked by the operating system until the process ends, however that
ends. Within one process a folder's lock is shared.
"""

import shutil
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

NAME = "lock"
"""Name of the lock file in a folder."""


def lock_folder(folder: Path) -> BaseFileLock | None:
    """Lock a folder for this process, or return None if another process has it.

    Raises:
        FileNotFoundError: there is no such folder, or no longer.
    """
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    lock = FileLock(folder / NAME, is_singleton=True, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    if not (folder / NAME).is_file():  # another process removed the folder in between
        lock.release(force=True)
        raise FileNotFoundError(folder)
    return lock


def remove_unlocked(folder: Path) -> None:
    """Remove a folder, unless any process, this one included, works in it."""
    try:
        lock = lock_folder(folder)
    except OSError:  # it is gone
        return
    if lock is None:
        return
    if lock.lock_counter == 1:  # this process did not have it before
        shutil.rmtree(folder, ignore_errors=True)
    lock.release()
