"""The notebooks run from the first cell to the last, and are kept without outputs."""

import json
import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def cells(name: str) -> list[tuple[str, str]]:
    """Return kind and text of the cells, which must be as a fresh notebook's."""
    notebook = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    return [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]


def run(name: str) -> None:
    """Run the cells of code one after the other in one namespace, as a kernel does."""
    names: dict[str, object] = {"__name__": "__main__"}
    for number, (kind, text) in enumerate(cells(name)):
        if kind == "code":
            exec(compile(text, f"{name}[{number}]", "exec"), names)  # noqa: S102  # our own text


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_first_compile(capsys: pytest.CaptureFixture[str]) -> None:
    run("first_compile.ipynb")
    shown = capsys.readouterr().out
    size, accuracy = (
        re.search(rf"^{what} +(\S+) +(\S+)$", shown, re.MULTILINE) for what in ("bytes", "mAP")
    )
    assert size is not None
    assert accuracy is not None
    before, after = (int(text.replace(",", "")) for text in size.groups())
    assert after < before / 2.5
    assert float(accuracy[1]) > 0.5 < float(accuracy[2])
    assert 'target = "openvino"' in shown


def test_first_pass(capsys: pytest.CaptureFixture[str]) -> None:
    run("first_pass.ipynb")
    shown = capsys.readouterr().out
    assert "[('identity', 'dropped')]" in shown
    assert "[('identity', 'asked to keep it')]" in shown
    assert "('drop-identity', 0, False), ('reparam'" in shown
