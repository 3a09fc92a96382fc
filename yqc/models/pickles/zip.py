"""Read the zip form of torch.save (PyTorch 1.6 and later): an archive of stored records.

<top>/data.pkl      the pickle              <top>/data/<key>    the bytes of one storage
<top>/byteorder     little or big (later)   <top>/version, ...  not needed here
"""

import io
import os
import struct
import sys
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from io import BufferedReader

import torch
from torch import Tensor

from yqc.models.pickles.scan import MAX_PICKLE_BYTES
from yqc.models.pickles.values import MalformedError, shown

MAX_DIRECTORY = 1 << 22
"""Bytes of an archive's directory; golden files, of up to 1,097 records, have at most 64,833."""
_LOCAL = struct.Struct("<4s5H3I2H")
_LOCAL_MAGIC, _ENCRYPTED, _UTF8 = b"PK\3\4", 1, 0x800
_BYTEORDER_MAX = 16


@dataclass(frozen=True)
class StoredRecord:
    """Place of a stored record: its header at `start`, all of it before `end`."""

    name: str
    raw_name: bytes
    start: int
    end: int
    size: int
    crc: int


class Archive:
    """Records of a zip file whose directory was checked; raises MalformedError."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._records = {record.name: record for record in _directory(file)}
        self.top = self._top()
        self._check_byteorder()

    def pickle(self) -> bytes:
        """Return the bytes of the main pickle."""
        return self._read(f"{self.top}data.pkl", MAX_PICKLE_BYTES)

    def storage(self, key: str, nbytes: int) -> Tensor:
        """Return one storage, uint8 [nbytes], counted before memory is taken."""
        record = self._records.get(f"{self.top}data/{key}")
        if record is None:
            raise MalformedError(f"it has no record for storage {shown(key)}")
        if record.size != nbytes:
            raise MalformedError(
                f"storage {shown(key)} claims {nbytes} bytes and its record has {record.size}"
            )
        self._seek(record)
        memory = torch.empty(nbytes, dtype=torch.uint8)
        view = memory.numpy().data
        if self._file.readinto(view) != nbytes:
            raise MalformedError(f"the record of storage {shown(key)} is cut short")
        _check_crc(record, view)
        return memory

    def _top(self) -> str:
        """Return the one folder that holds data.pkl, with its slash."""
        tops = [
            name.removesuffix("data.pkl")
            for name in self._records
            if name.endswith("/data.pkl") and name.count("/") == 1
        ]
        if len(tops) != 1:
            raise MalformedError(
                "it is a zip archive without exactly one data.pkl, so torch.save did not write it"
            )
        return tops[0]

    def _check_byteorder(self) -> None:
        if f"{self.top}byteorder" in self._records:
            order = self._read(f"{self.top}byteorder", _BYTEORDER_MAX)
            if order != sys.byteorder.encode():
                raise MalformedError(
                    f"it was written with byte order {order!a}, which this machine does not have; "
                    "load and save it again there"
                )

    def _read(self, name: str, limit: int) -> bytes:
        record = self._records[name]
        if record.size > limit:
            raise MalformedError(f"{shown(name)} claims {record.size} bytes")
        self._seek(record)
        data = self._file.read(record.size)
        if len(data) != record.size:
            raise MalformedError(f"{shown(name)} is cut short")
        _check_crc(record, data)
        return data

    def _seek(self, record: StoredRecord) -> None:
        """Go to the first byte of a record; its own header must agree with the directory."""
        self._file.seek(record.start)
        header = self._file.read(_LOCAL.size).ljust(_LOCAL.size, b"\0")
        magic, _, flags, method, *_, names, extra = _LOCAL.unpack(header)
        name = self._file.read(names)
        if (magic, name, method) != (_LOCAL_MAGIC, record.raw_name, 0) or flags & _ENCRYPTED:
            raise MalformedError(f"the archive disagrees with itself about {shown(record.name)}")
        begin = record.start + _LOCAL.size + names + extra
        if begin + record.size > record.end:
            raise MalformedError(f"its record {shown(record.name)} overlaps another one")
        self._file.seek(begin)


class _Tail(io.RawIOBase):
    """File for zipfile to read the directory from, at most MAX_DIRECTORY bytes at once."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        left = max(self._size - self._file.tell(), 0)
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > MAX_DIRECTORY:
            raise MalformedError("its archive lists more records than any checkpoint has")
        return self._file.read(wanted)


def _directory(file: BufferedReader) -> list[StoredRecord]:
    """List the records, each checked: stored as is, named once, by a plain relative name."""
    try:
        archive = zipfile.ZipFile(_Tail(file))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError) as error:
        raise MalformedError(
            "it begins like a zip archive, but its end is missing or damaged; fetch it again"
        ) from error
    infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
    if any(info.filename.endswith("/constants.pkl") for info in infos):
        raise MalformedError(
            "it is a TorchScript export; give the checkpoint it was made from (.pt)"
        )
    counts = Counter(info.filename for info in infos)
    starts = [*(info.header_offset for info in infos), archive.start_dir]
    records = []
    for info, end in zip(infos, starts[1:], strict=True):
        name = shown(info.orig_filename)
        if counts[info.filename] > 1:
            raise MalformedError(f"its archive has two records named {name}")
        if _escapes(info.orig_filename):
            raise MalformedError(f"its archive has a record named {name}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise MalformedError(
                f"its record {name} is compressed, which torch.save never does; "
                "unpack it and pack it again with zip -0"
            )
        if info.header_offset + _LOCAL.size + info.file_size > end:
            raise MalformedError(f"its record {name} overlaps another one")
        raw = info.filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
        places = info.header_offset, end, info.file_size
        records.append(StoredRecord(info.filename, raw, *places, info.CRC))
    return records


def _escapes(name: str) -> bool:
    """Whether a record's name is anything but a plain relative path."""
    return not name.isprintable() or "\\" in name or name.startswith("/") or ".." in name.split("/")


def _check_crc(record: StoredRecord, data: bytes | memoryview) -> None:
    """Compare with the recorded sum; torch writes 0 where its sums are switched off."""
    if record.crc and zlib.crc32(data) != record.crc:
        raise MalformedError(
            f"its record {shown(record.name)} has a wrong check sum; fetch the file again"
        )
