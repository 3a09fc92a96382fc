"""The code on the pages of the documentation runs: commands, Python and TOML.

A block runs in a folder with a small detector, `model.pt`, its data and two compiled files.
Commands run in this process, with options that shorten them; those that search or sweep for long
stop where the work would begin. A block that cannot run here has the reason in a comment before
it, `<!-- not run: REASON -->`; commands, options and passes in it are still looked up.
"""

import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import chdir
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import typer

import yqc
from tests.command import Run, command
from yqc.cli import app
from yqc.data import scenes, shapes

ROOT = Path(__file__).parents[1]
PAGES = (
    *("README.md", "CONTRIBUTING.md", "examples/shapes/README.md"),
    *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md")),
)
BLOCK = re.compile(
    r'(?:<!-- not run: ([^\n]+) -->\n)?^```(\w*)(?: title="([\w.-]+)")?\n(.*?)^```$',
    re.DOTALL | re.MULTILINE,
)
TINY = {
    "backbone": [[-1, 1, "Conv", [8, 3, 2]] for _ in range(3)],
    "head": [[[2], 1, "Detect", ["nc"]]],
}
SHORTER = {
    "compile": ("--no-latency", "--no-html", "--calib-images", "8"),
    "bench": ("--runs", "2"),
}
"""Options that a command gets on top of those on the page."""
TRAINED = {"prune", "relu"}
"""Passes that would train for minutes; here they do not."""
PLACEHOLDERS = {"MODEL": "model.pt", "DATA": "data.yaml"}
ELSEWHERE = {
    "python -m pytest": "tests/pipeline/test_new_pass.py",
    "python examples/shapes/make_data.py": "tests/examples/test_shapes.py",
}
"""Lines that another test runs."""


class Block(NamedTuple):
    """A block of code on a page."""

    reason: str
    """Why it is not run, or empty."""
    language: str
    title: str
    """The file that it shows, or empty."""
    text: str


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(*found) for found in BLOCK.findall(text)]


