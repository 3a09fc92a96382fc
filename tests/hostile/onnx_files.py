"""Malformed and malicious ONNX files by name, made by code."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
Maker = Callable[[], onnx.ModelProto]


def image(*shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info("images", FLOAT, shape or (1, 3, 32, 32))


OUTPUT = helper.make_tensor_value_info("output0", FLOAT, (1, 6, 8))


def model(
    nodes: list[onnx.NodeProto] | None = None,
    inputs: list[onnx.ValueInfoProto] | None = None,
    outputs: list[onnx.ValueInfoProto] | None = None,
    initializers: list[onnx.TensorProto] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """Return a model: by default a detector that pools its input and finds nothing."""
    graph = helper.make_graph(
        detector() if nodes is None else nodes,
        "g",
        [image()] if inputs is None else inputs,
        [OUTPUT] if outputs is None else outputs,
        [shape_of(1, 6, 8), *(initializers or ())],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 8
    return made


def detector() -> list[onnx.NodeProto]:
    return [
        helper.make_node("ReduceMean", ["images"], ["mean"], name="mean", keepdims=1),
        helper.make_node("Expand", ["mean", "shape"], ["output0"], name="spread"),
    ]


def shape_of(*dims: int, name: str = "shape") -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(dims, np.int64), name)


def number(kind: type[np.generic], value: int, name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, kind), name)


def tensor(name: str, kind: int, dims: tuple[int, ...], data: bytes = b"") -> onnx.TensorProto:
    made = onnx.TensorProto(name=name, data_type=kind, dims=dims)
    made.raw_data = data
    return made


def conv(weight: str = "w", **more: Any) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Conv", ["images", weight], ["y"], name="conv", **more),
        helper.make_node("ReduceMean", ["y"], ["mean"], name="mean", keepdims=1),
        helper.make_node("Expand", ["mean", "shape"], ["output0"], name="spread"),
    ]


def weight(*dims: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(dims or (4, 3, 3, 3), np.float32), "w")


def changed(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    made = model(conv(), initializers=[weight()])
    change(made)
    return made


def external(location: str, *, offset: int = 0, length: int = 432) -> onnx.ModelProto:
    made = tensor("w", FLOAT, (4, 3, 3, 3))
    made.ClearField("raw_data")
    made.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        made.external_data.add(key=key, value=str(value))
    return model(conv(), initializers=[made])


def nested(depth: int) -> onnx.ModelProto:
    inner = least = helper.make_graph(detector(), "g", [], [OUTPUT])
    for _ in range(depth):
        node = helper.make_node("If", ["yes"], ["output0"], then_branch=inner, else_branch=least)
        inner = helper.make_graph([node], "g", [], [OUTPUT])
    return model([*inner.node], initializers=[numpy_helper.from_array(np.asarray(True), "yes")])


def functions(count: int, *, first: str) -> onnx.ModelProto:
    """Functions that call the one before twice each; `first` is what the first one calls."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    names = [first, *(f"f{i}" for i in range(count))]
    made = model(
        [
            helper.make_node(names[-1], ["images"], ["y"], domain="own"),
            helper.make_node("ReduceMean", ["y"], ["mean"], keepdims=1),
            helper.make_node("Expand", ["mean", "shape"], ["output0"]),
        ]
    )
    made.opset_import.append(opsets[1])
    for called, name in itertools.pairwise(names):
        domain = "" if called == "Relu" else "own"
        pairs = ("x", "t"), ("t", "y")
        body = [helper.make_node(called, [a], [b], domain=domain) for a, b in pairs]
        made.functions.append(helper.make_function("own", name, ["x"], ["y"], body, opsets))
    return made


def endless() -> onnx.ModelProto:
    """A loop of 2^62 rounds."""
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, ())
    value = helper.make_tensor_value_info("value", FLOAT, None)
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["flag"], ["still"]),
            helper.make_node("Relu", ["value"], ["next"]),
        ],
        "body",
        [helper.make_tensor_value_info("round", TensorProto.INT64, ()), flag, value],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("next", FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["rounds", "yes", "images"], ["looped"], body=body),
        helper.make_node("ReduceMean", ["looped"], ["mean"], keepdims=1),
        helper.make_node("Expand", ["mean", "shape"], ["output0"]),
    ]
    yes = numpy_helper.from_array(np.asarray(True), "yes")
    return model(nodes, initializers=[number(np.int64, 2**62, "rounds"), yes])


def huge(op: str) -> list[onnx.NodeProto]:
    """A tensor of 10^10 numbers, from a few bytes."""
    return [
        helper.make_node(op, ["large"] if op == "ConstantOfShape" else ["mean", "large"], ["big"]),
        helper.make_node("ReduceMean", ["big"], ["small"], keepdims=0),
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=1),
        helper.make_node("Add", ["mean", "small"], ["sum"]),
        helper.make_node("Expand", ["sum", "shape"], ["output0"]),
    ]


LARGE = shape_of(10, 1000, 1000, 1000, name="large")


