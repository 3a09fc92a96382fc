"""Locks on folders that a running process works in, so that other processes leave them alone.

A lock is a file in the folder, locked by the operating system until the process ends, however that
ends. Within one process a folder's lock is shared.
"""

from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

NAME = "lock"
"""Name of the lock file in a folder."""


def lock_folder(folder: Path, name: str = NAME) -> BaseFileLock | None:
    """Lock a folder for this process, or return None if another process has it.

    Raises:
        FileNotFoundError: there is no such folder, or no longer.
    """
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    lock = FileLock(folder / name, is_singleton=True, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    if not (folder / name).is_file():  # another process removed the folder in between
        lock.release(force=True)
        raise FileNotFoundError(folder)
    return lock
