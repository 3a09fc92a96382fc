"""Files that are damaged, of another kind, or full of tricks: one sentence each, and no harm."""

import gzip
import io
import json
import pickle
import random
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from tests.models.hostile import legacy, zipped
from tests.models.hostile_programs import BROKEN, storage, tensor
from yqc.errors import CheckpointError
from yqc.models.pickles.read import read_checkpoint


def refused(folder: Path, data: bytes) -> str:
    path = folder / "x.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path, lambda _: False)
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be read as a checkpoint: ")
    assert message.isprintable()
    return message


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"), io.BytesIO())
    return out.getvalue()


KINDS = {
    "empty": (b"", "it is empty"),
    "text": (b"epoch 1, loss 0.3\n" * 99, "it is text"),
    "short text": (b"N", "it is text"),
    "page": (b"\n<!DOCTYPE html><html>", "it is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "pointer of Git LFS"),
    "tar": (tarred(), "PyTorch's first, tar form"),
    "gzip": (gzip.compress(zipped(b"\x80\2N.")), "neither a zip archive nor a pickle"),
    "noise": (random.Random(1).randbytes(5000), "neither a zip archive nor a pickle"),  # noqa: S311
    "noise after 0x80": (b"\x80\2" + b"\xfe" * 99, "damaged after 1 opcodes"),
    "zip without an end": (b"PK\3\4" + bytes(999), "its end is missing or damaged"),
    "empty zip": (b"PK\5\6" + bytes(18), "without exactly one data.pkl"),
    "plain pickle": (pickle.dumps({"a": 1}), "not one that torch.save wrote"),
    "old plain pickle": (pickle.dumps([1], 0), "none of the protocols 2 to 5"),
    "json": (json.dumps({"a": 1}).encode(), "it is text"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_other_kinds_are_told_apart(tmp_path: Path, kind: str) -> None:
    data, why = KINDS[kind]
    assert why in refused(tmp_path, data)


def sound(*, zipped: bool) -> bytes:
    out = io.BytesIO()
    value = {"w": torch.arange(40.0), "b": torch.ones(3, dtype=torch.half), "n": ["a", 2, (3.5,)]}
    torch.save(value, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, zipped: bool) -> None:
    data = sound(zipped=zipped)
    for end in range(0, len(data), 17):
        refused(tmp_path, data[:end])
    refused(tmp_path, data[:-1])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_bytes_changed_is_read_or_refused(tmp_path: Path, zipped: bool) -> None:
    data, chance, path = sound(zipped=zipped), random.Random(5), tmp_path / "x.pt"  # noqa: S311
    refusals = 0
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(changed)
        try:
            read_checkpoint(path, lambda _: False)
        except CheckpointError:
            refusals += 1
    assert refusals > 100


PROGRAM = b"\x80\2" + tensor() + b"."


def archive(records: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, data in records:
            made.writestr(name, data)
    return out.getvalue()


PAIR = [("a/data.pkl", PROGRAM), ("a/data/0", bytes(16))]
PLAIN = archive(PAIR)


def altered(old: bytes, new: bytes, *, count: int = -1) -> bytes:
    assert old in PLAIN
    return PLAIN.replace(old, new, count)


def overlapping() -> bytes:
    """A second record whose header lies within the first one's bytes."""
    inner = PLAIN[PLAIN.index(b"PK\3\4", 9) : PLAIN.index(b"PK\1\2")]
    outer = archive([("a/data.pkl", PROGRAM), ("a/data/1", inner), ("a/data/0", bytes(16))])
    last = outer.rindex(b"PK\1\2")
    offset = outer.index(inner)
    return outer[: last + 42] + struct.pack("<I", offset) + outer[last + 46 :]


ARCHIVES = {
    "a name twice": (
        archive([*PAIR, ("a/data/1", bytes(16))]).replace(b"data/1", b"data/0"),
        "two records named a/data/0",
    ),
    "a name up the tree": (archive([*PAIR, ("a/../../x", b"")]), r"a record named a/\.\./\.\./x"),
    "a name from the root": (archive([*PAIR, ("/etc/x", b"")]), "a record named /etc/x"),
    "a name with a backslash": (altered(b"a/data/0", b"a\\data/0"), "a record named"),
    "a name with a zero": (altered(b"a/data/0", b"a/data/\0"), "a record named"),
    "a bomb": (archive([*PAIR, ("a/b", bytes(1 << 24))], zipfile.ZIP_DEFLATED), "is compressed"),
    "a wrong sum": (
        altered(bytes(16), b"\1" + bytes(15), count=1),
        "a/data/0 has a wrong check sum",
    ),
    "two pickles": (archive([*PAIR, ("b/data.pkl", PROGRAM)]), "without exactly one data.pkl"),
    "no pickle": (archive(PAIR[1:]), "without exactly one data.pkl"),
    "an export": (archive([*PAIR, ("a/constants.pkl", b"")]), "TorchScript"),
    "other bytes": (archive([*PAIR, ("a/byteorder", b"big")]), "byte order b'big'"),
    "another name inside": (altered(b"a/data/0", b"a/data/1", count=1), "disagrees with itself"),
    "records in records": (overlapping(), "a/data/1 overlaps another"),
    "a huge directory": (archive([(f"a/{n:0200}", b"") for n in range(17_000)]), "more records"),
    "a huge pickle": (archive([("a/data.pkl", bytes((1 << 26) + 1))]), "claims 67108865 bytes"),
}


@pytest.mark.parametrize("trick", ARCHIVES)
def test_archives_with_tricks_are_refused(tmp_path: Path, trick: str) -> None:
    data, why = ARCHIVES[trick]
    assert re.search(why, refused(tmp_path, data))


HEAD = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": sys.byteorder == "little"}]
SIZED = legacy(PROGRAM)


def rows(*head: object) -> bytes:
    return b"".join(pickle.dumps(value, 2) for value in head) + SIZED[SIZED.index(PROGRAM) :]


OLDER = {
    "another magic": (rows(7, *HEAD[1:]), "not one that torch.save wrote"),
    "another version": (
        rows(HEAD[0], 1002, HEAD[2]),
        "a form of torch.save that yqc does not know",
    ),
    "another order": (rows(*HEAD[:2], {"little_endian": False}), "another byte order"),
    "no order": (rows(*HEAD[:2], {}), "another byte order"),
    "a storage as version": (
        rows(HEAD[0], 1001, HEAD[2]).replace(pickle.dumps(1001, 2), b"\x80\2" + storage() + b"."),
        "a storage where none may be",
    ),
    "other keys": (legacy(PROGRAM, keys=b"\x80\2]X\1\0\0\x001a."), "list of storages is not that"),
    "keys twice": (
        legacy(PROGRAM, keys=b"\x80\2](X\1\0\0\x000X\1\0\0\x000e."),
        "list of storages is not that",
    ),
    "keys that are none": (legacy(PROGRAM, keys=b"\x80\2N."), "list of storages is damaged"),
    "keys of numbers": (legacy(PROGRAM, keys=b"\x80\2]K\0a."), "list of storages is damaged"),
    "another count": (
        SIZED[:-24] + struct.pack("<q", 5) + bytes(16),
        "storage 0 has another size than its tensors say",
    ),
    "a view of a storage": (
        legacy(PROGRAM.replace(b"K\4tQ", b"K\4(X\1\0\0\x001K\0K\1ttQ")),
        "no storage of torch.save",
    ),
}


@pytest.mark.parametrize("trick", OLDER)
def test_older_files_with_tricks_are_refused(tmp_path: Path, trick: str) -> None:
    data, why = OLDER[trick]
    assert why in refused(tmp_path, data)


MEASURE = """
import resource, sys
from pathlib import Path
from yqc.errors import CheckpointError
from yqc.models.pickles.read import read_checkpoint

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

before = peak()
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        read_checkpoint(path, lambda _: False)
    except CheckpointError:
        pass
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs the resource module")
def test_no_bomb_takes_a_gibibyte(tmp_path: Path) -> None:
    for number, name in enumerate(name for name in BROKEN if "tera" in name or "two to" in name):
        program = zipped(b"\x80\4" + BROKEN[name][1] + b".")
        (tmp_path / f"{number}.pt").write_bytes(program)
    (tmp_path / "bomb.pt").write_bytes(ARCHIVES["a bomb"][0])
    (tmp_path / "full.pt").write_bytes(zipped(b"\x80\4(" + b"]" * 500_000 + b"t."))
    wide = b"X" + struct.pack("<I", 60 << 20) + "\U0001f600".encode() * (15 << 20)
    (tmp_path / "text.pt").write_bytes(zipped(b"\x80\4" + wide + b"."))
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert int(done.stdout) < 1024
