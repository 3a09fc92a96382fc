"""The view: one form for graphs and ONNX files, deterministic, and how much it knows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import fx, nn

from yqc import Context, Pipeline, text
from yqc.emit import emit, save
from yqc.errors import CheckpointError, PipelineError
from yqc.graph.serial import save_graph
from yqc.job.staged import look
from yqc.look import View
from yqc.look.fxview import of_graph
from yqc.look.printers import as_dot
from yqc.testing import nets, traced

INT8 = "fold-bn,dce,observe,calibrate,quantize"


@pytest.fixture
def folded() -> fx.GraphModule:
    gm = traced(nets.residual(), (1, 3, 8, 8))
    Pipeline.parse("fold-bn,dce").run(gm, Context())
    return gm


@pytest.fixture
def quantized() -> fx.GraphModule:
    gm = traced(nets.residual(), (1, 3, 8, 8))
    Pipeline.parse(INT8).run(gm, Context(target="portable"))
    return gm


def written(gm: fx.GraphModule, path: Path) -> Path:
    save(emit(gm, target="portable"), path)
    return path


def test_items_are_the_nodes_with_onnx_names(folded: fx.GraphModule) -> None:
    view = of_graph(folded, "net")
    assert view.text == text(folded)
    assert [item.line for item in view.items] == [
        "%x: f32[1,3,8,8] = input",
        "%stem_conv: f32[1,6,8,8] = Conv(%x)",
        "%stem_act: f32[1,6,8,8] = SiLU(%stem_conv)",
        "%a_conv: f32[1,6,8,8] = Conv(%stem_act)",
        "%a_act: f32[1,6,8,8] = SiLU(%a_conv)",
        "%b_conv: f32[1,6,8,8] = Conv(%a_act)",
        "%b_act: f32[1,6,8,8] = SiLU(%b_conv)",
        "%add: f32[1,6,8,8] = Add(%stem_act, %b_act)",
        "return %add",
    ]
    silu = view.find("a_act")
    assert silu.onnx == ("Sigmoid", "Mul")
    assert (silu.inputs, silu.users) == (("a_conv",), ("b_conv",))


def test_tensors_stand_with_the_nodes_that_read_them(quantized: fx.GraphModule) -> None:
    view = of_graph(quantized)
    q = view.find("x_q")
    assert q.line == "%x_q: u8[1,3,8,8] = QuantizeLinear(%x, x_group_scale, x_group_zero)"
    assert q.facts["quantized by"] == "scale 0.00392157, zero point 0"
    assert [(s.name, s.type, s.bytes) for s in q.stored] == [
        ("x_group_scale", "f32[]", 4),
        ("x_group_zero", "u8[]", 1),
    ]
    conv = view.find("stem.conv")
    assert conv.name == "stem_conv"
    assert conv.facts["reads x_dq"] == "scale 0.00392157, zero point 0"
    assert conv.facts["weights"] == "8 bits, symmetric per channel, nearest"
    assert conv.history[-1] == "changed by quantize: weights became int8"
    assert not any(item.op == "get_attr" for item in view.items)


def test_bytes_of_a_layer_are_what_its_integers_scales_and_bias_take(
    quantized: fx.GraphModule,
) -> None:
    stored = of_graph(quantized).bytes_by_layer()
    assert stored["stem_conv"] == 6 * 3 * 9 + 4 * 6 + 4 * 6
    assert stored["a_conv"] == 6 * 6 * 9 + 4 * 6 + 4 * 6


def test_weights_are_what_layers_use(quantized: fx.GraphModule, tmp_path: Path) -> None:
    mine = of_graph(quantized).weights()
    theirs = look(written(quantized, tmp_path / "x.onnx")).weights()
    assert (
        mine.keys()
        == theirs.keys()
        == {f"{unit}_conv.{what}" for unit in ("stem", "a", "b") for what in ("weight", "bias")}
    )
    for name, array in mine.items():
        np.testing.assert_allclose(
            array.astype(np.float64), theirs[name].astype(np.float64), rtol=1e-6, atol=1e-7
        )


def test_channels_tell_what_must_go_together(folded: fx.GraphModule) -> None:
    told = of_graph(folded).channels("stem.conv")
    assert "stem.conv.out[0:6] => b.conv.out[0:6]" in [line.partition(" (")[0] for line in told]


def test_a_neighbourhood(folded: fx.GraphModule) -> None:
    names = [[i.name for i in of_graph(folded).around("a_conv", n).items] for n in (0, 1)]
    assert names == [["a_conv"], ["stem_act", "a_conv", "a_act"]]


def test_a_node_that_is_not_there(folded: fx.GraphModule) -> None:
    with pytest.raises(PipelineError, match="has no node 'a_con'; did you mean 'a_conv'"):
        of_graph(folded, "net").find("a_con")


def test_an_onnx_file_has_the_same_names(quantized: fx.GraphModule, tmp_path: Path) -> None:
    view = look(written(quantized, tmp_path / "x.onnx"))
    line = view.find("x_q").line
    assert line == "%x_q: u8[1,3,8,8] = QuantizeLinear(%x, x_group_scale, x_group_zero)"
    assert view.code is None
    assert view.find("stem.conv").name == "stem_conv"


@pytest.mark.parametrize("form", ["text", "dot", "json"])
def test_printing_is_deterministic(form: str, tmp_path: Path) -> None:
    def once(number: int) -> str:
        gm = traced(nets.csp(), (1, 3, 8, 8))
        path = tmp_path / f"{number}.yqc"
        save_graph(gm, path)
        view = View("t", *(getattr(look(path), n) for n in ("items", "text", "code", "weights")))
        forms = {"text": view.text, "dot": as_dot(view), "json": view.to_json()}
        return forms[form]

    assert once(1) == once(2)
    assert "0x" not in once(3)


def test_dot_is_quoted_and_marks_nodes(folded: fx.GraphModule) -> None:
    lines = as_dot(of_graph(folded), {"add": "#123456"}).splitlines()
    assert lines[0] == "digraph yqc {"
    assert '  "add" [label="add\\nadd\\nf32[1,6,8,8]", fillcolor="#123456"];' in lines
    assert '  "stem_act" -> "add";' in lines
    assert lines[-1] == "}"


@pytest.mark.parametrize("content", [b"", b"no onnx"])
def test_a_damaged_onnx_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as an ONNX file"):
        look(path)


def test_a_module_that_makes_nothing_of_its_own_is_no_onnx_op() -> None:
    gm = traced(nets.chain(nn.Conv2d(3, 4, 1), nn.Identity()), (1, 3, 4, 4))
    assert of_graph(gm).find("identity").onnx == ()
    assert torch.is_tensor(gm(torch.zeros(1, 3, 4, 4)))
