"""Rules that several runtimes share; `functools.partial` fits them to one."""

from collections.abc import Callable, Collection, Iterator, Mapping

from yqc.linting.advice import compile_by_int8, steps_of, undo_float_inputs
from yqc.linting.finding import Finding, Severity
from yqc.linting.graph import Graph, axis

LintRule = Callable[[Graph], Iterator[Finding]]
"""Yields what it finds in a graph."""


def per_channel_activations(g: Graph, *, severity: Severity, what: str) -> Iterator[Finding]:
    """Find activations with a scale a channel; `what` says what that does."""
    for node in g.quantizers():
        scale = g.array(node.input[1])
        if scale is not None and scale.size > 1:
            yield Finding.at(
                node, "per-channel-activation", severity, what,
                "quantize activations with one scale",
            )  # fmt: skip


def concat_scales(g: Graph, *, what: str, floats: bool) -> Iterator[Finding]:
    """Find concats of differently scaled tensors; with `floats`, of quantized and others too."""
    for node in g.before("Concat", "Conv"):
        scales = g.scales(node)
        quantized = scales - {None}
        if len(quantized) > 1 or (floats and quantized and None in scales):
            yield Finding.at(
                node, "concat-scales", "warning", what.format(len(quantized)),
                compile_by_int8(g, "give all its inputs one scale"),
            )  # fmt: skip


def weight_axis(
    g: Graph, *, wanted: Mapping[str, int], severity: Severity, what: str
) -> Iterator[Finding]:
    """Find weights with scales along another axis than the one that a kind of node wants."""
    for node, weight in g.quantized(*wanted):
        scale, right = g.array(weight.input[1]), wanted[node.op_type]
        if scale is not None and scale.size > 1 and axis(weight) != right:
            yield Finding.at(
                node, "weight-axis", severity,
                f"its weights have scales along axis {axis(weight)}{what.format(right)}",
                f"quantize the weights along axis {right}",
            )  # fmt: skip


def float_input(
    g: Graph, *, kinds: Collection[str] = ("Conv",), rule: str = "conv-input-float"
) -> Iterator[Finding]:
    """Find convolutions of integer weights whose input is a float; what was chosen is a note."""
    what = "its weights are integers and its input is not, so it runs in float"
    severity: Severity = "note"
    if next(g.quantizers(), None) is None:
        made = ",".join(item.name for item in steps_of(g))
        fix = f"compile with --passes {made},int8" if made else "quantize its input, too"
    elif (undo := undo_float_inputs(g)) is not None:
        fix = undo
    else:
        severity = "warning"
        fix = compile_by_int8(g, "put QuantizeLinear and DequantizeLinear on its input, too")
    for node, _ in g.quantized(*kinds):
        if not g.reads_integers(node.input[0]):
            yield Finding.at(node, rule, severity, what, fix)
