"""The store: whole entries, checked when they are read, bounded, safe beside other processes."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from yqc.store import Store, user_store
from yqc.store.folders import MARKER
from yqc.store.store import FORM

KEY = {"input": "abc", "threads": 2, "size": (64, 64)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_is_kept_is_found_under_its_key_only(store: Store) -> None:
    assert store.get("float", KEY) is None
    assert not store.folder.exists()
    assert store.put("float", KEY, b"content")
    assert Store(store.folder).get("float", KEY) == b"content"
    assert store.get("boxes", KEY) is None
    assert store.get("float", {**KEY, "threads": 1}) is None
    assert store.put("float", KEY, b"newer")
    assert store.get("float", KEY) == b"newer"
    store.drop("float", KEY)
    assert store.get("float", KEY) is None
    assert not store.trouble


def damage(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda path: damage(path, -1),
    "a flipped bit in the head": lambda path: damage(path, len(FORM) + 20),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "empty": lambda path: path.write_bytes(b""),
    "foreign": lambda path: path.write_bytes(b"GIF89a" * 100),
    "older": lambda path: path.write_bytes(path.read_bytes().replace(b"store 1", b"store 0")),
    "no object": lambda path: path.write_bytes(FORM + b"[1]\n"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_entry_is_left_aside_with_a_line(store: Store, kind: str) -> None:
    store.put("float", KEY, b"content")
    (path,) = store.folder.glob("*.entry")
    DAMAGES[kind](path)
    assert store.get("float", KEY) is None
    assert "damaged and left aside" in store.trouble
    assert store.damaged() == [path]
    assert store.put("float", KEY, b"content")
    assert store.get("float", KEY) == b"content"
    assert store.damaged() == []


def test_an_entry_of_another_key_is_left_aside(store: Store) -> None:
    store.put("float", KEY, b"content")
    (path,) = store.folder.glob("*.entry")
    content = path.read_bytes()
    store.put("float", {}, b"other")
    (other,) = {*store.folder.glob("*.entry")} - {path}
    other.write_bytes(content)
    assert store.get("float", {}) is None
    assert [entry.path for entry in store.entries()] == [path]
    store.remove()
    assert not store.folder.exists()


def test_the_least_recently_used_go_first(store: Store) -> None:
    store.bound = 10_000
    for number in range(8):
        assert store.put("boxes", {"number": number}, bytes(1500))
        (path,) = (e.path for e in store.entries() if e.key == {"number": number})
        os.utime(path, (number, number))
        if number == 5:
            assert store.get("boxes", {"number": 0}) is not None  # it is the latest now
    found = {entry.key["number"] for entry in store.entries()}
    assert 0 in found
    assert {1, 2} & found == set()
    assert sum(entry.bytes for entry in store.entries()) <= 10_000
    assert not store.put("boxes", {"number": 9}, bytes(20_000))


def test_a_folder_of_somebody_elses_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years")
    store = Store(tmp_path)
    assert not store.put("float", KEY, b"content")
    assert "files that are not yqc's" in store.trouble
    assert store.get("float", KEY) is None
    store.remove()
    store.trim(0)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_files_of_the_users_in_it_stay_when_it_is_removed(store: Store) -> None:
    store.put("float", KEY, b"content")
    (store.folder / "note.txt").write_text("mine")
    store.remove()
    assert {p.name for p in store.folder.iterdir()} == {MARKER, "note.txt"}
    (store.folder / "note.txt").unlink()
    store.remove()
    assert not store.folder.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_a_full_disk_leaves_nothing_half_written(store: Store) -> None:
    store.put("float", KEY, b"older")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        assert not store.put("float", KEY, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "nothing can be kept" in store.trouble
    assert store.get("float", KEY) == b"older"
    assert not list(store.folder.glob("*.partial"))


WRITER = """
import random, sys
from pathlib import Path
from yqc.store import Store
store, dice = Store(Path("store"), 400_000), random.Random(int(sys.argv[1]))
print("ready", flush=True)
while True:
    number = dice.randrange(60)
    content = bytes([number]) * 20_000
    if dice.random() < 0.6:
        store.put("boxes", {"number": number}, content)
    else:
        assert store.get("boxes", {"number": number}) in {None, content}
    assert "damaged" not in store.trouble, store.trouble
"""


def test_many_processes_some_killed_leave_whole_entries_within_the_bound(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(  # noqa: S603  # this interpreter
            [sys.executable, "-c", WRITER, str(seed)], cwd=tmp_path, stdout=subprocess.PIPE
        )
        for seed in range(8)
    ]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    for writer in writers:
        time.sleep(0.2)
        assert writer.poll() is None
        writer.kill()
    for writer in writers:
        writer.communicate()
    store = Store(tmp_path / "store", 400_000)
    assert store.damaged() == []
    store.trim()
    entries = store.entries()
    assert len(entries) > 5
    assert sum(entry.bytes for entry in entries) <= 400_000
    for entry in entries:
        number = entry.key["number"]
        assert store.get("boxes", {"number": number}) == bytes([number]) * 20_000


def test_what_a_killed_process_has_left_half_written_goes(store: Store) -> None:
    store.put("float", KEY, b"content")
    old, new = (store.folder / f"{name}.partial" for name in ("old", "new"))
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    store.trim()
    assert not old.exists()
    assert new.exists()


def test_the_users_store_lies_where_the_platform_has_it(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert user_store().folder == cache_folder
    assert user_store().bound == 5_000_000_000
    monkeypatch.setenv("YQC_CACHE_BOUND", "1000")
    assert user_store().bound == 1000
    monkeypatch.setenv("YQC_CACHE_BOUND", "0")
    assert not user_store().put("float", KEY, b"content")
    assert not cache_folder.exists()
