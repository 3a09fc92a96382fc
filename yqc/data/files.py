"""Look at the files that a data set names: they may be missing, unreadable or of any kind."""

import hashlib
import os
import reprlib
from collections.abc import Sequence
from pathlib import Path

from yqc.errors import DataError

SUFFIXES = frozenset(
    {".avif", ".bmp", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"}
)
"""Endings of image files, in lower case: those that YOLO trainers list and `read_image` reads."""
_SHOWN = 100
"""Characters of a value that an error message shows: about one line of a terminal."""


def is_file(path: Path) -> bool:
    """Whether `path` is a regular file; False for a name that no file can have (NUL, too long)."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_dir(path: Path) -> bool:
    """Whether `path` is a folder; False for a name that no folder can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, with or without a byte order mark.

    Raises:
        DataError: the file cannot be read or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as e:
        raise DataError(f"{path} cannot be read as UTF-8 text: {reason(e)}.") from e


def list_images(folder: Path) -> tuple[Path, ...]:
    """Return the image files in `folder` and below, sorted; links to folders are not followed."""
    found = [
        Path(where) / name
        for where, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    ]
    return tuple(sorted(found))


def find_copies(train: Sequence[Path], val: Sequence[Path]) -> tuple[Path, ...]:
    """Return the images of `val` that are in `train` too: the same file, or one of equal bytes."""
    known = set(train)
    sizes: dict[int, list[Path]] = {}
    for path in train:
        sizes.setdefault(_size(path), []).append(path)
    hashes: dict[Path, str | None] = {}

    def hashed(path: Path) -> str | None:
        if path not in hashes:
            hashes[path] = content_hash(path)
        return hashes[path]

    def is_copy(path: Path) -> bool:
        alike = sizes.get(_size(path), ()) if path not in known else ()
        return path in known or any(hashed(other) == hashed(path) is not None for other in alike)

    return tuple(path for path in val if is_copy(path))


def content_hash(path: Path) -> str | None:
    """Return the SHA-256 of a regular file's bytes, None if it cannot be read."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return -1


def reason(error: Exception) -> str:
    """Return the first line of an error, or its type, to stand within a sentence."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")


def shorten(value: object) -> str:
    """Return a short form of a value from a file, for an error message; it never fails."""
    try:
        text = reprlib.repr(value)
    except ValueError:  # An integer of thousands of digits has no text.
        return f"a huge {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
