"""Finding passes, which imports none, and loading the ones that are named."""

import subprocess
import sys
from pathlib import Path

import pytest

import yqc_passes
from yqc.commands.listing import describe_pass, listings
from yqc.errors import PipelineError
from yqc.pipeline.base import Pass, Recipe
from yqc.pipeline.options import Option, list_options
from yqc.pipeline.pipeline import Pipeline
from yqc.pipeline.registry import Found, Registry

SOURCE = '''"""{name}: {summary}

Algebra.
"""

from dataclasses import dataclass
from typing import ClassVar

from yqc.pipeline.base import Context, Pass


@dataclass(frozen=True)
class Mine(Pass):
    """Mine."""

    name: ClassVar[str] = "{name}"

    size: int = {size}
    """{doc}"""

    def run(self, gm: object, ctx: Context) -> None:
        """Do nothing."""
'''


def write(path: Path, name: str, summary: str = "do nothing", size: int = 1, doc: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SOURCE.format(name=name, summary=summary, size=size, doc=doc))
    return path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python finds packages in, as pip would have filled it."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def install(site: Path, package: str, points: dict[str, str]) -> None:
    info = site / f"{package}-1.2.dist-info"
    info.mkdir()
    name = package.replace("_", "-")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    lines = [f"{key} = {target}" for key, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[yqc.passes]", *lines, ""]))


# Built-ins


def test_finds_the_built_in_passes() -> None:
    registry = Registry.default()
    assert {"dce", "fold-bn", "fuse", "reparam"} <= registry.found.keys()
    assert registry.found["dce"] == Found("dce", "yqc_passes.dce:DeadCodeElimination", "yqc_passes")


def test_every_built_in_pass_loads_and_bears_its_name() -> None:
    registry = Registry.default()
    for name, found in registry.found.items():
        if found.origin == "yqc_passes":
            assert registry.load(name).name == name
            assert found.summary(), f"{name} says nothing of itself"
            assert found.summary() == registry.load(name).summary()
            assert found.is_recipe == issubclass(registry.load(name), Recipe)


def test_every_built_in_pass_is_a_name_of_the_package() -> None:
    registry = Registry.default()
    classes = {registry.load(name) for name in yqc_passes.PASSES}
    assert {getattr(yqc_passes, name) for name in yqc_passes.__all__} == classes
    assert sorted(yqc_passes.__all__) == sorted(cls.__name__ for cls in classes)
    assert dir(yqc_passes) == yqc_passes.__all__
    with pytest.raises(AttributeError, match="module 'yqc_passes' has no attribute 'Pruned'"):
        getattr(yqc_passes, "Pruned")  # noqa: B009  # a type checker knows that it is not there


QUIET = """
import sys
from yqc.cli import main
sys.argv = ["yqc", *{arguments}]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = {{"torch", "onnx", "onnxruntime", "numpy"}} & sys.modules.keys()
passes = {{m for m in sys.modules if m.startswith(("yqc_passes.", "acme"))}}
print("IMPORTED", sorted(heavy | passes))
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["compile", "--help"], ["passes"], ["passes", "--json"], ["version"]]
)
def test_help_and_the_bare_list_import_no_pass_and_no_torch(arguments: list[str]) -> None:
    done = subprocess.run(  # noqa: S603  # this interpreter
        [sys.executable, "-c", QUIET.format(arguments=arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "IMPORTED []"
    assert done.stderr == ""


def test_the_command_line_imports_no_report_before_there_is_one() -> None:
    code = "import sys, yqc.cli; print('yqc.report' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout == "False\n"


# Packages


def test_finds_the_passes_of_packages_without_importing_them(site: Path) -> None:
    path = write(site / "acme_yqc" / "shrink.py", "shrink", "make it small", doc="How small.")
    path.write_text(path.read_text() + "\nraise RuntimeError('imported')\n")
    install(site, "acme_yqc", {"shrink": "acme_yqc.shrink:Mine"})
    registry = Registry.default()
    assert registry.found["shrink"] == Found("shrink", "acme_yqc.shrink:Mine", "acme-yqc 1.2")
    rows = {r.name: r for r in listings(registry).passes}
    assert (rows["shrink"].doc, rows["shrink"].origin) == ("make it small", "acme-yqc 1.2")
    with pytest.raises(PipelineError) as caught:
        registry.load("shrink")
    assert str(caught.value) == (
        "pass 'shrink' of acme-yqc 1.2 cannot be imported: RuntimeError: imported"
    )


def test_runs_the_passes_of_packages(site: Path) -> None:
    write(site / "acme_good.py", "grow", size=3)
    install(site, "acme_good", {"grow": "acme_good:Mine"})
    registry = Registry.default()
    assert str(Pipeline.parse("grow{size=4}", registry)) == "grow{size=4}"
    assert listings(registry).passes[[r.name for r in listings(registry).passes].index("grow")].doc


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("acme_absent:Mine", "cannot be imported: ModuleNotFoundError: No module named"),
        ("acme_bad:Yours", "cannot be imported: AttributeError: module 'acme_bad' has no"),
        ("acme_bad:dataclass", "acme_bad:dataclass of acme-bad 1.2 is not a pass named 'x'"),
        ("acme_bad:Mine", "acme_bad:Mine of acme-bad 1.2 is not a pass named 'x'"),
    ],
)
def test_a_package_whose_pass_is_none_is_named(site: Path, target: str, message: str) -> None:
    write(site / "acme_bad.py", "another-name")
    install(site, "acme_bad", {"x": target})
    sys.modules.pop("acme_bad", None)
    with pytest.raises(PipelineError) as caught:
        Registry.default().load("x")
    assert message in str(caught.value)


def test_a_package_that_is_no_python_is_listed_all_the_same(site: Path) -> None:
    (site / "acme_torn.py").write_text("def broken(:\n")
    install(site, "acme_torn", {"torn": "acme_torn:Mine", "gone": "acme_gone:Mine"})
    rows = {r.name: r.doc for r in listings(Registry.default()).passes}
    assert (rows["torn"], rows["gone"]) == ("", "")


def test_two_passes_of_one_name_are_an_error_that_names_both(site: Path) -> None:
    write(site / "acme_clash.py", "dce")
    install(site, "acme_clash", {"dce": "acme_clash:Mine"})
    with pytest.raises(PipelineError) as caught:
        Registry.default()
    assert str(caught.value) == (
        "two passes are named 'dce': one from yqc_passes (yqc_passes.dce:DeadCodeElimination) "
        "and one from acme-clash 1.2 (acme_clash:Mine); rename one of them"
    )


# Files


def test_loads_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "my-pass.py", "mine", "from a file", size=7, doc="How much.")
    registry = Registry.default()
    assert registry.load_file(path) == ["mine"]
    assert registry.found["mine"].origin == str(path)
    assert registry.found["mine"].summary() == "from a file"
    about = describe_pass(registry, "mine")
    assert about.doc.startswith("mine: from a file")
    assert [(o.name, o.type, o.default, o.doc) for o in about.options] == [
        ("size", "int", "7", "How much.")
    ]
    assert str(Pipeline.parse("dce,mine{size=2}", registry)) == "dce,mine{size=2}"


def test_a_file_may_be_loaded_twice(tmp_path: Path) -> None:
    path, registry = write(tmp_path / "a.py", "mine"), Registry()
    assert registry.load_file(path) == registry.load_file(path) == ["mine"]


def test_files_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    registry = Registry()
    for size in (1, 2):
        registry.load_file(
            write(tmp_path / str(size) / "a.py", f"p{size}", size=size, doc=f"{size}.")
        )
    for size in (1, 2):
        kind = registry.load(f"p{size}")
        assert list_options(kind) == [Option("size", "int", str(size), f"{size}.")]


def test_only_what_a_file_defines_is_added(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    write(path, "mine")
    path.write_text(
        path.read_text() + "\nfrom yqc_passes.dce import DeadCodeElimination"
        "\nclass Base(Pass):\n    pass\n"
    )
    assert Registry().load_file(path) == ["mine"]


def test_a_file_cannot_take_the_name_of_another_pass(tmp_path: Path) -> None:
    path = write(tmp_path / "a.py", "dce")
    with pytest.raises(PipelineError, match=r"two passes are named 'dce': .*yqc_passes.*a\.py"):
        Registry.default().load_file(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.py", None, "cannot load {path}: it is not a Python file"),
        ("a.txt", "x = 1", "cannot load {path}: it is not a Python file"),
        ("a.py", "def broken(:", "cannot load {path}: SyntaxError: "),
        ("a.py", "1 / 0", "cannot load {path}: ZeroDivisionError: division by zero"),
        ("a.py", "import no_such_thing", "cannot load {path}: ModuleNotFoundError: "),
        ("a.py", "raise SystemExit(3)", "cannot load {path}: SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_loaded(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    path, modules = tmp_path / name, set(sys.modules)
    if content is not None:
        path.write_text(content)
    with pytest.raises(PipelineError) as caught:
        Registry().load_file(path)
    assert str(caught.value).startswith(message.format(path=path))
    assert set(sys.modules) == modules


def test_loading_by_hand() -> None:
    registry = Registry.default()
    kind = registry.load("fold-bn")
    assert issubclass(kind, Pass)
    assert registry.load("fold-bn") is kind
