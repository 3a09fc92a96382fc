"""How large a file is in a zip or gzip archive."""

import zlib
from pathlib import Path

LEVEL = 6
"""Of deflate, the default of zip and gzip. Level 9 finds 0.01 % more in files of packed weights
and takes several times as long for files of floats."""
CHUNK = 1 << 20
"""Bytes that are read at once, which bounds the memory."""


def deflated_size(path: Path) -> int:
    """Count the bytes of a file behind deflate (RFC 1951), without the header of an archive."""
    packer = zlib.compressobj(LEVEL, wbits=-zlib.MAX_WBITS)
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            total += len(packer.compress(chunk))
    return total + len(packer.flush())
