"""Look at the files that a data set names: they may be missing, unreadable or of any kind."""

import contextlib
import hashlib
import os
import reprlib
from collections.abc import Sequence
from pathlib import Path

from yqc.errors import DataError, first_line

SUFFIXES = frozenset(
    {".avif", ".bmp", ".jp2", ".jpeg", ".jpg", ".mpo", ".npy", ".png", ".tif", ".tiff", ".webp"}
)
"""Endings of image files that YOLO trainers list, in lower case, and of NumPy arrays; `read_image`
refuses some."""
ARRAY = ".npy"
_SHOWN = 100
"""Characters of a value that an error message shows: about one line of a terminal."""


is_file, is_dir = os.path.isfile, os.path.isdir
"""Unlike Path's methods, they return False for a name that no file can have (NUL, too long)."""


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
    """Return the image files in `folder` and below, sorted; links to folders are not followed.

    A `.npy` beside an image of the same name is what Ultralytics caches of it, and is left out.
    """
    found = {
        Path(where) / name
        for where, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    }
    images = {path.with_suffix("") for path in found if path.suffix.lower() != ARRAY}
    kept = (p for p in found if p.suffix.lower() != ARRAY or p.with_suffix("") not in images)
    return tuple(sorted(kept))


def find_copies(train: Sequence[Path], val: Sequence[Path]) -> tuple[Path, ...]:
    """Return the images of `val` that are in `train` too: the same file, or one of equal bytes."""
    known = set(train)
    ours, theirs = ({p: p.stat().st_size for p in filter(is_file, s)} for s in (train, val))
    alike = {*ours.values()} & {*theirs.values()}  # Only files of these sizes need to be read.
    hashes = {content_hash(path) for path, size in ours.items() if size in alike} - {None}

    def is_copy(path: Path) -> bool:
        return path in known or (theirs.get(path) in alike and content_hash(path) in hashes)

    return tuple(filter(is_copy, val))


def content_hash(path: Path) -> str | None:
    """Return the SHA-256 of a regular file's bytes, None if it cannot be read."""
    if not is_file(path):
        return None
    with contextlib.suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return None


def reason(error: Exception) -> str:
    """Return the first line of an error, or its type, to stand within a sentence."""
    return first_line(error).rstrip(".")


def shorten(value: object) -> str:
    """Return a short form of a value from a file, for an error message; it never fails."""
    try:
        text = reprlib.repr(value)
    except ValueError:  # An integer of thousands of digits has no text.
        return f"a huge {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
