"""Looking at files that a data set names, which may be anything at all."""

import filecmp
import os
import reprlib
from collections.abc import Sequence
from pathlib import Path

from yqc.errors import DataError

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"})
"""Endings of image files, in lower case."""
_SHOWN = 100
"""How many characters of a value an error message shows."""


def is_file(path: Path) -> bool:
    """Whether `path` is a file; a name no file can have (NUL, too long) is just not there."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_dir(path: Path) -> bool:
    """Whether `path` is a folder, with the same leniency as `is_file`."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        DataError: the file cannot be read or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as e:
        raise DataError(f"{path} cannot be read as UTF-8 text: {reason(e)}.") from e


def list_images(folder: Path) -> tuple[Path, ...]:
    """All image files in `folder` and below, sorted by path; links to folders are not followed."""
    found = [
        Path(where) / name
        for where, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    ]
    return tuple(sorted(found))


def in_both(train: Sequence[Path], val: Sequence[Path]) -> tuple[Path, ...]:
    """The images of `val` that are in `train` too: the same file, or a copy with the same name."""
    by_name: dict[str, list[Path]] = {}
    for path in train:
        by_name.setdefault(path.name, []).append(path)
    return tuple(p for p in val if any(_same(p, other) for other in by_name.get(p.name, ())))


def _same(a: Path, b: Path) -> bool:
    try:
        return a == b or a.samefile(b) or filecmp.cmp(a, b, shallow=False)
    except (OSError, ValueError):
        return False


def reason(error: Exception) -> str:
    """The first line of an error, or its type, to stand within a sentence."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def show(value: object) -> str:
    """A short form of a value from a file, for an error message; never fails, never grows large."""
    try:
        text = reprlib.repr(value)
    except ValueError:  # An integer of thousands of digits has no text.
        return f"a huge {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
