"""What importing costs and brings: public names are lazy, and the arrows point one way."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

import yqc
from yqc_passes import PASSES as TABLE

ROOT = Path(yqc.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
FILES = sorted(p for p in (ROOT.parent / "passes").glob("*.py") if p.stem != "__init__")


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports when it runs; those only for type checkers left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unread = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    ]
    skipped = {id(n) for block in unread for n in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports here are absolute"
            yield f"{node.module}"


def python(code: str) -> str:
    done = subprocess.run(  # noqa: S603  # this interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_importing_yqc_imports_no_torch() -> None:
    code = "import sys, yqc; yqc.Pipeline, yqc.Registry, yqc.Pass; print('torch' in sys.modules)"
    assert python(code) == "False\n"


@pytest.mark.parametrize("name", yqc.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(yqc, name) is not None
    assert name in dir(yqc)


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="module 'yqc' has no attribute 'no_such_thing'"):
        _ = yqc.no_such_thing


def test_public_names_are_in_order() -> None:
    assert list(yqc.__all__) == sorted(yqc.__all__)


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports for type checkers and those inside functions are counted, too."""
    files = {".".join(p.relative_to(ROOT.parent).with_suffix("").parts): p for p in SOURCES}
    graph: nx.DiGraph[str | None] = nx.DiGraph()
    for name, path in files.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                found = [module for module in whole if module in files]
                graph.add_edges_from((name, module) for module in found)
                if len(found) < len(whole) and f"{node.module}" in files:
                    graph.add_edge(name, node.module)
    assert graph.number_of_edges() > 500
    assert [group for group in nx.strongly_connected_components(graph) if len(group) > 1] == []


def test_few_modules_stand_outside_of_packages() -> None:
    """One more than a package would need: `runtime` is copied to devices, so it is one file."""
    assert len(list(ROOT.glob("*.py"))) <= 11


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_built_in_pass_can_be_copied_out(path: Path) -> None:
    """It imports PyTorch and yqc, and never a sibling."""
    tops = {module.partition(".")[0] for module in imported(path)}
    assert tops <= sys.stdlib_module_names | {"torch", "yqc"}


def test_every_built_in_pass_is_in_the_table() -> None:
    listed = {target.partition(":")[0].removeprefix("yqc_passes.") for target in TABLE.values()}
    assert listed == {p.stem for p in FILES}


def unpublished(path: Path) -> Iterator[str]:
    """Yield what a pass imports from yqc that is no public name of `yqc` or a package below it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not f"{node.module}".startswith("yqc"):
            continue
        public = ()
        if f"{node.module}".count(".") < 2:
            public = getattr(importlib.import_module(f"{node.module}"), "__all__", ())
        yield from (f"{node.module}.{a.name}" for a in node.names if a.name not in public)


def test_built_in_passes_import_public_names() -> None:
    """So any of them can be copied out, edited and loaded, and keeps working."""
    private = {p.stem: found for p in FILES if (found := list(unpublished(p)))}
    assert private == {}
