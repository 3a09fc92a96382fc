"""The map for those who read the code: packages, files and layers stand in it as they are."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

import yqc

ROOT = Path(__file__).parents[1]
PAGES = (
    *("README.md", "CONTRIBUTING.md"),
    *(f"docs/{name}.md" for name in ("architecture", "data", "writing-passes")),
)
INITS = sorted(path.relative_to(ROOT) for path in (ROOT / "yqc").rglob("*/__init__.py"))
FOLDERS = "yqc|passes|tests|examples|docs|benchmarks|.ci"


def read(page: str | Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def contents(folder: Path) -> set[str]:
    """Return the names of the modules and packages right in a folder."""
    packages = {path.parent.name for path in folder.glob("*/__init__.py")}
    return {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"} | packages


def listed(docstring: str) -> list[str]:
    """Return the names at the beginning of lines: "    name  what" or "- `name`, `other`: what"."""
    names = re.findall(r"^ {4}(\w+)/?  ", docstring, re.MULTILINE)
    for line in re.findall(r"^(?:- )?((?:`\w+`[, ]*)+)", docstring, re.MULTILINE):
        names += re.findall(r"\w+", line)
    return names


@pytest.mark.parametrize("init", INITS, ids=lambda path: str(path.parent))
def test_a_package_names_its_files(init: Path) -> None:
    names = listed(ast.get_docstring(ast.parse(read(init))) or "")
    assert sorted(names) == sorted(contents(ROOT / init.parent))


def layers() -> list[list[str]]:
    """Return the layers of the contract, the highest first."""
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (rows,) = [each["layers"] for each in contracts if each["type"] == "layers"]
    return [row.split(" | ") for row in rows if row != "yqc.__main__"]


def test_the_packages_stand_in_the_order_of_the_contract() -> None:
    table = read("docs/architecture.md").partition("## Packages")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    shown = [name for cell in cells for name in re.findall(r"`(yqc[\w.]*)`", cell)]
    depth = {name: at for at, row in enumerate(layers()) for name in row}
    assert sorted(shown) == sorted(depth)
    assert [depth[name] for name in shown] == sorted(depth.values())


def test_the_contract_has_every_package() -> None:
    named = {name for row in layers() for name in row} - {"yqc_passes"}
    assert named == {f"yqc.{name}" for name in contents(ROOT / "yqc")}


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    text = read(page)
    named = {*re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", text)}
    links = {link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link}
    assert named | links, "the page names no file"
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_names_of_the_map_are_packages_or_public() -> None:
    for name in set(re.findall(r"`yqc\.(\w+)", read("docs/architecture.md"))):
        assert name in contents(ROOT / "yqc") or hasattr(yqc, name), name


def test_the_wheel_has_every_package() -> None:
    tool = tomllib.loads(read("pyproject.toml"))["tool"]["setuptools"]
    folders = {path.parent.as_posix().replace("/", ".") for path in INITS}
    assert {*tool["packages"]} == {"yqc", *folders, "yqc_passes", "yqc_examples"}


def test_ci_and_make_run_the_same_steps() -> None:
    steps = re.findall(r"^(\w+)\(\)", read(".ci/check"), re.MULTILINE)
    assert steps == ["tests", "quick", "lint", "types", "docs", "slow", "package"]
    assert ".ci/check tests lint types docs package" in read("Makefile")
    assert read(".ci/run").rstrip().endswith(".ci/check lint types docs package")
    assert re.findall(r"\.venv/bin/pytest.*", read("README.md")) == [
        ".venv/bin/pytest -n 2 --dist worksteal"
    ]
