"""The command line: results on stdout, one message on stderr, and the exit status."""

import io
import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import yqc
from yqc.cli import main
from yqc.data import scenes
from yqc.errors import CheckpointError
from yqc.graph.serial import load_graph


@dataclass(frozen=True)
class Done:
    """What one run of the command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `yqc` with some arguments, in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["yqc", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Done(code, *capsys.readouterr())

    return run


def here() -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in Path().iterdir() if p.is_file()}


# Compiling


def test_compiles_and_prints_the_report(run: Run, checkpoint: Path) -> None:
    done = run("compile", checkpoint, "--passes", "fuse")
    assert done.code == 0
    assert sorted(here()) == [
        "best-fuse.onnx",
        "best-fuse.recipe.toml",
        "best-fuse.report.html",
        "best-fuse.report.json",
    ]
    for shown in ("reparam,fold-bn,dce", "fold-bn", "best-fuse.onnx", "ultralytics"):
        assert shown in done.out
    assert "passes" in done.err, "progress goes to stderr"
    assert "passes:" not in done.out
    assert "\x1b" not in done.out + done.err, "no colours where there is no terminal"


def test_json_is_the_report_and_nothing_else(run: Run, checkpoint: Path) -> None:
    done = run("compile", checkpoint, "--passes", "", "--no-eval", "--json", "-o", "x.onnx")
    assert done.code == 0
    assert done.out == Path("x.report.json").read_text(encoding="utf-8")
    assert json.loads(done.out)["schema"] == "1"


def test_quiet_says_nothing(run: Run, checkpoint: Path) -> None:
    done = run("compile", checkpoint, "--passes", "dce", "--no-eval", "--quiet", "-o", "x.onnx")
    assert done == Done(0, "", "")
    assert Path("x.onnx").is_file()


def test_a_recipe_makes_the_same_file(run: Run, checkpoint: Path) -> None:
    first = ("--passes", "fold-bn{min-var=0.001},dce", "--imgsz", "64,96", "--seed", 3)
    assert run("compile", checkpoint, *first, "--no-eval", "-q", "-o", "a.onnx").code == 0
    again = ("--config", "a.recipe.toml", "--no-eval", "-q", "-o", "b.onnx")
    assert run("compile", checkpoint, *again).code == 0
    files = here()
    assert files["a.onnx"] == files["b.onnx"]
    assert files["a.recipe.toml"] == files["b.recipe.toml"]


def test_the_command_line_overrides_the_recipe(run: Run, checkpoint: Path) -> None:
    Path("r.toml").write_text('passes = "dce"\nimgsz = 96\nseed = 5\n')
    done = run("compile", checkpoint, "--config", "r.toml", "--imgsz", 64, "--no-eval", "-q")
    assert done.code == 0
    recipe = Path("best-dce.recipe.toml").read_text()
    assert "imgsz = [64, 64]" in recipe
    assert "seed = 5" in recipe


def test_prints_and_keeps_the_graph_of_every_stage(run: Run, checkpoint: Path) -> None:
    asked = ("--print-after", "fold-bn", "--print-before", "dce", "--save-temps", "temps")
    done = run("compile", checkpoint, "--passes", "fuse", "--no-eval", "-q", *asked)
    assert done.code == 0
    assert re.findall(r"^# .*", done.out, re.MULTILINE) == ["# after 2 fold-bn", "# before 3 dce"]
    assert "%model_0_conv: f32[1,8,32,32] = Conv2d(%images)" in done.out
    assert sorted(p.name for p in Path("temps").glob("*.yqc")) == [
        "00-trace.yqc",
        "01-reparam.yqc",
        "02-fold-bn.yqc",
        "03-dce.yqc",
    ]
    gm, _, _ = load_graph(Path("temps/03-dce.yqc"))
    assert gm(torch.rand(1, 3, 64, 64)).shape == (1, 4 + len(scenes.NAMES), 84)


FAILING = '''"""fail: fail."""
from dataclasses import dataclass
from typing import ClassVar
from yqc import Pass

@dataclass(frozen=True)
class Fail(Pass):
    name: ClassVar[str] = "fail"
    when: int = 0
    def run(self, gm, ctx):
        if self.when == 0:
            raise ValueError("it is broken")
'''


def test_a_failing_pass_leaves_a_reproducer_that_replay_runs(run: Run, checkpoint: Path) -> None:
    Path("fail.py").write_text(FAILING)
    asked = ("--load", "fail.py", "--passes", "dce,fail", "--no-eval", "--quiet")
    done = run("compile", checkpoint, *asked)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "yqc: pass 2 of 2, fail: ValueError: it is broken; "
        "run it again with: yqc replay best-dce-fail.reproducer.yqc\n"
    )
    assert sorted(here()) == ["best-dce-fail.reproducer.yqc", "fail.py"]
    again = run("replay", "best-dce-fail.reproducer.yqc", "--load", "fail.py")
    assert again.code == 1
    assert again.err.startswith("yqc: pass 1 of 1, fail: ValueError: it is broken; the first")
    Path("fail.py").write_text(FAILING.replace("self.when == 0", "self.when == 1"))
    mended = run("replay", "best-dce-fail.reproducer.yqc", "--load", "fail.py")
    assert mended.code == 0
    assert mended.out.startswith("fail works on this graph now: 0 rewrites, 0 skips")


# Bad input: exit status 1, one clear message, nothing written


@dataclass(frozen=True)
class Kit:
    """What bad input is made of."""

    folder: Path
    checkpoint: Path
    data: Path
    models: ModuleType

    def file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path


@pytest.fixture
def kit(tmp_path: Path, checkpoint: Path, data: Path, models: ModuleType) -> Kit:
    return Kit(tmp_path, checkpoint, data, models)


Case = tuple[list[object], str]


class Evil:
    """What a hostile checkpoint holds: an object whose unpickling is a call."""

    def __init__(self, function: Callable[..., object], argument: str) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return self.call


def evil(kit: Kit, function: Callable[..., object], form: str) -> Case:
    mark = kit.folder / "run"
    code = f"touch {mark}" if function is os.system else f"open({str(mark)!r}, 'w')"
    ckpt, path = {"model": Evil(function, code)}, kit.folder / "evil.pt"
    if form == "pickle":
        path.write_bytes(pickle.dumps(ckpt))
    else:
        torch.save(ckpt, path, _use_new_zipfile_serialization=form == "zip")
    name = "posix.system" if function is os.system else ".eval"
    return [path, "--passes", "fuse"], f"{name}, which is not among what a detector's"


def other_task(kit: Kit, task: str, head: str) -> list[object]:
    detector = kit.models.make(SMALLEST)
    detector.model[-1].pickle_as = f"ultralytics.nn.modules.head.{head}"
    path = kit.folder / "task.pt"
    kit.models.save(path, detector, "ultralytics", class_path=f"ultralytics.nn.tasks.{task}")
    return [path, "--passes", "fuse"]


SMALLEST = {
    "backbone": [[-1, 1, "Conv", [8, 3, 2]], *([-1, 1, "Conv", [8, 3, 2]] for _ in range(4))],
    "head": [[[2, 3, 4], 1, "Detect", ["nc"]]],
}


def data_yaml(kit: Kit) -> Case:
    names = json.dumps(list(scenes.NAMES))
    path = kit.file("d.yaml", f"path: .\nval: images/nowhere\nnames: {names}\n".encode())
    return [kit.checkpoint, "--passes", "fuse", "--data", path], "images/nowhere"


def coco_json(kit: Kit) -> Case:
    image = next((kit.data.parent / "images" / "val").iterdir())
    found = {
        "images": [{"id": 1, "file_name": image.name, "width": 160, "height": 160}],
        "annotations": [],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    path = kit.file("d.json", json.dumps(found).encode())
    return (
        [kit.checkpoint, "--passes", "fuse", "--data", path, "--images", image.parent],
        f"{path} has 2 classes but the model predicts 6",
    )


def passing(kit: Kit, passes: str, *more: object) -> list[object]:
    return [kit.checkpoint, "--passes", passes, *more]


def damaged(kit: Kit, content: bytes) -> list[object]:
    return [kit.file("bad.pt", content), "--passes", "fuse"]


def archive(**files: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return stream.getvalue()


NO_SIZE = (
    "image size 100 does not fit this model: height and width must be multiples of 32, "
    "its largest stride; use 96 or 128"
)

BAD: dict[str, Callable[[Kit], Case]] = {
    "zip that runs os.system": lambda k: evil(k, os.system, "zip"),
    "zip that runs eval": lambda k: evil(k, eval, "zip"),
    "legacy file that runs os.system": lambda k: evil(k, os.system, "legacy"),
    "legacy file that runs eval": lambda k: evil(k, eval, "legacy"),
    "bare pickle that runs os.system": lambda k: evil(k, os.system, "pickle"),
    "truncated": lambda k: (damaged(k, k.checkpoint.read_bytes()[:9000]), "bad.pt"),
    "cut by a byte": lambda k: (damaged(k, k.checkpoint.read_bytes()[:-1]), "bad.pt"),
    "empty": lambda k: (damaged(k, b""), "bad.pt"),
    "text": lambda k: (damaged(k, b"hello, this is no checkpoint\n" * 20), "bad.pt"),
    "zip of something else": lambda k: (damaged(k, archive(word="hello")), "bad.pt"),
    "folder": lambda k: ([k.folder, "--passes", "fuse"], str(k.folder)),
    "absent": lambda k: ([k.folder / "no.pt", "--passes", "fuse"], "no.pt"),
    "segment": lambda k: (other_task(k, "SegmentationModel", "Segment"), "for segmentation"),
    "pose": lambda k: (other_task(k, "PoseModel", "Pose"), "for pose estimation"),
    "oriented boxes": lambda k: (other_task(k, "OBBModel", "OBB"), "for oriented boxes"),
    "classify": lambda k: (other_task(k, "ClassificationModel", "Classify"), "for classification"),
    "data whose val is not there": data_yaml,
    "data with other classes": coco_json,
    "data that is not there": lambda k: (passing(k, "", "--data", "no.yaml"), "no.yaml"),
    "size between strides": lambda k: (
        passing(k, "fuse", "--imgsz", 100),
        NO_SIZE,
    ),
    "size of nothing": lambda k: (passing(k, "fuse", "--imgsz", "64,0"), "use 32"),
    "unknown pass": lambda k: (
        passing(k, "dce,fold"),
        "unknown pass 'fold'; did you mean 'fold-bn'?",
    ),
    "unknown option": lambda k: (
        passing(k, "fold-bn{min_vra=1}"),
        "fold-bn has no option 'min_vra'; did you mean 'min_var'?",
    ),
    "mistyped option": lambda k: (
        passing(k, "fold-bn{min_var=low}"),
        "fold-bn: min_var must be a number, not low",
    ),
    "grammar": lambda k: (passing(k, "fold-bn{"), "expected '}'"),
    "order that cannot be": lambda k: (passing(k, "quantize"), "needs a graph that is"),
    "unknown pass to print": lambda k: (
        passing(k, "dce", "--print-after", "fold"),
        "--print-after: unknown pass 'fold'; did you mean 'fold-bn'?",
    ),
    "recipe that is not there": lambda k: ([k.checkpoint, "--config", "r.toml"], "r.toml"),
    "file to load that is not there": lambda k: (
        passing(k, "dce", "--load", "no.py"),
        "cannot load no.py: it is not a Python file",
    ),
    "output of another kind": lambda k: (
        passing(k, "dce", "-o", "x.txt"),
        "x.txt must end in .onnx",
    ),
    "output in no folder": lambda k: (
        passing(k, "dce", "-o", "no/x.onnx"),
        "cannot write no/x.onnx: there is no folder no; make it first",
    ),
    "head that it has not": lambda k: (passing(k, "dce", "--head", "one2one"), "head"),
    "opset of long ago": lambda k: (passing(k, "dce", "--opset", 5), "opset"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_input_is_one_message_and_nothing_written(
    bad: Callable[[Kit], Case], kit: Kit, run: Run
) -> None:
    for name in ("x.onnx", "x.report.json", "x.recipe.toml"):
        Path(name).write_text("older")
    older = here()
    arguments, message = bad(kit)
    more = [] if "-o" in arguments else ["-o", "x.onnx"]
    done = run("compile", *arguments, *more, "--quiet")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("yqc: ")
    assert message in done.err
    assert "Traceback" not in done.err
    marks = re.findall(r"^ +\^+$", done.err, re.MULTILINE)
    assert len(done.err.splitlines()) == (3 if marks else 1)
    assert here() == older
    assert not (kit.folder / "run").exists(), "nothing that a checkpoint holds is run"


@pytest.mark.parametrize(
    "passes", ["dce,fold", "fold-bn{min_vra=1}", "fold-bn{min_var=low}", "a b"]
)
def test_mistakes_in_pipelines_are_pointed_at(passes: str, run: Run, checkpoint: Path) -> None:
    _, line, mark = run("compile", checkpoint, "--passes", passes).err.splitlines()
    assert line == f"  {passes}"
    pointed = line[mark.index("^") : mark.rindex("^") + 1]
    assert pointed in {"fold", "min_vra", "low", "b"}


def test_a_write_that_fails_half_way(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("x.onnx", "x.report.json", "x.recipe.toml"):
        Path(name).write_text("older")
    older, write = here(), Path.write_text

    def full(self: Path, *arguments: Any, **named: Any) -> int:
        if self.name == "x.recipe.toml":
            raise OSError(28, "No space left on device")
        return write(self, *arguments, **named)

    monkeypatch.setattr(Path, "write_text", full)
    done = run("compile", checkpoint, "--passes", "dce", "--no-eval", "-q", "-o", "x.onnx")
    assert done == Done(
        1,
        "",
        "yqc: cannot write x.onnx: No space left on device; older files are untouched\n",
    )
    assert here() == older
    assert len(list(Path().iterdir())) == 3


def test_a_folder_that_cannot_be_written(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", denied)
    done = run("compile", checkpoint, "--passes", "dce")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "yqc: cannot write into .: Permission denied; choose another place with -o\n"
    )


def test_debug_shows_the_traceback(run: Run) -> None:
    with pytest.raises(CheckpointError, match="no file absent"):
        run("inspect", "absent.pt", "--debug")


def test_interrupting_says_that_nothing_was_written(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("yqc.compiler.open_model", interrupt)
    done = run("compile", checkpoint, "--passes", "dce")
    assert done == Done(130, "", "yqc: interrupted; nothing was written\n")


# Usage: exit status 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compile", "m.pt"], "give --passes, or a recipe with --config"),
        (["compile"], "Missing argument 'model'"),
        (["compile", "m.pt", "--passes", "dce", "--imgsz", "big"], "'big' is no size; write 640"),
        (["compile", "m.pt", "--passes", "dce", "--imgsz", "1,2,3"], "'1,2,3' is no size"),
        (["compile", "m.pt", "--passes", "dce", "--imgsz", "-640"], "'-640' is no size"),
        (["compile", "m.pt", "--passes", "dce", "--target", "phone"], "phone"),
        (["compile", "m.pt", "--passes", "dce", "--calib-images", "0"], "--calib-images"),
        (["compile", "m.pt", "--pases", "dce"], "--pases"),
        (["cmopile"], "cmopile"),
        (["eval", "m.onnx"], "--data"),
    ],
)
def test_mistakes_of_usage(arguments: list[str], message: str, run: Run) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert "Traceback" not in done.err
    assert here() == {}


# The other commands


def test_version(run: Run) -> None:
    assert run("version") == Done(0, f"{yqc.__version__}\n", "")


def test_lists_the_passes(run: Run) -> None:
    done = run("passes")
    assert (done.code, done.err) == (0, "")
    assert re.search(r"fold-bn +absorb .*yqc_passes", done.out)
    rows = {r["name"]: r for r in json.loads(run("passes", "--json").out)}
    assert rows["dce"] == {
        "name": "dce",
        "doc": "drop what nothing reads, and calls that return their input as it is.",
        "origin": "yqc_passes",
    }


def test_explains_one_pass(run: Run) -> None:
    done = run("passes", "fold-bn")
    assert (done.code, done.err) == (0, "")
    for shown in ("min_var", "float", "0.0", "bn-folded", "batch norm"):
        assert shown in done.out
    about = json.loads(run("passes", "fold-bn", "--json").out)
    assert [o["name"] for o in about["options"]] == ["min_var"]
    assert about["provides"] == ["bn-folded"]
    assert json.loads(run("passes", "fuse", "--json").out)["expands_to"] == "reparam,fold-bn,dce"


def test_explaining_an_unknown_pass(run: Run) -> None:
    assert run("passes", "fold") == Done(
        1, "", "yqc: unknown pass 'fold'; did you mean 'fold-bn'?\n"
    )


def test_inspects_a_checkpoint(run: Run, checkpoint: Path) -> None:
    done = run("inspect", checkpoint)
    assert (done.code, done.err) == (0, "")
    found = json.loads(run("inspect", checkpoint, "--json").out)
    assert (found["family"], found["task"]) == ("ultralytics", "detect")
    assert (found["strides"], found["imgsz"]) == ([8, 16, 32], [64, 64])
    assert found["names"] == list(scenes.NAMES)
    assert found["blocks"]["C2f"] == 2
    for shown in ("ultralytics", "C2f", "circle"):
        assert shown in done.out


def test_inspects_what_is_not_there(run: Run) -> None:
    assert run("inspect", "no.pt") == Done(1, "", "yqc: there is no file no.pt\n")


def test_evaluates_and_times_files(run: Run, checkpoint: Path, data: Path) -> None:
    run("compile", checkpoint, "--passes", "", "--no-eval", "-q", "-o", "a.onnx")
    run("compile", checkpoint, "--passes", "fuse", "--no-eval", "-q", "-o", "b.onnx")
    found = [
        json.loads(run("eval", model, "--data", data, "--json", "-q").out)
        for model in ("a.onnx", checkpoint)
    ]
    assert [f["images"] for f in found] == [3, 3]
    assert found[0]["scores"] == pytest.approx(found[1]["scores"], abs=1e-3)
    timed = run("bench", "a.onnx", "b.onnx", "--runs", 2, "--json", "-q")
    assert timed.code == 0
    assert [Path(r["path"]).name for r in json.loads(timed.out)["rows"]] == ["a.onnx", "b.onnx"]
    twice = run("bench", "a.onnx", "a.onnx")
    assert twice == Done(1, "", "yqc: the same file is named twice; name each once\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "no.onnx", "--data", "d.yaml"], "there is no file no.onnx"),
        (["bench", "no.onnx"], "there is no file no.onnx"),
        (["replay", "no.yqc"], "there is no file no.yqc"),
    ],
)
def test_files_that_are_not_there(arguments: list[str], message: str, run: Run) -> None:
    assert run(*arguments) == Done(1, "", f"yqc: {message}\n")


def test_runs_as_a_program(checkpoint: Path, tmp_path: Path) -> None:
    """As users start it: a process of its own, from anywhere."""
    started = [sys.executable, "-m", "yqc"]
    bad = subprocess.run(  # noqa: S603  # this interpreter
        [*started, "compile", str(checkpoint), "--passes", "fold"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.splitlines() == [
        "yqc: unknown pass 'fold'; did you mean 'fold-bn'?",
        "  fold",
        "  ^^^^",
    ]
    debug = subprocess.run(  # noqa: S603
        [*started, "--debug", "passes", "fold"], capture_output=True, text=True, check=False
    )
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr
    assert debug.stderr.splitlines()[-1].startswith("yqc.errors.PipelineError: unknown pass 'fold'")
