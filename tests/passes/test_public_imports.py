"""Built-in passes import public names only, so that any of them can be copied out and edited."""

import ast
import importlib
from pathlib import Path

import pytest

import yqc_passes

FILES = sorted(Path(next(iter(yqc_passes.__path__))).glob("[a-z]*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_imports_are_in_a_written_out_list(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    plain = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    assert not any(name.startswith("yqc") for name in plain)
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not str(node.module).startswith("yqc"):
            continue
        assert node.module is not None
        assert node.module.count(".") <= 1, f"{node.module} is not public"
        public = importlib.import_module(node.module).__all__
        for alias in node.names:
            assert alias.name in public, f"{node.module} does not list {alias.name}"


def test_there_are_files_to_look_at() -> None:
    assert len(FILES) >= 18
