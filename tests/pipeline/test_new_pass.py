"""`yqc new-pass`, and the page on writing passes: what they show works as it stands."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from yqc import Context, Given, Pass, Pipeline, text
from yqc.emit import TABLE, emit
from yqc.errors import OutputError, PipelineError
from yqc.graph.optable import MODULES, WHOLE
from yqc.graph.serial import load_graph, save_graph
from yqc.pipeline.new_pass import new_pass
from yqc.pipeline.registry import Registry
from yqc.pipeline.watchers import Verify
from yqc.registered import SETS
from yqc.testing import apply, assert_same_numbers, calibrated, nets, run, traced

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
    """Return the files that the page shows, by the titles of their blocks."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r'^```\w+ title="([\w.]+)"\n(.*?)^```$', text, re.DOTALL | re.MULTILINE)
    return dict(found)


def shown(name: str, folder: Path) -> Registry:
    """Write a file that the page shows, and load the passes in it."""
    path = folder / name
    path.write_text(blocks()[name], encoding="utf-8")
    registry = Registry.default()
    registry.load_file(path)
    return registry


@pytest.mark.slow
def test_the_page_shows_a_pass_a_test_and_a_package_that_work(tmp_path: Path) -> None:
    files = blocks()
    assert set(re.findall(r"^```(?!sh$)\w+.*$", PAGE.read_text("utf-8"), re.MULTILINE)) == {
        f'```{"toml" if name.endswith("toml") else "python"} title="{name}"' for name in files
    }, "every block is a file that is tested here"
    for name in ("drop_identity.py", "test_drop_identity.py", "pyproject.toml"):
        (tmp_path / name).write_text(files[name], encoding="utf-8")
    done = run_tests(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    registry = Registry.default()
    assert registry.load_file(tmp_path / "drop_identity.py") == ["drop-identity"]
    said = registry.found["drop-identity"].summary()
    assert said == "drop modules that return what they are given."


class Summed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x + x, x + 1), 1)


def test_the_page_shows_a_pattern_of_several_nodes(tmp_path: Path) -> None:
    gm, ctx = traced(Summed(), (1, 3, 4, 4)), Context()
    want = run(gm)
    Pipeline.parse("double-sum", shown("double_sum.py", tmp_path)).run(gm, ctx, [Verify()])
    assert text(gm).splitlines()[1:3] == [
        "%mul: f32[1,3,4,4] = mul(2.0, %x)",
        "%add_1: f32[1,3,4,4] = add(%x, 1)",
    ]
    assert_same_numbers(run(gm), want, tolerance=0)
    assert [(r.node, r.what) for r in ctx.rewrites] == [("add", "x + x became 2 * x")]


def test_the_page_shows_marks_and_what_a_pass_says(tmp_path: Path) -> None:
    registry = shown("narrow.py", tmp_path)
    with pytest.raises(PipelineError, match="put mark-narrow before it"):
        Pipeline.parse("list-narrow", registry).expand()
    gm, ctx = traced(nets.chain(*(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 8, 1))), (1, 4, 4, 4)), Context()
    steps = Pipeline.parse("mark-narrow,list-narrow", registry).run(gm, ctx)
    assert [step.record.says for step in steps] == [
        ("1 of 2 convolutions have less than 6 channels",),
        ("conv2d: 4",),
    ]
    assert str(steps[0].chosen) == "mark-narrow{below=6}"
    mark_narrow = registry.load("mark-narrow")()
    assert isinstance(mark_narrow, Pass)
    assert mark_narrow.explain(gm, ctx) == ["conv2d has 4 channels", "conv2d_1 has 8 channels"]


def test_the_page_shows_a_recipe_that_sees_the_data(tmp_path: Path) -> None:
    pipeline = Pipeline.parse("edge", shown("edge.py", tmp_path))
    eight = str(Pipeline(pipeline.expand())).split(",")
    with_data = str(Pipeline(pipeline.expand(given=Given(has_data=True)))).split(",")
    assert eight[0] == "reparam"
    assert with_data == ["channel-prune{ratio=0.3}", *eight]


@pytest.fixture
def registered() -> Iterator[None]:
    """Forget what the test registers."""
    tables: list[dict[Any, Any]] = [TABLE, WHOLE, MODULES, *(names._added for names in SETS)]
    before = [dict(table) for table in tables]
    yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)


