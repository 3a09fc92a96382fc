"""`yqc cache`, and what interrupted compiles say."""

import json
import shutil
from pathlib import Path

import pytest

from tests.command import Run
from yqc.pipeline import resume
from yqc.store import Store


@pytest.fixture
def store(cache_folder: Path) -> Store:
    store = Store(cache_folder)
    store.put("float", {"input": "a"}, bytes(1000))
    store.put("work", {"output": "x"}, bytes(2000))
    store.put("work", {"output": "y"}, bytes(3000))
    return store


def test_it_shows_what_is_kept(run: Run, store: Store) -> None:
    done = run("cache")
    assert done.code == 0
    rows = [line.split() for line in done.out.splitlines()]
    assert ["interrupted", "compiles", "2", "5.3", "kB"] in rows
    assert f"of 5.0 GB in {store.folder}" in done.out.replace("\n", "")
    found = json.loads(run("cache", "--json").out)
    assert [row["entries"] for row in found["kinds"]] == [1, 0, 2]
    assert found["bytes"] == sum(entry.bytes for entry in store.entries())


def test_it_finds_damage(run: Run, store: Store) -> None:
    assert run("cache", "--check").code == 0
    path = store.entries()[0].path
    path.write_bytes(path.read_bytes()[:-1])
    done = run("cache", "--check")
    assert done.code == 1
    assert done.err == f"yqc: 1 entries are damaged, such as {path}; --clear\n"


def test_it_is_trimmed_and_cleared(run: Run, store: Store) -> None:
    assert run("cache", "--trim", "4KB").code == 0
    assert [entry.key.get("output") for entry in store.entries()] == ["y"]
    assert run("cache", "--trim", "four").code == 2
    assert run("cache", "--clear").code == 0
    assert not store.folder.exists()
    assert run("cache").code == 0


@pytest.mark.parametrize("kept", [True, False])
def test_an_interrupted_compile_says_whether_it_can_be_resumed(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(resume, "LONG", 0.0 if kept else 1e9)
    monkeypatch.setattr("yqc.compiler.verify_sizes", interrupt)
    done = run("compile", checkpoint, "--passes", "dce", "--no-eval", "-q")
    said = "the same command with --resume goes on from what was kept" if kept else "nothing was"
    assert done.code == 130
    assert f"yqc: interrupted; {said}" in done.err
    assert not list(Path().iterdir())


@pytest.mark.slow
def test_a_folder_of_the_users_beside_the_output_stands(run: Run, checkpoint: Path) -> None:
    mine = Path("x.cache")
    for content in ("key.json", "lock", "a.safetensors", "stage.yqc"):
        mine.mkdir(exist_ok=True)
        (mine / content).write_text("mine")
        for more in ((), ("--resume",)):
            done = run(
                "compile", checkpoint, "--passes", "dce", "--no-eval", "--no-html", "-q", *more,
                "-o", "x.onnx",
            )  # fmt: skip
            assert done.code == 0, done.err
            assert [p.read_text() for p in mine.iterdir()] == ["mine"]
        shutil.rmtree(mine)