def quantized(scale: onnx.TensorProto, zero: onnx.TensorProto) -> onnx.ModelProto:
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d"),
        helper.make_node("ReduceMean", ["d"], ["mean"], keepdims=1),
        helper.make_node("Expand", ["mean", "shape"], ["output0"]),
    ]
    return model(nodes, initializers=[scale, zero])


def metadata_size() -> onnx.ModelProto:
    made = model(inputs=[image("N", 3, "H", "W")])
    helper.set_model_props(made, {"imgsz": "[1000000, 1000000]"})
    return made


MODELS: dict[str, Maker] = {
    "no-graph": onnx.ModelProto,
    "no-nodes": lambda: model([]),
    "no-outputs": lambda: model(outputs=[]),
    "no-inputs": lambda: model(inputs=[]),
    "no-opset": lambda: changed(lambda m: m.ClearField("opset_import")),
    "opset-9999": lambda: model(opset=9999),
    "opset-negative": lambda: changed(lambda m: setattr(m.opset_import[0], "version", -5)),
    "ir-9999": lambda: changed(lambda m: setattr(m, "ir_version", 9999)),
    "ir-none": lambda: changed(lambda m: m.ClearField("ir_version")),
    "input-million": lambda: model(inputs=[image(1, 3, 10**6, 10**6)]),
    "input-batch": lambda: model(inputs=[image(10**7, 3, 32, 32)]),
    "input-overflow": lambda: model(inputs=[image(2**40, 3, 2**40, 2**40)]),
    "input-negative": lambda: model(inputs=[image(1, 3, -32, -32)]),
    "input-zero": lambda: model(inputs=[image(1, 3, 0, 0)]),
    "input-scalar": lambda: model(inputs=[helper.make_tensor_value_info("images", FLOAT, ())]),
    "input-no-shape": lambda: model(inputs=[helper.make_tensor_value_info("images", FLOAT, None)]),
    "input-no-type": lambda: model(inputs=[onnx.ValueInfoProto(name="images")]),
    "input-string": lambda: model(
        inputs=[helper.make_tensor_value_info("images", TensorProto.STRING, (1, 3, 32, 32))]
    ),
    "input-sequence": lambda: model(
        inputs=[helper.make_tensor_sequence_value_info("images", FLOAT, None)]
    ),
    "input-type-999": lambda: changed(
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 999)
    ),
    "inputs-two": lambda: model(
        inputs=[image(), helper.make_tensor_value_info("more", FLOAT, (1, 3, 32, 32))]
    ),
    "output-string": lambda: model(
        outputs=[helper.make_tensor_value_info("output0", TensorProto.STRING, (1, 6, 8))]
    ),
    "output-absent": lambda: model(
        outputs=[helper.make_tensor_value_info("nowhere", FLOAT, (1, 6, 8))]
    ),
    "output-million": lambda: model(
        [
            helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=1),
            helper.make_node("Expand", ["mean", "large"], ["output0"]),
        ],
        outputs=[helper.make_tensor_value_info("output0", FLOAT, (1, 6, 10**9))],
        initializers=[shape_of(1, 6, 10**9, name="large")],
    ),
    "op-unknown": lambda: changed(lambda m: setattr(m.graph.node[0], "op_type", "Nonsense")),
    "op-empty": lambda: changed(lambda m: setattr(m.graph.node[0], "op_type", "")),
    "domain-unknown": lambda: changed(lambda m: setattr(m.graph.node[0], "domain", "com.evil")),
    "node-without-inputs": lambda: changed(lambda m: m.graph.node[0].ClearField("input")),
    "node-one-input": lambda: changed(lambda m: m.graph.node[0].input.pop()),
    "node-without-outputs": lambda: changed(lambda m: m.graph.node[0].ClearField("output")),
    "node-input-absent": lambda: changed(lambda m: m.graph.node[0].input.__setitem__(1, "nowhere")),
    "constant-without-value": lambda: model([helper.make_node("Constant", [], ["c"]), *detector()]),
    "constant-sparse": lambda: model(
        [helper.make_node("Constant", [], ["c"], value_floats=[1.0]), *detector()]
    ),
    "cycle": lambda: model(
        [
            helper.make_node("Add", ["b", "images"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            *detector(),
        ]
    ),
    "self-loop": lambda: model([helper.make_node("Add", ["a", "images"], ["a"]), *detector()]),
    "value-twice": lambda: model([*detector(), *detector()]),
    "initializer-twice": lambda: model(conv(), initializers=[weight(), weight()]),
    "initializer-claims-much": lambda: model(
        conv(), initializers=[tensor("w", FLOAT, (10**6, 3, 1000, 1000))]
    ),
    "initializer-negative": lambda: model(
        conv(), initializers=[tensor("w", FLOAT, (-4, 3, 3, 3), bytes(432))]
    ),
    "initializer-short": lambda: model(
        conv(), initializers=[tensor("w", FLOAT, (4, 3, 3, 3), bytes(5))]
    ),
    "initializer-overflow": lambda: model(
        conv(), initializers=[tensor("w", FLOAT, (2**33, 2**33, 3, 3), bytes(432))]
    ),
    "initializer-type-0": lambda: model(
        conv(), initializers=[tensor("w", 0, (4, 3, 3, 3), bytes(432))]
    ),
    "initializer-type-999": lambda: changed(
        lambda m: setattr(m.graph.initializer[1], "data_type", 999)
    ),
    "initializer-string": lambda: changed(
        lambda m: setattr(m.graph.initializer[1], "data_type", TensorProto.STRING)
    ),
    "initializer-nan": lambda: model(
        conv(),
        initializers=[numpy_helper.from_array(np.full((4, 3, 3, 3), np.nan, np.float32), "w")],
    ),
    "external-absent": lambda: external("absent.bin"),
    "external-passwd": lambda: external("/etc/passwd"),
    "external-above": lambda: external("../../../../../../etc/passwd"),
    "external-device": lambda: external("/dev/zero"),
    "external-folder": lambda: external("."),
    "external-pipe": lambda: external("pipe"),
    "external-link": lambda: external("link-to-zero"),
    "external-long": lambda: external("hostile.onnx", length=10**12),
    "external-short": lambda: external("hostile.onnx", length=10),
    "external-negative": lambda: external("hostile.onnx", offset=-10, length=-1),
    "external-no-location": lambda: changed(
        lambda m: setattr(m.graph.initializer[1], "data_location", TensorProto.EXTERNAL)
    ),
    "conv-pads-huge": lambda: model(conv(pads=[10**6] * 4), initializers=[weight()]),
    "conv-strides-0": lambda: model(conv(strides=[0, 0]), initializers=[weight()]),
    "conv-strides-negative": lambda: model(conv(strides=[-1, -1]), initializers=[weight()]),
    "conv-dilations-huge": lambda: model(conv(dilations=[2**62] * 2), initializers=[weight()]),
    "conv-group-0": lambda: model(conv(group=0), initializers=[weight()]),
    "conv-kernel-lies": lambda: model(conv(kernel_shape=[999, 999]), initializers=[weight()]),
    "conv-attribute-type": lambda: model(conv(strides="two"), initializers=[weight()]),
    "conv-weight-rank": lambda: model(
        conv(), initializers=[numpy_helper.from_array(np.ones(3, np.float32), "w")]
    ),
    "makes-much-constant": lambda: model(huge("ConstantOfShape"), initializers=[LARGE]),
    "makes-much-expand": lambda: model(huge("Expand"), initializers=[LARGE]),
    "makes-much-tile": lambda: model(huge("Tile"), initializers=[LARGE]),
    "if-nested-20": lambda: nested(20),
    "if-nested-deep": lambda: nested(22),
    "functions-nested": lambda: functions(40, first="Relu"),
    "functions-endless": lambda: functions(3, first="f2"),
    "quantize-scale-0": lambda: quantized(
        number(np.float32, 0, "s"),
        number(np.uint8, 0, "z"),
    ),
    "quantize-scale-empty": lambda: quantized(
        numpy_helper.from_array(np.ones(0, np.float32), "s"),
        numpy_helper.from_array(np.ones(0, np.uint8), "z"),
    ),
    "quantize-zero-type": lambda: quantized(
        number(np.float32, 1, "s"),
        number(np.float32, 0, "z"),
    ),
    "metadata-nested": lambda: changed(
        lambda m: helper.set_model_props(m, {"names": "[" * 100_000, "imgsz": "[" * 5000})
    ),
    "metadata-nonsense": lambda: changed(
        lambda m: helper.set_model_props(
            m, {"names": "{0: {1: 2}}", "imgsz": "[10**9, 1e99]", "stride": "-1", "task": "\x1b[2J"}
        )
    ),
    "metadata-size-huge": metadata_size,
    "names-strange": lambda: changed(
        lambda m: setattr(m.graph.node[0], "name", "\x1b]0;x\x07\n" * 1000)
    ),
}


def whole() -> bytes:
    return bytes(model(conv(), initializers=[weight()]).SerializeToString())


BYTES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "zeros": lambda: bytes(10_000),
    "noise": lambda: np.random.default_rng(0).bytes(10_000),
    "text": lambda: b"hello\n" * 100,
    "json": lambda: b'{"graph": []}',
    "cut": lambda: whole()[: len(whole()) // 2],
    "cut-by-one": lambda: whole()[:-1],
    "name-no-utf8": lambda: whole().replace(b"spread", b"spr\xff\xfed"),
    "length-lies": lambda: b"\x3a\xff\xff\xff\xff\x0f" + whole(),
    "groups-nested": lambda: b"\x3a\x7f" * 5000,
}


def write_all(folder: Path) -> Iterator[tuple[str, Path]]:
    """Write every file into a folder of its own."""
    for name, make in (*MODELS.items(), *BYTES.items()):
        place = folder / name
        place.mkdir()
        path = place / "hostile.onnx"
        made: Any = make()
        path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
        yield name, path
