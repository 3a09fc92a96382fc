"""Folders that yqc removes have its marker inside, and nobody works in them."""

import shutil
from pathlib import Path

import pytest

from yqc.store import folders
from yqc.store.folders import (
    MARKER,
    TEXT,
    is_marked,
    make_temporary,
    mark,
    remove_left,
    remove_locked,
)
from yqc.store.locks import NAME as LOCK
from yqc.store.locks import lock_folder


def test_a_folder_taken_away_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, locking = list[Path](), lock_folder

    def late(folder: Path) -> object:
        made.append(folder)
        if len(made) == 1:
            folder.rmdir()
        return locking(folder)

    monkeypatch.setattr(folders, "lock_folder", late)
    folder, lock = make_temporary("x-", tmp_path)
    assert [folder] == made[1:]
    assert is_marked(folder)
    lock.release()


def test_a_folder_goes_where_the_system_keeps_files_that_are_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, lock = make_temporary("x-", tmp_path)
    remove = shutil.rmtree

    def windows(path: Path, *, ignore_errors: bool) -> None:
        if not lock.is_locked:
            remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", windows)
    monkeypatch.setattr(folders, "KEEPS_OPEN", True)
    remove_locked(folder, lock)
    assert not folder.exists()


def test_a_parent_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make_temporary("x-", tmp_path / "absent")


def test_a_locked_folder_is_not_removed(tmp_path: Path) -> None:
    folder, first = make_temporary("x-", tmp_path)
    second = lock_folder(folder)
    assert first is second
    for _ in range(2):
        remove_left(folder)
        assert folder.is_dir()
        first.release()
    remove_left(folder)
    assert not folder.exists()
    remove_left(folder)


@pytest.mark.parametrize("left", [[], [LOCK], [LOCK, f"{MARKER}.a1b2"]])
def test_what_was_killed_before_the_marker_was_there_is_removed(
    tmp_path: Path, left: list[str]
) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    for name in left:
        (folder / name).touch()
    remove_left(folder)
    assert not folder.exists()


@pytest.mark.parametrize("marker", [None, "", "# made by somebody else\n", TEXT + "and more"])
def test_a_folder_without_the_marker_stays(tmp_path: Path, marker: str | None) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"sea")
    if marker is not None:
        (tmp_path / MARKER).write_text(marker)
    before = {p.name for p in tmp_path.iterdir()}
    remove_left(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == before


def test_a_link_to_a_marked_folder_stays(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    mark(folder)
    link = tmp_path / "link"
    link.symlink_to(folder)
    remove_left(link)
    assert folder.is_dir()
    assert link.is_symlink()
