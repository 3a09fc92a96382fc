"""Folders that a running process works in, so that other compiles of the same output leave them.

A hold is a lock of the operating system on the folder itself: nothing is written for it, and it
ends with the process, however that ends. Where there are no such locks (Windows), a folder counts
as worked in for a day after it was last changed.
"""

import os
import time
import weakref
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DAY = 24 * 3600.0


class Hold:
    """A folder held by this process, as long as this object lives."""

    def __init__(self, descriptor: int | None) -> None:
        if descriptor is not None:
            weakref.finalize(self, os.close, descriptor)


_held: weakref.WeakValueDictionary[tuple[int, int], Hold] = weakref.WeakValueDictionary()
"""What this process holds, by device and inode."""


def take(folder: Path) -> Hold | None:
    """Hold a folder, or return None if another process does; within one process, share it.

    Raises:
        OSError: there is no such folder, or no longer.
    """
    if fcntl is None:
        return Hold(None)
    descriptor = os.open(folder, os.O_RDONLY)
    key = _key(os.fstat(descriptor))
    if (mine := _held.get(key)) is not None:
        os.close(descriptor)
        return mine
    hold = Hold(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    if _key(folder.stat()) != key:  # it was removed in between, and another one was made
        raise FileNotFoundError(folder)
    _held[key] = hold
    return hold


def in_use(folder: Path) -> bool:
    """Tell whether any process, this one included, works in a folder."""
    try:
        status = folder.stat()
        if fcntl is None:
            return time.time() - status.st_mtime < DAY
        return _key(status) in _held or take(folder) is None
    except OSError:  # it is gone
        return False


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