@pytest.mark.usefixtures("registered")
def test_the_page_shows_what_is_registered_by_name(tmp_path: Path) -> None:
    for name in ("median.py", "ranges.py", "normal_float.py", "acme_npu.py"):
        shown(name, tmp_path)
    for passes in (
        "channel-prune{ratio=0.2 criterion=median round_to=1}",
        "fold-bn,observe,calibrate{ranges=three-sigma}",
        "fold-bn,observe,calibrate{observer=moving-average}",
        "fold-bn,cluster{table=normal-float spare=0}",
    ):
        gm = traced(nets.residual(), (1, 3, 12, 12))
        assert apply(passes, gm, calibrated(gm)).changed, passes
    target = Context(target="acme-npu").rules
    assert (target.activations, target.limits.kernel) == ("int8", 5)


@pytest.mark.usefixtures("registered")
def test_the_page_shows_a_pass_with_an_operator_of_its_own(tmp_path: Path) -> None:
    registry = shown("mish2.py", tmp_path)
    gm = traced(nets.chain(nn.Conv2d(3, 4, 1), nn.Mish()), (1, 3, 8, 8))
    Pipeline.parse("mish2", registry).run(gm, Context(), [Verify()])
    made = emit(gm).graph.node[-1]
    assert (made.domain, made.op_type, made.attribute[0].f) == ("acme.ops", "Mish2", 1.0)
    save_graph(gm, tmp_path / "x.yqc")
    assert_same_numbers(run(load_graph(tmp_path / "x.yqc")[0]), run(gm), tolerance=0)


def test_the_page_shows_numbers_of_nodes(tmp_path: Path) -> None:
    gm = traced(nets.chain(nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)), (1, 3, 8, 8))
    steps = Pipeline.parse("drift", shown("drift.py", tmp_path)).run(gm, Context(), [Verify()])
    (found,) = steps[0].record.values
    assert found.node == "conv2d"
    assert set(found.numbers) == {"mean", "relevance"}
    assert found.numbers["relevance"] > 0


EARLIER = '''"""earlier: a pass, a mark and a recipe as the page taught them before yqc.rewrite."""

import operator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

import yqc
from yqc import Context, Pass, Recipe, role
from yqc.graph.match import Match, function, rewrite_all, var
from yqc.graph.metadata import topic
from yqc.graph.optable import allow_function

SUM = function((operator.add, torch.add), var("x"), var("x"), name="sum")


def twice(x):
    return x * 2.0


allow_function("earlier.twice", twice)


@yqc.lowering(twice)
def lower_twice(e, node, x):
    return e.op("Mul", x, e.scalar(2.0))


@topic("earlier")
@dataclass(frozen=True)
class Doubled:
    of: str


@dataclass(frozen=True)
class Earlier(Pass):
    name: ClassVar[str] = "earlier"
    keeps_numbers: ClassVar[bool] = True

    def run(self, gm: fx.GraphModule, ctx: Context) -> None:
        rewrite_all(gm, ctx, SUM, self.rewrite, check=self.check, what="x + x became 2x")

    def check(self, gm: fx.GraphModule, found: Match) -> str | None:
        return "it is part of the head" if role(found.root).startswith("head.") else None

    def rewrite(self, gm: fx.GraphModule, found: Match) -> fx.Node:
        node = gm.graph.call_function(twice, (found["x"],))
        node.meta["yqc.earlier"] = Doubled(str(found["x"]))
        return node

    def explain(self, gm: fx.GraphModule, ctx: Context) -> list[str]:
        return ["it doubles"]


@dataclass(frozen=True)
class EarlierRecipe(Recipe):
    name: ClassVar[str] = "earlier-recipe"

    def expand(self) -> str:
        return "earlier,dce"
'''


def test_passes_written_for_earlier_versions_go_on_working(tmp_path: Path) -> None:
    (tmp_path / "earlier.py").write_text(EARLIER, encoding="utf-8")
    registry = Registry.default()
    assert registry.load_file(tmp_path / "earlier.py") == ["earlier", "earlier-recipe"]
    gm, ctx = traced(Summed(), (1, 3, 4, 4)), Context()
    want = run(gm)
    Pipeline.parse("earlier-recipe", registry).run(gm, ctx, [Verify()])
    assert [(r.node, r.what) for r in ctx.rewrites] == [("add", "x + x became 2x")]
    assert_same_numbers(run(gm), want, tolerance=0)
    save_graph(gm, tmp_path / "graph.yqc", {})
    loaded, *_ = load_graph(tmp_path / "graph.yqc")
    assert text(loaded) == text(gm)
    (mark,) = [n.meta["yqc.earlier"] for n in loaded.graph.nodes if "yqc.earlier" in n.meta]
    assert mark.of == "x"
    assert "Mul" in [node.op_type for node in emit(gm).graph.node]
