"""pack-rice: what the graph becomes, that the budget is a bound, what is refused and why."""

import copy
from pathlib import Path

import pytest
import torch
from torch import fx

from tests.passes.nets import X, calibrated, quality, traced
from yqc import Context, Pipeline, testing, text
from yqc.emit import emit, layer_bytes, roundtrip, save, size_parts, weight_bytes
from yqc.emit.loaded import list_decoded
from yqc.errors import CheckpointError, OptionError, PassError
from yqc.graph.compare import parameter_count
from yqc.graph.serial import load_graph, save_graph
from yqc.quant.marks import QuantizedLayer
from yqc.testing import nets
from yqc_passes.pack_rice import METADATA

BITS = "fold-bn,pack-rice{bits=5}"


@pytest.fixture(scope="module")
def packed() -> fx.GraphModule:
    return traced(BITS, calibrated())


def wide(pipeline: str, ctx: Context | None = None) -> fx.GraphModule:
    """Run a pipeline on a net with 15,000 weights."""
    gm = testing.traced(nets.mixed(32), (1, 3, 8, 8))
    Pipeline.parse(pipeline).run(gm, ctx or calibrated())
    return gm


def test_the_graph_holds_the_stream(packed: fx.GraphModule) -> None:
    lines = text(packed).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("%a_conv_weight:"))
    assert "yqc.unpack_rice(%a_conv_weight_packed, %a_conv_weight_scale, " in lines[at]
    assert lines[at].endswith("8, 0])") or lines[at].endswith(", 0])")
    marks = [mark for node in packed.graph.nodes if (mark := QuantizedLayer.on(node))]
    assert {mark.scheme for mark in marks} == {"rice"}
    held = sum(t.numel() * t.element_size() for t in packed.state_dict().values())
    assert sum(mark.weight_bytes for mark in marks) == held
    total = sum(t.numel() for n, t in packed.state_dict().items() if n.endswith("_packed"))
    weights = sum(torch.Size(mark.shape).numel() for mark in marks)
    assert 8 * total / weights <= 5
    assert quality(packed) > 20


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "tensorrt", "portable"])
def test_the_file_computes_what_the_graph_does(packed: fx.GraphModule, target: str) -> None:
    model = emit(packed, target=target)
    assert roundtrip(packed, model, X).within(values=1e-5)
    held = sum(t.numel() * t.element_size() for t in packed.state_dict().values())
    assert sum(layer_bytes(model).values()) <= 1.5 * held
    made = {name for node in model.graph.node for name in node.output}
    assert max(map(len, made - {out.name for out in model.graph.output})) <= 2
    assert {"out", "a_conv"} <= {node.name for node in model.graph.node}
    codes = sum(t.numel() for n, t in packed.state_dict().items() if n.endswith("_packed"))
    assert abs(size_parts(model)["weights"] - codes) < 60
    assert next(o.version for o in model.opset_import) == 18


def test_it_is_saved_and_a_damaged_stream_is_refused(
    packed: fx.GraphModule, tmp_path: Path
) -> None:
    save_graph(packed, tmp_path / "g.yqc")
    again, _, _ = load_graph(tmp_path / "g.yqc")
    assert torch.equal(again(X), packed(X))
    assert text(again) == text(packed)
    codes = packed.get_buffer("out.weight_packed")
    for wrong in (codes[:-1], torch.full_like(codes, 255)):
        damaged = copy.deepcopy(packed)
        damaged.get_submodule("out").register_buffer("weight_packed", wrong)
        save_graph(damaged, tmp_path / "bad.yqc")
        with pytest.raises(CheckpointError, match=r"bad.yqc: it is damaged \(.*stream"):
            load_graph(tmp_path / "bad.yqc")


@pytest.mark.parametrize("budget", ["ratio_vs_fp16=3", "bytes=14KB"])
def test_the_budget_is_a_bound_and_is_used(budget: str) -> None:
    gm = wide(f"fold-bn,pack-rice{{{budget}}}")
    model = emit(gm)
    parameters = parameter_count(testing.traced(nets.mixed(32), (1, 3, 8, 8)))
    if budget.startswith("bytes"):
        assert 13000 < model.ByteSize() + METADATA <= 14000
    else:
        assert 0.9 < weight_bytes(model) * 3 / (2 * parameters) <= 1


@pytest.mark.parametrize(("original", "ratio"), [(32, 4.0), (64, 5.5)])
def test_without_a_budget_the_ratio_follows_what_pruning_left(original: int, ratio: float) -> None:
    ctx = calibrated()
    ctx.original = testing.traced(nets.mixed(original), (1, 3, 8, 8))
    gm = wide("fold-bn,pack-rice", ctx)
    parameters = parameter_count(testing.traced(nets.mixed(32), (1, 3, 8, 8)))
    assert ratio <= 2 * parameters / weight_bytes(emit(gm)) < 1.1 * ratio


def test_without_data_it_follows_the_batch_norms() -> None:
    gm = traced(BITS)
    assert quality(gm) > 10


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ("bits=4 bytes=9KB", OptionError, "give one budget"),
        ("bytes=100", PassError, "stored beside the codes"),
        ("max_drop=1%", PassError, "judged on calibration images"),
    ],
)
def test_what_is_refused(options: str, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        traced(f"fold-bn,pack-rice{{{options}}}")


def test_onnxruntime_decodes_it_when_it_loads_the_file(
    packed: fx.GraphModule, tmp_path: Path
) -> None:
    save(emit(packed), tmp_path / "m.onnx")
    assert list_decoded(tmp_path / "m.onnx") == ()
