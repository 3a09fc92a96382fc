"""The commands that look at graphs: inspect, diff, explain, new-pass."""

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.command import Run


@pytest.fixture(scope="module")
def compiled(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a compiled model and its snapshots."""
    import yqc  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("compiled")
    kept = folder / "temps"
    yqc.compile(
        checkpoint, "int8", output=folder / "x.onnx", evaluate=False, save_temps=kept, html=False
    )
    return folder


def test_inspects_a_checkpoint_in_every_form(run: Run, checkpoint: Path) -> None:
    first = "%images: f32[1,3,64,64] = input"
    assert run("inspect", checkpoint, "--as", "text").out.splitlines()[0] == first
    assert "def forward(self, images" in run("inspect", checkpoint, "--as", "code").out
    assert run("inspect", checkpoint, "--as", "dot").out.startswith("digraph yqc {")
    table = run("inspect", checkpoint, "--as", "table").out
    assert max(map(len, table.splitlines())) <= 80
    assert "model_0_conv" in table
    found = json.loads(run("inspect", checkpoint, "--as", "json").out)
    assert found["nodes"][0]["name"] == "images"
    assert found["nodes"][1]["onnx"] == ["Conv"]


def test_one_node_with_its_history_and_channels(run: Run, compiled: Path) -> None:
    done = run("inspect", compiled / "temps" / "02-fold-bn.yqc", "--node", "model.1.conv")
    assert done.code == 0
    assert "changed by fold-bn out of model_1_bn: folded into" in done.out
    assert "model.1.conv.out[0:8] =>" in done.out
    assert "> %model_1_conv: f32[1,8,16,16] = Conv(%model_0_act)" in done.out
    asked = ("--node", "model_1_conv", "--around", 2, "--json")
    nodes = json.loads(run("inspect", compiled / "temps" / "02-fold-bn.yqc", *asked).out)["nodes"]
    assert "model_0_conv" in {n["name"] for n in nodes}


def test_inspects_an_onnx_file(run: Run, compiled: Path) -> None:
    done = run("inspect", compiled / "x.onnx")
    assert done.code == 0
    for shown in ("images f32[1,3,64,64]", "output0 f32[1,", "QuantizeLinear", "yqc.pipeline"):
        assert shown in done.out
    about = json.loads(run("inspect", compiled / "x.onnx", "--json").out)
    assert about["metadata"]["yqc.pipeline"] == "int8"
    code = run("inspect", compiled / "x.onnx", "--as", "code")
    assert (code.code, code.out) == (1, "")
    assert "holds no Python" in code.err


def test_diff_of_two_pipelines_names_every_quantizer(run: Run, checkpoint: Path) -> None:
    asked = ("--passes", "fold-bn", "--passes", "fold-bn,int8", "-q")
    done = run("diff", checkpoint, *asked)
    assert done.code == 0
    assert done.err == ""
    assert "\x1b" not in done.out
    rows = {
        line.split()[0]: line.split()[1:] for line in done.out.splitlines() if line[:1].isalpha()
    }
    assert rows["Conv"][-1] == "="
    added = [line for line in done.out.splitlines() if line.startswith("+%")]
    quantizers = [line for line in added if " = QuantizeLinear(" in line]
    assert rows["QuantizeLinear"] == ["0", str(len(quantizers)), f"+{len(quantizers)}"]
    unpackers = [line for line in added if " = DequantizeLinear(" in line]
    assert rows["DequantizeLinear"][-1] == f"+{len(unpackers)}"
    found = json.loads(run("diff", checkpoint, *asked, "--json").out)
    names = {n["name"] for n in found["nodes"] if n["ops"] == ["QuantizeLinear"]}
    assert len(names) == len(quantizers)


def test_diff_of_snapshots_and_of_a_file(run: Run, compiled: Path) -> None:
    temps = compiled / "temps"
    done = run("diff", temps / "01-reparam.yqc", temps / "02-fold-bn.yqc", "--counts", "--params")
    assert "BatchNormalization" in done.out
    assert "model_0_conv.weight" in done.out
    assert "@@" not in done.out
    same = run("diff", temps / "09-quantize.yqc", compiled / "x.onnx", "--params")
    assert "every node does the same" in same.out
    assert "every weight and bias is the same" in same.out


def test_explains_a_pass(run: Run, checkpoint: Path) -> None:
    done = run("explain", "observe{skip=model.0*}", checkpoint, "-q")
    assert done.code == 0
    assert "asked to skip it" in done.out
    assert "after fold-bn" in done.out
    (found,) = json.loads(run("explain", "fold-bn", checkpoint, "--json", "-q").out)
    assert found["name"] == "fold-bn"
    assert found["rewrites"][0]["what"] == "folded into .."
    assert run("explain", "fold-bn", checkpoint, "--as", "dot", "-q").out.startswith("digraph")


def test_makes_a_new_pass(run: Run) -> None:
    done = run("new-pass", "my-own", "-o", "there")
    assert (done.code, done.out.splitlines()) == (0, ["there/my_own.py", "there/test_my_own.py"])
    again = run("new-pass", "my-own", "-o", "there")
    assert again.code == 1
    assert "is there already" in again.err
    assert run("passes", "my-own", "--load", Path("there", "my_own.py")).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("diff", "a.pt"), 2, "give a second file"),
        (("diff", "a.pt", "b.pt", "--passes", "dce"), 2, "leave --passes out"),
        (("diff", "a.pt", "b.pt"), 1, "there is no file a.pt"),
        (("inspect", "a.pt", "--as", "text"), 1, "there is no file a.pt"),
        (("inspect", "a.onnx", "--as", "text", "--imgsz", "64"), 1, "there is no file"),
        (("explain", "fold", "a.pt"), 1, "unknown pass 'fold'"),
        (("explain", "dce", "a.pt", "--as", "table"), 2, "text, dot or json"),
    ],
)
def test_what_is_asked_wrongly_is_told(
    run: Run, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (code, "")
    assert message in " ".join(done.err.split())


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"


@pytest.mark.parametrize("form", [None, "text", "table", "dot", "json"])
def test_names_from_a_file_do_not_command_the_terminal(
    run: Run, tmp_path: Path, form: str | None
) -> None:
    image, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("images", "y")
    )
    node = helper.make_node("Relu", ["images"], ["y"], name=f"node{HOSTILE}")
    model = helper.make_model(helper.make_graph([node], "g", [image], [result]))
    model.metadata_props.add(key=f"key{HOSTILE}", value=f"one\ntwo{HOSTILE}")
    onnx.save(model, tmp_path / "x.onnx")
    done = run("inspect", tmp_path / "x.onnx", *(["--as", form] if form else ["--json"]))
    missing = run("inspect", tmp_path / "x.onnx", "--node", f"nodd{HOSTILE}")
    asked = (
        done,
        missing,
        run("inspect", tmp_path / "x.onnx"),
        run("inspect", tmp_path / "x.onnx", "--node", f"node{HOSTILE}"),
        run("diff", tmp_path / "x.onnx", tmp_path / "x.onnx"),
        run("lint", tmp_path / "x.onnx", "--all"),
        run("inspect", f"absent{HOSTILE}.onnx"),
        run("bench", tmp_path / "x.onnx", "--quiet"),
    )
    for each in asked:
        text = each.out + each.err
        assert [line for line in text.split("\n") if not line.isprintable()] == []
    assert "node\\x1b]0;owned" in missing.err
    if form == "json":
        assert json.loads(done.out)["nodes"][1]["name"] == f"node{HOSTILE}"
