"""`yqc new-pass`, and the page that tells how to write passes: what they say works as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from yqc.errors import OutputError, PipelineError
from yqc.pipeline.new_pass import new_pass
from yqc.pipeline.registry import Registry

PAGE = Path(__file__).parents[2] / "docs" / "writing-passes.md"


def run_tests(folder: Path) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    return subprocess.run(  # noqa: S603  # this interpreter
        asked, cwd=folder, capture_output=True, text=True, check=False
    )


def test_what_the_template_writes_passes_at_once(tmp_path: Path) -> None:
    written = new_pass("tidy-relu", tmp_path / "p", package=True, registry=Registry.default())
    assert [p.name for p in written] == ["tidy_relu.py", "test_tidy_relu.py", "pyproject.toml"]
    done = run_tests(tmp_path / "p")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    registry = Registry.default()
    assert registry.load_file(tmp_path / "p" / "tidy_relu.py") == ["tidy-relu"]
    assert registry.found["tidy-relu"].origin.endswith("tidy_relu.py")


def test_nothing_is_overwritten_and_no_name_taken_twice(tmp_path: Path) -> None:
    registry = Registry.default()
    (tmp_path / "test_mine.py").write_text("mine")
    with pytest.raises(OutputError, match=r"test_mine\.py is there already; nothing was written"):
        new_pass("mine", tmp_path, package=False, registry=registry)
    assert [p.name for p in tmp_path.iterdir()] == ["test_mine.py"]
    with pytest.raises(PipelineError, match="there is a pass 'dce' already, from yqc_passes"):
        new_pass("dce", tmp_path, package=False, registry=registry)
    for bad in ("Mine", "my pass", "my_pass", "-x", "a--b", "import", ""):
        with pytest.raises(PipelineError, match="is no name of a pass"):
            new_pass(bad, tmp_path, package=False, registry=registry)


def blocks() -> dict[str, str]:
    """The files that the page shows, by the titles of their blocks."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r'^```\w+ title="([\w.]+)"\n(.*?)^```$', text, re.DOTALL | re.MULTILINE)
    return dict(found)


def test_the_page_shows_a_pass_a_test_and_a_package_that_work(tmp_path: Path) -> None:
    files = blocks()
    assert list(files) == ["drop_identity.py", "test_drop_identity.py", "pyproject.toml"]
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    done = run_tests(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    registry = Registry.default()
    assert registry.load_file(tmp_path / "drop_identity.py") == ["drop-identity"]
    shown = registry.found["drop-identity"].summary()
    assert shown == "drop modules that return what they are given."
