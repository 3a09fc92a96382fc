"""Diffs at three depths, and explanations: what they name, group and count."""

from pathlib import Path

import numpy as np
import pytest
from torch import fx, nn

from yqc import Context, Pipeline
from yqc.emit import emit, save
from yqc.errors import CheckpointError, PipelineError
from yqc.graph.serial import save_graph
from yqc.job.explain import explain, group
from yqc.job.staged import look
from yqc.look import Diff, compare_views
from yqc.look.diff import _params
from yqc.look.fxview import of_graph
from yqc.testing import nets, traced

INT8 = "fold-bn,dce,observe,calibrate,quantize"


def under(passes: str, net: nn.Module | None = None) -> fx.GraphModule:
    gm = traced(net or nets.residual(), (1, 3, 8, 8))
    Pipeline.parse(passes).run(gm, Context(target="portable"))
    return gm


@pytest.fixture(scope="module")
def int8() -> Diff:
    return compare_views(
        of_graph(under("fold-bn,dce"), "a"), of_graph(under(INT8), "b"), params=True
    )


def test_ops_are_counted_by_their_onnx_names(int8: Diff) -> None:
    counts = {one.op: (one.before, one.after, one.delta) for one in int8.ops}
    assert counts == {
        "Add": (1, 1, 0),
        "Conv": (3, 3, 0),
        "DequantizeLinear": (0, 6, 6),
        "Mul": (3, 3, 0),
        "QuantizeLinear": (0, 3, 3),
        "Sigmoid": (3, 3, 0),
    }


def test_every_quantizer_is_named(int8: Diff) -> None:
    added = [n for n in int8.nodes if n.before is None]
    named = {n.name: n.ops for n in added}
    points = ("x", "stem_act", "a_act")
    weights = ("stem_conv", "a_conv", "b_conv")
    assert named == {
        **{f"{p}_q": ("QuantizeLinear",) for p in points},
        **{f"{p}_dq": ("DequantizeLinear",) for p in points},
        **{f"{w}_weight": ("DequantizeLinear",) for w in weights},
    }
    assert "+%x_q: u8[1,3,8,8] = QuantizeLinear(%x, x_group_scale, x_group_zero)" in int8.unified


def test_parameters_are_compared_as_layers_use_them(int8: Diff) -> None:
    assert int8.params is not None
    assert {p.name for p in int8.params} >= {"stem_conv.weight", "a_conv.weight", "b_conv.weight"}
    for one in int8.params:
        assert one.shape_before == one.shape_after
        assert one.largest is not None
        assert 0 < one.largest < 0.1
    assert int8.bytes is not None
    stem = next(b for b in int8.bytes if b.name == "stem_conv")
    assert (stem.before, stem.after) == (4 * (6 * 27 + 6), 6 * 27 + 4 * 6 + 4 * 6)


def test_a_graph_is_the_same_as_itself() -> None:
    found = compare_views(of_graph(under("fold-bn")), of_graph(under("fold-bn")), params=True)
    assert found.same
    assert (found.nodes, found.unified, found.params, found.bytes) == ((), (), (), ())


def test_a_snapshot_is_the_same_as_the_file_it_becomes(tmp_path: Path) -> None:
    gm = under(INT8, nets.detector())
    save_graph(gm, tmp_path / "g.yqc")
    save(emit(gm), tmp_path / "g.onnx")
    sides = look(tmp_path / "g.yqc", emitted=True), look(tmp_path / "g.onnx")
    assert compare_views(*sides, params=True).same


def test_what_only_unpacks_weights_is_counted_and_not_listed(tmp_path: Path) -> None:
    for name, passes in (("float", "fold-bn"), ("packed", "fold-bn,dce,pack-int4")):
        save(emit(under(passes, nets.detector())), tmp_path / f"{name}.onnx")
    plain, packed = look(tmp_path / "float.onnx"), look(tmp_path / "packed.onnx")
    found = compare_views(plain, packed)
    assert found.unpacking == (0, sum(one.delta for one in found.ops))
    assert found.unpacking[1] > 0
    assert not [one.name for one in found.nodes if one.before is None]
    assert "nodes that only unpack weights" in str(found)
    assert not found.same


@pytest.mark.parametrize(("factor", "listed"), [(1 + 4e-7, False), (1 + 4e-6, True)])
def test_weights_that_differ_by_float_rounding_are_the_same(factor: float, listed: bool) -> None:
    plain = np.array([1e-3, -2.0], np.float32)
    found = _params({"conv.weight": plain}, {"conv.weight": (plain * factor).astype(np.float32)})
    assert [one.name for one in found] == ["conv.weight"] * listed


def test_what_is_gone_is_named() -> None:
    found = compare_views(of_graph(under("dce")), of_graph(under("fold-bn")))
    gone = [(n.name, n.ops) for n in found.nodes if n.after is None]
    assert gone == [(f"{u}_bn", ("BatchNormalization",)) for u in ("stem", "a", "b")]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_graph(traced(nets.conv_bn(tap=True), (1, 3, 8, 8)), tmp_path / "net.yqc")
    return tmp_path / "net.yqc"


def test_explain_tells_refusals_with_their_reasons(model: Path) -> None:
    (found,) = explain("fold-bn", model)
    assert (found.rewrites, found.counts) == ((), (0, 1))
    assert [(g.what, g.nodes) for g in found.skips] == [("conv has other users", ("bn",))]


def test_explain_runs_what_a_pass_needs_before_it(checkpoint: Path) -> None:
    (found,) = explain("quantize", checkpoint)
    assert found.after == "fold-bn,observe,calibrate"
    kinds = {g.what: len(g.nodes) for g in found.rewrites}
    assert kinds.keys() == {"became quantize-dequantize", "weights became int8"}


def test_explain_takes_a_recipe_apart(checkpoint: Path) -> None:
    names = [one.name for one in explain("fuse", checkpoint)]
    assert names == ["reparam", "fold-bn", "dce"]


def test_explain_marks_nodes_in_a_drawing(model: Path) -> None:
    (found,) = explain("fold-bn", model, draw=True)
    assert found.drawing is not None
    assert '"bn" [label="bn\\nBatchNorm2d' in found.drawing
    assert 'fillcolor="#ffd54a"' in found.drawing


def test_a_pass_that_tells_and_draws_is_not_run(model: Path) -> None:
    (found,) = explain("prune", model, draw=True)
    assert any(" => " in line for line in found.lines)
    assert found.rewrites == ()
    assert found.drawing is not None
    assert found.drawing.startswith("graph yqc {")
    assert found.groups is not None
    assert {"target", "side", "pinned"} <= found.groups["nodes"][0].keys()


def test_explain_refuses_what_it_cannot(model: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="unknown pass 'fold'"):
        explain("fold", model)
    with pytest.raises(PipelineError, match="expected the name of a pass"):
        explain("", model)
    (tmp_path / "x.onnx").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="passes run on checkpoints"):
        explain("dce", tmp_path / "x.onnx")
    with pytest.raises(CheckpointError, match="there is no file"):
        explain("dce", tmp_path / "y.pt")


def test_groups_leave_out_what_varies() -> None:
    said = [("a", "c1 has 2 users"), ("b", "c2 has 3 users"), ("c", "it pads")]
    found = group(said, {"c1", "c2"})
    assert [(g.what, g.nodes) for g in found] == [
        (".. has .. users", ("a", "b")),
        ("it pads", ("c",)),
    ]
