"""Put activations in, and write what was fitted on folded batch norms into a graph that has them.

A batch norm y = (x - mean) s + beta with s = gamma / sqrt(var + eps) keeps its s, and a convolution
of weight W' and bias b' becomes W = W' / s before it. Mean and variance become those of the new
outputs, from which a training with fixed or running statistics can start.
"""

import operator

import torch
from torch import Tensor, fx, nn

from yqc.graph import BatchNorm, call, callers
from yqc.swapping.forms import Form

SMALL = 1e-3
"""A channel whose s is below this share of the layer's mean gets s = 1: its weights would grow
without limit. Half and double of it concern channels that hardly compute anything."""


def put_activation(gm: fx.GraphModule, name: str, form: Form) -> None:
    """Replace the activation that a node computes; the node keeps its name."""
    node = next(n for n in gm.graph.nodes if n.name == name)
    (source,) = node.all_input_nodes
    path = str(node.target)
    if node.op != "call_module" or callers(gm, path) > 1:
        path = f"{name}_{form.name.replace('-', '_')}"
        gm.add_submodule(path, form.make())
    else:
        gm.set_submodule(path, form.make())
    if not form.is_gate:
        node.op, node.target, node.args, node.kwargs = "call_module", path, (source,), {}
        return
    with gm.graph.inserting_before(node):
        gate = gm.graph.create_node("call_module", path, (source,), name=f"{name}_gate")
    gate.meta = {k: v for k, v in node.meta.items() if k in {"yqc.value", "yqc.role"}}
    node.op, node.target = "call_function", operator.mul
    node.args, node.kwargs = (source, gate), {}


def write_layer(
    gm: fx.GraphModule,
    student: fx.GraphModule,
    name: str,
    moments: tuple[Tensor, Tensor] | None,
) -> None:
    """Write the layer of one node, whose batch norm the student may have folded in.

    Moments are mean and variance of the student's layer, [C] each; without them those of a batch
    norm stay.
    """
    node, twin = (next(n for n in g.graph.nodes if n.name == name) for g in (gm, student))
    old, new = gm.get_submodule(str(node.target)), student.get_submodule(str(twin.target))
    weight, bias = (copy_parameter(getattr(new, key)) for key in ("weight", "bias"))
    norm = call(gm, next(iter(node.users)), nn.BatchNorm2d)
    folded = norm is not None and norm.node.name not in {n.name for n in student.graph.nodes}
    if norm is not None and folded and isinstance(old, nn.Conv2d):
        write_pair(old, norm.module, weight, bias, moments)
        return
    old.weight, old.bias = weight, bias
    if moments is not None and BatchNorm.on(node) is not None:
        put_moments(node, *moments)


@torch.no_grad()
def write_pair(
    conv: nn.Conv2d,
    bn: nn.BatchNorm2d,
    weight: Tensor,
    bias: Tensor,
    moments: tuple[Tensor, Tensor] | None,
) -> None:
    """Spread a folded weight and bias over a convolution and its batch norm."""
    mean, var = bn.running_mean, bn.running_var
    if mean is None or var is None:
        raise ValueError("a batch norm without running statistics was folded")
    gamma = torch.ones_like(var) if bn.weight is None else bn.weight
    s = gamma / (var + bn.eps).sqrt()
    s = torch.where(s.abs() < SMALL * s.abs().mean(), torch.ones_like(s), s)
    conv.weight = nn.Parameter(weight / s.view(-1, 1, 1, 1))
    if conv.bias is not None:
        conv.bias = nn.Parameter(torch.zeros_like(bias))
    if moments is not None:
        mean, var = (moments[0] - bias) / s, moments[1] / s.square()
        bn.running_mean, bn.running_var = mean, var
    bn.weight = nn.Parameter(s * (var + bn.eps).sqrt())
    bn.bias = nn.Parameter(bias + s * mean)
    bn.affine = True


def copy_parameter(tensor: Tensor) -> nn.Parameter:
    """Copy a tensor of a layer."""
    return nn.Parameter(tensor.detach().clone())


def put_moments(node: fx.Node, mean: Tensor, variance: Tensor) -> None:
    """Replace the mark of a folded batch norm, since the convolution's outputs have changed."""
    known = BatchNorm.on(node)
    eps = 0.0 if known is None else known.eps
    BatchNorm(mean, variance, (variance + eps).sqrt(), mean.clone(), eps).put(node)
