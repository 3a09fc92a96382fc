"""Comparing two stages of a graph: outputs, contents, bytes and multiply-accumulates."""

import copy
import hashlib
import math
import operator
import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, fx, nn

from yqc.errors import YqcError
from yqc.graph.calls import get_attribute
from yqc.graph.half import half_kernels
from yqc.graph.roles import role
from yqc.graph.run import run_graph
from yqc.graph.text import line
from yqc.graph.values import TensorSpec, list_tensors

_NAME = re.compile(r"%(\w+)")
"""A node in the text of a graph."""
MATMULS = {torch.matmul, torch.bmm, operator.matmul}


def head_outputs(gm: fx.GraphModule, *inputs: Tensor) -> list[Tensor]:
    """Run a graph and return what its last convolutions compute, before any decoding.

    A graph without a detection head returns its outputs.
    """
    nodes = head_nodes(gm) or [gm.graph.output_node()]
    with torch.no_grad(), half_kernels(gm):
        return list_tensors(list(run_graph(gm, inputs, nodes).values()))


def head_nodes(gm: fx.GraphModule) -> list[fx.Node]:
    """List the nodes that the decoding reads, in the order in which it reads them.

    Behind them come prototypes of masks, which are an output without decoding.
    """
    found: dict[fx.Node, None] = {}
    for node in gm.graph.nodes:
        if node.op != "output" and role(node) == "head.decode":
            sources = [n for n in node.all_input_nodes if role(n) != "head.decode"]
            found |= dict.fromkeys(n for n in sources if n.op != "get_attr")
    outputs = gm.graph.output_node().all_input_nodes
    found |= dict.fromkeys(node for node in outputs if role(node) == "head.proto")
    return list(found)


def node_outputs(gm: fx.GraphModule, names: Collection[str], *inputs: Tensor) -> dict[str, Tensor]:
    """Run a graph and return what the named nodes compute, in graph order."""
    wanted = [node for node in gm.graph.nodes if node.name in set(names)]
    with torch.no_grad(), half_kernels(gm):
        return {node.name: value for node, value in run_graph(gm, inputs, wanted).items()}


