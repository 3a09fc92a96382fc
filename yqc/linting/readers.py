"""Rules: what readers of ONNX files that are no targets cannot load: OpenCV, MNN, ncnn.

Tried with the files that yqc writes of yolov8n: OpenCV 5.0 (`cv2.dnn`), MNN 3.6 (`mnnconvert`), and
ncnn 20261020 behind pnnx. All three load float files, with a fixed or any batch size.
"""

from collections.abc import Iterator
from functools import partial

from onnx import TensorProto

from yqc.linting.advice import compile_in_float
from yqc.linting.finding import Finding
from yqc.linting.graph import DEQUANTIZE, QUANTIZE, Graph
from yqc.linting.shared import LintRule

FOUR_BITS = (TensorProto.INT4, TensorProto.UINT4)


def suppression(g: Graph, *, reader: str) -> Iterator[Finding]:
    """Find NonMaxSuppression."""
    for node in g.nodes:
        if node.op_type == "NonMaxSuppression":
            yield Finding.at(
                node, "suppression", "error",
                f"{reader} cannot run NonMaxSuppression",
                "compile without --nms, and suppress boxes in the program that reads the file",
            )  # fmt: skip


def quantization(g: Graph, *, reader: str, weights: bool) -> Iterator[Finding]:
    """Find QuantizeLinear and DequantizeLinear of activations; with `weights`, of weights, too."""
    fix = compile_in_float(g)
    for node in g.nodes:
        if node.op_type in {QUANTIZE, DEQUANTIZE} and (weights or node.input[0] not in g.constants):
            yield Finding.at(
                node, "quantization", "error",
                f"{reader} cannot load QuantizeLinear and DequantizeLinear", fix,
            )  # fmt: skip


def four_bits(g: Graph, *, reader: str) -> Iterator[Finding]:
    """Find what reads constants of four bits."""
    fix = compile_in_float(g)
    for node in g.nodes:
        if any(g.kind(name) in FOUR_BITS for name in node.input):
            yield Finding.at(node, "four-bits", "error", f"{reader} cannot read 4-bit weights", fix)


def slow_integers(g: Graph, *, reader: str) -> Iterator[Finding]:
    """Find quantized activations where they bring no speed."""
    for node in g.quantizers():
        yield Finding.at(
            node, "slow-integers", "note",
            f"{reader} loads QuantizeLinear and DequantizeLinear, and computes no faster for them",
            f"nothing; or, for the accuracy of float at the same speed, {compile_in_float(g)}",
        )  # fmt: skip


def casts(g: Graph, *, reader: str) -> Iterator[Finding]:
    """Find values that are converted from one type to another as the model runs."""
    kinds = {value.name: value.type.tensor_type.elem_type for value in g.inputs}
    flags = {TensorProto.UINT8: "--uint8-input", TensorProto.FLOAT16: "--fp16-io"}
    given = [flags[kind] for kind in kinds.values() if kind in flags]
    fix = f"compile without {given[0]}" if given else compile_in_float(g)
    for node in g.nodes:
        if node.op_type == "Cast" and g.data_inputs(node):
            yield Finding.at(
                node, "cast", "error", f"{reader} has no layer for a Cast of computed values", fix
            )


READERS: dict[str, tuple[LintRule, ...]] = {
    "opencv": (
        partial(suppression, reader="OpenCV"),
        partial(four_bits, reader="OpenCV"),
        partial(slow_integers, reader="OpenCV"),
    ),
    "mnn": (
        partial(suppression, reader="MNN"),
        partial(quantization, reader="MNN", weights=True),
        partial(four_bits, reader="MNN"),
    ),
    "ncnn": (
        partial(suppression, reader="ncnn"),
        partial(quantization, reader="ncnn", weights=False),
        partial(casts, reader="ncnn"),
    ),
}
"""Rules by the name that `yqc lint --target` takes."""
