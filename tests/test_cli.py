"""The command line: results on stdout, one message on stderr, and the exit status."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import yqc
from tests.command import Done, Run, here
from yqc.data import scenes
from yqc.graph.serial import load_graph
from yqc.settings import SETTINGS

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
    assert done.err.startswith("opening model and data\n"), "progress goes to stderr"
    assert "compiling" not in done.out
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
        "run it again with: yqc replay best-dce-fail.reproducer.yqc --load fail.py\n"
    )
    assert sorted(here()) == ["best-dce-fail.reproducer.yqc", "fail.py"]
    again = run("replay", "best-dce-fail.reproducer.yqc", "--load", "fail.py")
    assert again.code == 1
    assert again.err.startswith("yqc: pass 1 of 1, fail: ValueError: it is broken; the first")
    Path("fail.py").write_text(FAILING.replace("self.when == 0", "self.when == 1"))
    mended = run("replay", "best-dce-fail.reproducer.yqc", "--load", "fail.py")
    assert mended.code == 0
    assert mended.out.startswith("fail works on this graph now: 0 rewrites, 0 skips")


# Usage: exit status 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compile", "m.pt"], "give --passes, or a recipe with --config"),
        (["compile"], "give --passes, or a recipe with --config"),
        (["compile", "--passes", "dce"], "model"),
        (
            ["compile", "m.pt", "--passes", "dce", "--imgsz", "big"],
            "--imgsz must be a size in pixels",
        ),
        (
            ["compile", "m.pt", "--passes", "dce", "--imgsz", "1,2,3"],
            "[height, width], not '1,2,3'",
        ),
        (["compile", "m.pt", "--passes", "dce", "--imgsz", "-640"], "[height, width], not '-640'"),
        (["compile", "m.pt", "--passes", "dce", "--imgsz", "64,0"], "not '64,0'"),
        (["compile", "m.pt", "--passes", "dce", "--opset", "5"], "--opset must be an ONNX opset"),
        (["compile", "m.pt", "--passes", "dce", "--seed", "x"], "--seed must be a whole number"),
        (["compile", "m.pt", "--passes", "dce", "--passes", "fuse"], "write --passes dce,fuse"),
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
    assert run("version") == run("--version") == Done(0, f"{yqc.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimize", "m.pt"], "there is no command 'optimize'; did you mean 'compile'?"),
        (["Compiel"], "there is no command 'Compiel'; did you mean 'compile'?"),
        (["INT8", "m.pt"], "int8 is a pass: yqc compile MODEL --passes int8"),
        (["passes", "INT8"], "unknown pass 'INT8'; did you mean 'int8'?"),
        (["compile", "m.pt", "--passes", "Prune,int8"], "did you mean 'prune'?"),
        (["compile", "m.pt", "--passes", "dce", "--target", "ONNXRuntime"], "mean 'onnxruntime'?"),
        (["zzz"], "there is no command 'zzz'; `yqc --help` lists them"),
    ],
)
def test_a_wrong_name_meets_the_one_that_was_meant(
    arguments: list[str], message: str, run: Run
) -> None:
    done = run(*arguments)
    assert done.code != 0
    assert message in done.err


def test_all_help_is_there_as_json(run: Run) -> None:
    done = run("--help-json")
    assert (done.code, done.err) == (0, "")
    about = json.loads(done.out)
    commands = {one["name"]: one for one in about["commands"]}
    shown = run("--help").out
    assert all(f"  {name} " in shown for name in commands)
    assert "..." not in shown.partition("Commands:")[2], "no command's line is cut"
    options = {one["name"]: one for one in commands["compile"]["options"]}
    assert {*SETTINGS} <= {*options}
    assert options["calib_images"] == {
        "name": "calib_images",
        "flags": ["--calib-images"],
        "kind": "a whole number above 0",
        "choices": None,
        "several": False,
        "required": False,
        "default": 128,
        "help": options["calib_images"]["help"],
    }
    assert options["output"]["flags"] == ["-o", "--output"]
    assert commands["bench"]["arguments"][0]["several"] is True
    runtime = next(one for one in commands["bench"]["options"] if one["name"] == "runtime")
    assert (runtime["choices"], runtime["default"]) == (["onnxruntime", "openvino"], "onnxruntime")
    required = {name: commands[name]["arguments"][0]["required"] for name in ("compile", "eval")}
    assert required == {"compile": False, "eval": True}  # a recipe names a model, too


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("yqc compile m.pt --passes prune,in", ["prune,int4", "prune,int8"]),
        ("yqc compile m.pt --target o", ["onnxruntime", "ort", "openvino", "ov"]),
        ("yqc passes fold", ["fold-bn"]),
        ("yqc expl", ["explain"]),
    ],
)
def test_a_shell_completes_commands_passes_and_targets(
    line: str, found: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_YQC_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    assert run().out.split() == found


def test_lists_the_passes(run: Run) -> None:
    done = run("passes")
    assert (done.code, done.err) == (0, "")
    assert re.search(r"fold-bn +absorb .*yqc_passes", done.out)
    rows = {r["name"]: r for r in json.loads(run("passes", "--json").out)}
    assert rows["dce"] == {
        "name": "dce",
        "doc": "erase nodes that nothing reads, and calls that return their input as it is.",
        "origin": "yqc_passes",
        "recipe": False,
        "added": [],
    }
    assert [name for name, row in rows.items() if row["recipe"]] == [
        *("codebook", "fp16", "fuse", "int4", "int8", "prune", "relu", "rice", "slim")
    ]
    recipes, _, passes = done.out.partition("\npasses ")
    assert "  int8 " in recipes
    assert "  fold-bn " in passes


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
    timed = run("bench", "a.onnx", "b.onnx", "--runs", 2, "--warmup", 0, "--json", "-q")
    assert timed.code == 0
    bench = json.loads(timed.out)
    assert [Path(r["path"]).name for r in bench["rows"]] == ["a.onnx", "b.onnx"]
    assert (bench["runs"], bench["runtime"], bench["end_to_end"]) == (2, "onnxruntime", False)
    for row in bench["rows"]:
        assert 0 < row["p10_ms"] <= row["median_ms"] <= row["p90_ms"]
        assert row["ratio"] == bench["rows"][0]["median_ms"] / row["median_ms"]
        assert row["interval"][0] <= row["ratio"] <= row["interval"][1]
        assert min(row["cpu_ms"], row["load_ms"]) > 0
    for given in ((), ("--data", data)):
        whole = run("bench", "a.onnx", "--end-to-end", *given, "--runs", 1, "-q")
        assert ", end to end," in whole.out
    assert run("bench", "a.onnx", "--data", data).code == 2
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


def test_says_nothing_of_a_reader_who_has_left() -> None:
    """As in `yqc passes | head`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        done = subprocess.run(  # this interpreter
            [sys.executable, "-m", "yqc", "passes"],
            stdout=nobody, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.stderr == ""
