"""What removes a node that a device does not take: an exact rewrite, or another activation."""

from onnx import NodeProto

from yqc.linting.graph import DEQUANTIZE, QUANTIZE, Graph
from yqc.targets import Target

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
LAYERS = CONVOLUTIONS | {"Gemm"}
"""Operators with weights; a product with a constant matrix is one, too."""
ACTIVATIONS = frozenset({
    *("HardSwish", "HardSigmoid", "LeakyRelu", "Elu", "Celu", "Selu", "Gelu", "Mish", "Softplus"),
    *("Tanh", "Sigmoid", "Clip", "Relu"),
})  # fmt: skip
"""Operators of the activations that `relu` swaps for others."""
EXACT = {
    "Slice": ("conv-for-focus", "Conv"),
    "SpaceToDepth": ("conv-for-focus", "Conv"),
    "Pad": ("pad-in-conv", "Conv"),
    "Gemm": ("conv-for-linear", "Conv"),
    "MatMul": ("conv-for-linear", "Conv"),
    "Split": ("conv-for-split", "Conv"),
    "Resize": ("deconv-for-resize", "ConvTranspose"),
}
"""For an operator that a device lacks: the pass that writes it as another one, and that one."""
EXACT_ORDER = (
    *("conv-for-focus", "pad-in-conv", "conv-for-linear", "conv-for-split"),
    *("deconv-for-resize", "split-pools"),
)
"""The passes that keep the numbers, in the order in which they run."""
SWAPS = {"relu": "Relu", "relu6": "Clip", "leaky-relu": "LeakyRelu", "hardswish": "HardSwish"}
"""The operator of each activation that `relu{to=...}` puts in."""

NAMES = {word: name for name, word in SWAPS.items()} | {
    "HardSigmoid": "hard-sigmoid",
    "Sigmoid": "silu",
    "Mul": "-",
}
"""The name of the activation of each operator in a device's file; a Mul is a part of one."""
RAW_HEADS = (
    "it is part of the decoding: --decode raw leaves it out, for the program that runs the file"
)
"""What to do about nodes of the decoding."""
ATTENTION = "no pass removes it: it belongs to attention, which multiplies computed matrices"
QUANTIZED = "compile without int8, and quantize with the device's own tools"
SIGNED = 'take a base whose activations are int8, not uint8, such as base = "tensorrt"'
NOTHING = "no pass removes it"


class Surroundings:
    """Where nodes stand: before a layer with weights or behind the last one, or in attention."""

    def __init__(self, g: Graph) -> None:
        self._graph = g
        self._before, self._around, self._behind = set[str](), set[str](), set[str]()
        for node in reversed(g.nodes):  # nodes of ONNX stand behind those that they read
            if is_layer(g, node) or not self._before.isdisjoint(node.output):
                self._before.update(node.input)
            is_near = not is_layer(g, node) and not self._around.isdisjoint(node.output)
            if is_near or is_computed_product(g, node):
                self._around.update(node.input)
                self._behind.update(node.output)
        for node in g.nodes:
            if not is_layer(g, node) and not self._behind.isdisjoint(node.input):
                self._behind.update(node.output)

    def is_decoding(self, node: NodeProto) -> bool:
        """Return whether no layer with weights depends on a node, and it is none."""
        return self._before.isdisjoint(node.output) and not is_layer(self._graph, node)

    def is_attention(self, node: NodeProto) -> bool:
        """Return whether a node multiplies computed matrices, or stands around such a product."""
        return not self._behind.isdisjoint(node.output) and not is_layer(self._graph, node)

    def is_activation(self, node: NodeProto) -> bool:
        """Return whether a node is an activation of what a convolution computes, or its part."""
        kinds = {self._maker(name) for name in node.input} & {*CONVOLUTIONS}
        if node.op_type == "Sigmoid":  # of SiLU: a product with its own input follows
            readers = self._graph.readers.get(node.output[0], [])
            return bool(kinds) and any(node.input[0] in reader.input for reader in readers)
        return bool(kinds) and node.op_type in {*ACTIVATIONS, "Mul"}

    def _maker(self, name: str) -> str:
        """Return the operator that computes a tensor, through quantizers; empty for none."""
        node = self._graph.maker.get(name)
        while node is not None and node.op_type in {QUANTIZE, DEQUANTIZE}:
            node = self._graph.maker.get(node.input[0])
        return "" if node is None else node.op_type


def is_computed_product(g: Graph, node: NodeProto) -> bool:
    """Return whether a node multiplies two computed matrices."""
    return node.op_type == "MatMul" and len(g.data_inputs(node)) == 2  # noqa: PLR2004


def is_layer(g: Graph, node: NodeProto) -> bool:
    """Return whether a node has weights: a convolution, or a product with a constant matrix."""
    if node.op_type != "MatMul":
        return node.op_type in LAYERS
    makers = [(name, g.dequantizer(name)) for name in node.input]
    constants = [name if maker is None else maker.input[0] for name, maker in makers]
    return any(min(g.constants[name].dims) > 1 for name in constants if name in g.constants)


def find_remedy(
    place: Surroundings, node: NodeProto, limit: str, target: Target
) -> tuple[str, str]:
    """Return the pass that removes a node that a device does not take, and what to do.

    Args:
        place: where nodes of the graph stand.
        node: what the device does not take.
        limit: the key of the device's file that says so.
        target: the device.

    Returns:
        The pipeline text of the pass, empty if there is none; and a sentence for the user.
    """
    dtypes = target.limits.dtypes or ()
    if place.is_decoding(node):
        return "", RAW_HEADS
    if limit == "limits.dtypes" and node.op_type in {QUANTIZE, DEQUANTIZE}:
        return "", SIGNED if {"int8", "uint8"} - {*dtypes} == {"uint8"} else QUANTIZED
    if place.is_attention(node):
        return "", ATTENTION
    if limit == "operators" and place.is_activation(node) and (swap := find_swap(target)):
        return swap, f"the recipe {swap} swaps the activation, which moves the numbers"
    would, makes = EXACT.get(node.op_type, ("", ""))
    if limit == "operators" and would and not target.runs(makes):
        return "", f"{would} writes it as {makes}, which the device does not take either"
    name = find_exact(node.op_type, limit, target)
    return name, f"the pass {name} writes it otherwise, exactly" if name else NOTHING


def find_exact(operator: str, limit: str, target: Target) -> str:
    """Return the pass that keeps the numbers and removes what is beyond a limit; empty for none."""
    if limit == "limits.pool_kernel" and operator == "MaxPool":
        most = target.limits.pool_kernel or 1
        return f"split-pools{{kernel={most}}}" if most > 1 else ""
    name, makes = EXACT.get(operator, ("", ""))
    return name if limit == "operators" and target.runs(makes) else ""


def find_swap(target: Target) -> str:
    """Return the recipe that puts in the first activation that a device has; empty for none."""
    fast = [name for name in target.fast_activations or () if name in SWAPS]
    found = next((name for name in [*fast, *SWAPS] if target.runs(SWAPS[name])), "")
    return {"": "", "relu": "relu"}.get(found, f"relu{{to={found}}}")