def lines(block: Block) -> Iterator[list[str]]:
    """Yield the commands of a block, in words."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in line.partition(" > ")[0].split(" && "):
            if words := shlex.split(part, comments=True):
                yield words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, checkpoints: ModuleType) -> Iterator[Path]:
    """A folder with what the pages name."""
    place = tmp_path_factory.mktemp("pages")
    tiny = checkpoints.make(TINY, nc=len(scenes.NAMES)).half()
    names = list(scenes.NAMES)
    checkpoints.save(place / "model.pt", tiny, "ultralytics", names=names, args={"imgsz": 32})
    drawn = shapes.write_shapes(place / "data" / "shapes", train=8, val=2)
    (place / "data.yaml").write_text(
        drawn.read_text(encoding="utf-8").replace("path: .", "path: data/shapes"), encoding="utf-8"
    )
    shutil.copytree(ROOT / "examples", place / "examples", ignore=shutil.ignore_patterns("*.pyc"))
    for name in ("a.pt", "b.pt"):
        shutil.copy(place / "model.pt", place / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        session = yqc.Session(place / "model.pt", data=place / "data.yaml", calib_images=8)
        for passes in ("fuse", "int8"):
            output = place / f"model-{passes}.onnx"
            session.compile(passes, output=output, latency=False, html=False)
        for name in ("a", "b", "sweep/a", "tuned/b"):
            (place / name).parent.mkdir(exist_ok=True)
            shutil.copy(place / "model-int8.report.json", place / f"{name}.report.json")
        yield place


@pytest.fixture(scope="module")
def done() -> set[tuple[str, ...]]:
    """The command lines that have run: each runs once."""
    return set()


@pytest.fixture
def place(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the folder for one page, as the working directory."""
    here = tmp_path / "page"
    shutil.copytree(folder, here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    with chdir(here):
        yield here


class Started(Exception):  # noqa: N818  # no error: the command got as far as its work
    """Raised in place of a search or a sweep."""


@pytest.fixture
def yqc_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `yqc`; searches and sweeps end as they start."""

    def started(*_: object, **__: object) -> None:
        raise Started

    for name in ("tune", "sweep"):
        monkeypatch.setattr(f"yqc.interface.{name}", started)
    return command(monkeypatch, capsys)


def shortened(words: list[str]) -> list[str]:
    """Return the arguments of `yqc` with options that shorten the work."""
    given = [PLACEHOLDERS.get(word, word) for word in words[1:]]
    words = [*given, *SHORTER.get(given[0], ())]
    for at, word in enumerate(words):
        if word == "--passes":
            steps = words[at + 1].split(",")
            words[at + 1] = ",".join(map(untrained, steps))
    return words


def untrained(step: str) -> str:
    """Leave the training behind a pass out, unless it is asked for."""
    name, _, options = step.removesuffix("}").partition("{")
    if name not in TRAINED or "recover" in options:
        return step
    return f"{name}{{{options} recover=0}}".replace("{ ", "{")


def run_line(words: list[str], yqc_line: Run) -> None:
    """Run one command of a page."""
    if words[0] == "cd":
        return
    if words[0] != "yqc":
        assert shlex.join(words) in ELSEWHERE, f"{words}: say why it is not run"
        return
    result = yqc_line(*shortened(words))
    begun = words[1] in {"tune", "sweep"} and "Started" in result.err
    assert result.code == 0 or begun, (words, result.err)


@pytest.mark.slow
@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_the_code_of_a_page_runs(page: str, yqc_line: Run, done: set[tuple[str, ...]]) -> None:
    names: dict[str, object] = {"__name__": "page"}
    found = blocks(page)
    for block in found:
        if block.title:
            Path(block.title).write_text(block.text, encoding="utf-8")
    for block in found:
        assert block.language in {"sh", "python", "toml", "text"}, block
        if block.reason or block.language == "text" or block.title:
            check_block(block)
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "python":
            exec(compile(block.text, page, "exec"), names)  # noqa: S102  # our own text
        else:
            run_new([words for words in lines(block) if tuple(words) not in done], yqc_line, done)


def run_new(commands: list[list[str]], yqc_line: Run, done: set[tuple[str, ...]]) -> None:
    """Run commands, and note them as done."""
    for words in commands:
        run_line(words, yqc_line)
        done.add(tuple(words))


def check_block(block: Block) -> None:
    """Look up the names in a block that is not run, or that is a file which commands load."""
    if block.language == "sh":
        for words in lines(block):
            if words[0].endswith("yqc"):
                check_names(words)
    elif block.language == "python":
        compile(block.text, block.title or "page", "exec")
    elif block.language == "toml":
        tomllib.loads(block.text)


def check_names(words: list[str]) -> None:
    """Look up the command, the options and the passes of a line."""
    group: Any = typer.main.get_command(app)
    known = group.commands[words[1]]
    options = {name for param in known.params for name in param.opts}
    asked = {word.partition("=")[0] for word in words[2:] if re.match(r"--?[a-z]", word)}
    assert asked <= options, (words, asked - options)
    for flag, passes in pairwise(words):
        if flag == "--passes" and "--load" not in words:
            yqc.Pipeline.parse(passes)


def test_names_that_are_wrong_are_found() -> None:
    with pytest.raises(KeyError):
        check_names(["yqc", "compil", "model.pt"])
    with pytest.raises(AssertionError, match="--pases"):
        check_names(["yqc", "compile", "model.pt", "--pases", "int8"])
    with pytest.raises(yqc.PipelineError):
        check_names(["yqc", "compile", "model.pt", "--passes", "int9"])


def test_no_page_has_code_without_a_language() -> None:
    for page in PAGES:
        text = BLOCK.sub("", (ROOT / page).read_text(encoding="utf-8"))
        assert re.findall(r"\n\n {4}\S.*", text) == [], page
        assert "```" not in text, page