def max_abs_error(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Return the largest absolute difference between two lists of tensors of equal shapes."""
    pairs = zip(before, after, strict=True)
    return max((float((a.double() - b.double()).abs().max()) for a, b in pairs), default=0.0)


def perturbed(gm: fx.GraphModule, seed: int = 0) -> fx.GraphModule:
    """Return a copy of a graph whose float numbers are all rounded otherwise.

    Every parameter and buffer moves to the next number above or below it, as a seeded coin says.
    """
    other = copy.deepcopy(gm)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in {id(t): t for t in (*other.parameters(), *other.buffers())}.values():
            if tensor.is_floating_point():
                up = torch.randint(2, tensor.shape, generator=generator).bool()
                limit = torch.where(up, torch.inf, -torch.inf).to(tensor)
                tensor.copy_(torch.nextafter(tensor, limit))
    return other


def rounding_noise(gm: fx.GraphModule, *inputs: Tensor) -> float:
    """Measure how far a graph's `head_outputs` move, at most, when its numbers round otherwise.

    Deep graphs amplify rounding: the outputs of two correct computations differ by about as much.
    """
    return max_abs_error(head_outputs(gm, *inputs), head_outputs(perturbed(gm), *inputs))


def check_finite(module: nn.Module, what: str, error: type[YqcError], advice: str = "") -> None:
    """Check that every parameter and buffer of a module or graph is finite.

    Raises:
        YqcError: one is not: an `error` of `what`, the first tensor, and `advice`.
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and not tensor.isfinite().all():
            bad = int((~tensor.isfinite()).sum())
            kind = "NaN" if tensor.isnan().any() else "infinite"
            raise error(
                f"{what} holds numbers that are not finite: {name} ({bad} of {tensor.numel()} "
                f"{kind}){advice}"
            )


def first_not_finite(gm: fx.GraphModule, *inputs: Tensor) -> fx.Node | None:
    """Return the first node of a graph that computes NaN or an infinity from finite inputs."""
    nodes = [node for node in gm.graph.nodes if node.op != "output"]
    with torch.no_grad(), half_kernels(gm):
        values = run_graph(gm, inputs, nodes)
    for node, value in values.items():
        if any(t.is_floating_point() and not t.isfinite().all() for t in list_tensors(value)):
            return node
    return None


def sqnr_db(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Return the signal-to-quantization-noise ratio in dB: 10 log10(sum x^2 / sum (x - y)^2).

    Infinite where nothing differs. Tensors of larger values count for more.
    """
    signal = sum(float(a.double().square().sum()) for a in before)
    noise = sum(
        float((a.double() - b.double()).square().sum()) for a, b in zip(before, after, strict=True)
    )
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def fingerprint(gm: fx.GraphModule, without: Collection[fx.Node] = ()) -> str:
    """Hash everything that a graph computes with: its text, its modules' settings, its tensors.

    Calls in `without` are of modules that return their only input, and are replaced by it.
    """
    left_out = set(without)
    nodes = [node for node in gm.graph.nodes if node not in left_out]
    through = {node.name: node.all_input_nodes[0].name for node in left_out}
    own = tuple(f"{node.target}." for node in left_out)
    printed = _NAME.sub(partial(_source, through), "\n".join(line(gm, node) for node in nodes))
    digest = hashlib.blake2b(printed.encode(), digest_size=16)
    for name in (str(n.target) for n in nodes if n.op == "call_module"):
        module = gm.get_submodule(name)
        digest.update(f"{name} {type(module).__name__} {module.extra_repr()}".encode())
    for name, tensor in sorted(gm.state_dict().items()):
        if name.startswith(own):
            continue
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()


def _source(through: Mapping[str, str], name: re.Match[str]) -> str:
    """Name the node that takes the place of one that is left out."""
    found = name[1]
    while found in through:
        found = through[found]
    return f"%{found}"


def used_tensors(gm: fx.GraphModule, *, buffers: bool = True) -> list[Tensor]:
    """List the parameters (and buffers) that the graph reads, each once."""
    found: dict[int, Tensor] = {}
    for node in gm.graph.nodes:
        if node.op == "call_module":
            module = gm.get_submodule(str(node.target))
            found |= {id(p): p for p in module.parameters()}
            if buffers:
                found |= {id(b): b for b in module.buffers()}
        elif node.op == "get_attr":
            owner, _, name = str(node.target).rpartition(".")
            value = getattr(gm.get_submodule(owner), name)
            if isinstance(value, Tensor) and (buffers or isinstance(value, torch.nn.Parameter)):
                found[id(value)] = value
    return list(found.values())


def graph_bytes(gm: fx.GraphModule) -> int:
    """Count the bytes of all tensors that the graph reads."""
    return sum(t.numel() * t.element_size() for t in used_tensors(gm))


def parameter_count(gm: fx.GraphModule) -> int:
    """Count the values of all parameters (not buffers) that the graph uses.

    A weight or bias that a function makes of packed buffers counts with the values it has.
    """
    held = sum(t.numel() for t in used_tensors(gm, buffers=False))
    return held + sum(_unpacked(gm, node) for node in gm.graph.nodes)


def _unpacked(gm: fx.GraphModule, node: fx.Node) -> int:
    """Count the values of a convolution's weight and bias if these are computed from buffers."""
    if node.target is not torch.nn.functional.conv2d:
        return 0
    count = 0
    for operand in node.args[1:3]:
        value = operand.meta.get("yqc.value") if isinstance(operand, fx.Node) else None
        if not isinstance(operand, fx.Node) or operand.op != "call_function":
            continue
        if any(n.op != "get_attr" for n in operand.all_input_nodes):
            continue
        sources = [get_attribute(gm, str(n.target)) for n in operand.all_input_nodes]
        if isinstance(value, TensorSpec) and not any(
            isinstance(source, torch.nn.Parameter) for source in sources
        ):
            count += math.prod(value.shape)
    return count


def macs(gm: fx.GraphModule) -> int:
    """Count multiply-accumulates of convolutions, linear layers and matrix products, batch 1."""
    return sum(node_macs(gm, node) for node in gm.graph.nodes)


def is_matmul(node: fx.Node) -> bool:
    """Return whether a node multiplies two matrices."""
    return node.target in MATMULS or node.target in {"matmul", "bmm"}


def node_macs(gm: fx.GraphModule, node: fx.Node) -> int:
    """Count multiply-accumulates of one node, batch 1; 0 for what multiplies no matrices."""
    value = node.meta.get("yqc.value")
    if not isinstance(value, TensorSpec) or not value.shape:
        return 0
    outputs = math.prod(value.shape[1:])
    if node.op == "call_module":
        module = gm.get_submodule(str(node.target))
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            return outputs * module.weight[0].numel()
        if isinstance(module, torch.nn.ConvTranspose2d):
            source = node.all_input_nodes[0].meta.get("yqc.value")
            inputs = math.prod(source.shape[1:]) if isinstance(source, TensorSpec) else 0
            return inputs * module.weight[0].numel()
    elif node.target is torch.nn.functional.conv2d:
        weight = node.all_input_nodes[1].meta.get("yqc.value")
        return outputs * math.prod(weight.shape[1:]) if isinstance(weight, TensorSpec) else 0
    elif is_matmul(node):
        left = node.all_input_nodes[0].meta.get("yqc.value")
        return outputs * left.shape[-1] if isinstance(left, TensorSpec) else 0
    return 0
