"""Files are the same on every system: UTF-8 by name, lines end in one character."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for part in ("yqc", "passes") for path in (ROOT / part).rglob("*.py"))


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of methods in a file, with their names."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, node


def is_portable(name: str, call: ast.Call) -> bool:
    """Return whether a call reads and writes the same text on every system."""
    named = {one.arg for one in call.keywords}
    if name == "write_text":
        return named >= {"encoding", "newline"}
    if name == "NamedTemporaryFile":  # of bytes
        return not call.args
    return name != "read_text" or bool(call.args) or "encoding" in named


def test_text_files_name_their_encoding_and_the_end_of_lines() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in SOURCES
        for name, call in calls(path)
        if not is_portable(name, call)
    ]
    assert SOURCES
    assert not found
