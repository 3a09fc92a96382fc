"""Recipes that name their model and what they need; reproducers that name their files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import yqc
from tests.command import Run
from yqc.job.keys import hash_code
from yqc.job.plugins import describe_pass
from yqc.registered import CRITERIA

SOURCE = '''"""mine: fail where it is asked to."""
from dataclasses import dataclass
from typing import ClassVar
from yqc import Pass

@dataclass(frozen=True)
class Mine(Pass):
    name: ClassVar[str] = "mine"
    fail: bool = False
    """Whether to fail."""

    def run(self, gm, ctx):
        if self.fail:
            raise ValueError("as asked")
'''
QUIET = ("--no-eval", "--no-html", "--no-verify", "--imgsz", 64)


@pytest.fixture
def mine(run: Run) -> Path:
    """A pass in a file of the working directory, which `run` makes."""
    del run
    path = Path("mine.py")
    path.write_text(SOURCE)
    return path


CRITERION = """
import yqc

@yqc.register_criterion("odd")
def odd(layer):
    return layer.rows.abs().flatten(1).sum(1)
"""


def test_a_recipe_has_its_model_and_says_what_differs(
    run: Run, mine: Path, checkpoint: Path
) -> None:
    first = ("compile", checkpoint, "--passes", "mine,dce", "--load", mine, "-q", *QUIET)
    assert run(*first, "-o", "a.onnx").code == 0
    recipe = Path("a.recipe.toml")
    assert (
        'kind = "pass"\nname = "mine"\norigin = "mine.py"\nfile = "mine.py"' in recipe.read_text()
    )

    done = run("compile", "--config", recipe, "--load", mine, "-o", "b.onnx", *QUIET[:-2])
    assert done.code == 0, done.err
    assert Path("b.onnx").read_bytes() == Path("a.onnx").read_bytes()
    assert "was written for" not in done.err

    mine.write_text(SOURCE + "\n# changed\n")
    done = run("compile", "--config", recipe, "--load", mine, "-o", "b.onnx", *QUIET[:-2])
    assert done.code == 0
    assert "another pass 'mine' of mine.py (SHA-256" in " ".join(done.err.split())

    done = run("compile", "--config", recipe, "-o", "c.onnx")
    assert done.code == 1
    assert "unknown pass 'mine'" in done.err
    assert "the recipe was written for more; it needs --load mine.py" in done.err

    text = recipe.read_text().replace(str(checkpoint), "gone.pt")
    Path("moved.toml").write_text(text)
    done = run("compile", "--config", "moved.toml", "--load", mine)
    assert done.code == 1
    assert "moved.toml was written for gone.pt (SHA-256 " in done.err
    assert "which is not there; give the model" in done.err
    Path("bare.toml").write_text('passes = "dce"\n')
    done = run("compile", "--config", "bare.toml")
    assert done.code == 2
    assert "a recipe that records one" in done.err


def test_a_recipe_names_the_file_of_its_criterion(run: Run, checkpoint: Path) -> None:
    Path("odd.py").write_text(CRITERION)
    passes = "channel-prune{ratio=0.3 criterion=odd}"
    how = ("compile", checkpoint, "--passes", passes, "--load", "odd.py", "-o", "a.onnx")
    assert run(*how, "--no-eval", "--no-html").code == 0
    CRITERIA._added.pop("odd")  # another process knows nothing of it
    done = run("compile", "--config", "a.recipe.toml", "-o", "b.onnx")
    assert done.code == 1
    assert "criterion must be" in done.err
    assert "the recipe was written for more; it needs --load odd.py" in done.err


def test_a_reproducer_names_the_files_that_it_needs(run: Run, mine: Path, checkpoint: Path) -> None:
    asked = ("compile", checkpoint, "--passes", "mine{fail=true}", "--load", mine, "-o", "a.onnx")
    done = run(*asked, *QUIET)
    assert done.code == 1
    assert "run it again with: yqc replay a.reproducer.yqc --load mine.py" in done.err
    done = run("replay", "a.reproducer.yqc")
    assert done.code == 1
    assert "unknown pass 'mine'" in done.err
    assert "run it with: yqc replay a.reproducer.yqc --load mine.py" in done.err
    mine.write_text(SOURCE.replace("if self.fail", "if False"))
    done = run("replay", "a.reproducer.yqc", "--load", mine)
    assert done.code == 0
    assert "mine{fail=true} works on this graph now" in done.out


OWN = """
@dataclass
class Own(Pass):
    name = "own"

    def run(self, gm, ctx):
        return gm
"""


def test_a_pass_of_an_interpreter_has_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of a notebook; a module without a file makes `inspect` raise OSError or TypeError."""
    monkeypatch.delattr("__main__.__file__", raising=False)
    for module in ("__main__", "builtins"):
        names: dict[str, Any] = {"Pass": yqc.Pass, "dataclass": dataclass, "__name__": module}
        exec(OWN, names)  # noqa: S102  # as an interpreter does
        own = names["Own"]()
        found = describe_pass(own, yqc.Registry.default())
        assert hash_code([own]) == set()
        assert (found.kind, found.name, found.sha256) == ("pass", "own", "")
