"""Emission as a whole: names, leanness, opsets, refusals, determinism, the open table."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from typing import TypeAlias

import onnx
import pytest
import torch
from torch import Tensor, nn

from yqc.emit import emit, roundtrip, weight_bytes
from yqc.emit.build import build_model
from yqc.errors import EmitError
from yqc.facts import OutputForm
from yqc.models.trace import trace

Agrees: TypeAlias = Callable[..., onnx.ModelProto]
X = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]


class Detector(nn.Module):
    """One level, [N, 4+2, 8*12]: centre and size from a row, a column and an exponential."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = Block(3, 8, 2), Block(8, 8)
        self.head = nn.Conv2d(16, 6, 1)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        out = self.head(torch.cat([x, self.body(x)], 1))
        box, score = out.split([4, 2], 1)
        centre, size = box.chunk(2, 1)
        across = centre[:, :1] + torch.arange(12.0)
        down = centre[:, 1:] + torch.arange(8.0).reshape(8, 1)
        boxes = torch.cat([across, down, size.exp()], 1) * 2
        return torch.cat([boxes, score.sigmoid()], 1).flatten(2)


def detector() -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    module = Detector()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point():
            positive = name.endswith("running_var")
            tensor.data.uniform_(0.5 if positive else -0.3, 0.6, generator=generator)
    return module.eval()


def test_fx_names_are_onnx_names() -> None:
    gm = trace(detector(), X)
    model = build_model(gm, opset=None, dynamic=False)
    assert [i.name for i in model.graph.input] == ["images"]
    assert [o.name for o in model.graph.output] == ["output0"]
    computed = {n.name for n in gm.graph.nodes if n.op in {"call_module", "call_function"}}
    nodes = {n.name for n in model.graph.node}
    items = {n.name for n in gm.graph.nodes if n.name.startswith("getitem")}
    values = {value for n in model.graph.node for value in n.output}
    assert computed - items - {"split", "chunk"} <= nodes
    assert items <= values | nodes
    assert {n for n in nodes if n.split(".")[0] not in {f.name for f in gm.graph.nodes}} == set()
    stored = [t.name for t in model.graph.initializer][:5]
    assert stored[0] == "stem.conv.weight"
    assert stored[1:] == [
        f"stem.bn.{part}" for part in ("weight", "bias", "running_mean", "running_var")
    ]


def test_names_survive_simplification() -> None:
    gm = trace(detector(), X)
    before, after = build_model(gm, opset=None, dynamic=False), emit(gm)
    kept = {n.name: n.op_type for n in after.graph.node}
    assert kept.items() <= {n.name: n.op_type for n in before.graph.node}.items()
    assert {n.name for n in before.graph.node} - set(kept) == {"stem_bn", "body_bn"}
    assert {t.name for t in after.graph.initializer if len(t.dims) == 4} == {
        "stem.conv.weight",
        "body.conv.weight",
        "head.weight",
    }
    assert {"stem.conv.bias", "head.bias"} <= {t.name for t in after.graph.initializer}


def test_the_decode_stores_a_row_and_a_column_but_no_grid() -> None:
    model = emit(trace(detector(), X))
    params = 3 * 8 * 9 + 8 + 8 * 8 * 9 + 8 + 16 * 6 + 6
    shapes_and_scalars = 200
    assert weight_bytes(model) <= 4 * (params + 12 + 8) + shapes_and_scalars


class Grid(nn.Module):
    """Adds a column and a row to each other first, which folding would write out as a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block(3, 4)
        self.row = nn.Parameter(torch.linspace(-1, 1, 24))
        self.column = nn.Parameter(torch.linspace(2, 3, 16).reshape(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + (self.row + self.column)  # type: ignore[no-any-return]


def test_folding_does_not_grow_the_file(agrees: Agrees) -> None:
    model = agrees(Grid(), X)
    stored = {t.name: tuple(t.dims) for t in model.graph.initializer}
    assert stored["row"] == (24,)
    assert stored["column"] == (16, 1)
    assert "BatchNormalization" not in {n.op_type for n in model.graph.node}


def test_equal_tensors_are_stored_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, bias=False)
            self.b.weight.data.copy_(self.a.weight.data)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x) * 2) * 2  # type: ignore[no-any-return]

    model = emit(trace(Twice(), X))
    assert [t.name for t in model.graph.initializer if len(t.dims) == 4] == ["a.weight"]


@pytest.mark.parametrize("opset", range(17, 24))
def test_every_opset(opset: int) -> None:
    gm = trace(detector(), X)
    model = emit(gm, opset=opset)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]
    assert model.ir_version == {17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}[opset]
    assert roundtrip(gm, model, X, OutputForm("yolov8")).within(boxes=1e-5, scores=1e-5)


@pytest.mark.parametrize("opset", [12, 24])
def test_other_opsets_are_refused(opset: int) -> None:
    with pytest.raises(EmitError, match=f"opset {opset} is not supported; choose one from 13 to"):
        emit(trace(detector(), X), opset=opset)


def test_the_default_opset_is_17() -> None:
    assert emit(trace(detector(), X)).opset_import[0].version == 17


def test_dynamic_batch_is_symbolic_in_and_out() -> None:
    model = emit(trace(detector(), X), dynamic=True)
    dims = [v.type.tensor_type.shape.dim for v in (model.graph.input[0], model.graph.output[0])]
    assert [d[0].dim_param for d in dims] == ["batch", "batch"]
    assert [[n.dim_value for n in d][1:] for d in dims] == [[3, 16, 24], [6, 96]]


def test_a_fixed_batch_is_no_dynamic_batch(agrees: Agrees) -> None:
    def forward(x: Tensor) -> Tensor:
        return torch.cat([x, torch.ones(1, 1, 16, 24)], 1)

    agrees(forward, X)
    with pytest.raises(EmitError, match=r"the batch cannot be dynamic.*cat"):
        agrees(forward, X, dynamic=True)


def test_the_same_graph_gives_the_same_bytes_in_another_process() -> None:
    script = (
        "import sys, hashlib, importlib.util as u\n"
        f"s = u.spec_from_file_location('t', {__file__!r}); m = u.module_from_spec(s)\n"
        "s.loader.exec_module(m)\n"
        "model = m.emit(m.trace(m.detector(), m.X), metadata={'b': '1', 'a': '2'})\n"
        "print(hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest())\n"
    )
    environment = {"PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    there = subprocess.run(  # noqa: S603  # this very file
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
    ).stdout
    model = emit(trace(detector(), X), metadata={"b": "1", "a": "2"})
    here = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    assert there.strip() == here


def test_metadata_is_what_was_given_and_nothing_else() -> None:
    model = emit(trace(detector(), X), metadata={"stride": "8", "yqc.version": "0.1"})
    props = [(p.key, p.value) for p in model.metadata_props]
    assert props == [("stride", "8"), ("yqc.version", "0.1")]
    assert not model.graph.value_info
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
