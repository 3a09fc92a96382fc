"""Write layers that are convolutions of one pixel as such, so that their weights can be quantized.

    y = ConvTranspose2d(x), kernel k = stride, no padding:   W[I, O, k, k]
      -> pixel_shuffle(conv2d(x), k)      with  W'[O k k, I, 1, 1] = W permuted, each bias k k times
    y = Linear(flatten(x)) of x [N, I, 1, 1]
      -> flatten(conv2d(x))               with  W'[O, I, 1, 1] = W

The first is how prototypes of masks are upsampled, the second ends a classifier. Integer kernels,
roundings and packed forms of weights are there for convolutions: onnxruntime has no integer kernel
of a transposed one, and a product with a float result takes a 1x1 convolution on integers.

Measured with onnxruntime 1.32, one thread, VNNI, on the prototypes of yolov8n-seg at 640 px: on
integers 29.8 ms as a convolution, 26.6 ms with the transposed one in float amid them; OpenVINO 24.6
and 28.7 ms. In float 56 and 46 ms in onnxruntime, 45 and 43 ms in OpenVINO. A graph that is not
quantized is left as it is.
"""

from collections.abc import Collection
from fnmatch import fnmatch
from typing import Any

import torch.nn.functional as F
from torch import Tensor, fx, nn

from yqc.graph import Call, call, callers, calls
from yqc.graph.values import propagate, shape
from yqc.pipeline.base import Context

IDLE = (nn.Dropout, nn.Identity)
"""Modules that do nothing at inference."""
MAP = 4
"""Axes of a feature map, [N, C, H, W]."""


def write_as_convolutions(
    gm: fx.GraphModule, ctx: Context, skip: Collection[str] = ()
) -> list[fx.Node]:
    """Replace the layers that are 1x1 convolutions by these; record each.

    `skip` has patterns of the paths of modules that are left alone. A node keeps its name, marks
    and role where its result is the same; the convolution before it is named after it.

    Returns:
        The convolutions.
    """
    found = []
    for each in calls(gm, (nn.ConvTranspose2d, nn.Linear)):
        skipped = any(fnmatch(each.target, pattern) for pattern in skip)
        if skipped or callers(gm, each.target) > 1:
            continue
        if isinstance(each.module, nn.Linear):
            source = find_pooled_map(gm, each.node)
            conv = None if source is None else convolution_of_linear(each.module)
        elif isinstance(each.module, nn.ConvTranspose2d):
            source, conv = each.node.all_input_nodes[0], convolution_of_transposed(each.module)
        if source is not None and conv is not None:
            found.append(put_convolution(gm, each, source, conv))
            ctx.rewrote(each.node, "became a convolution of one pixel")
    if found:
        gm.graph.eliminate_dead_code()
        gm.recompile()
        propagate(gm)
    return found


def find_pooled_map(gm: fx.GraphModule, linear: fx.Node) -> fx.Node | None:
    """Return the map [N, C, 1, 1] that a linear layer reads flattened, or None."""
    node = linear.all_input_nodes[0]
    while call(gm, node, IDLE) is not None:
        node = node.all_input_nodes[0]
    flattens = (
        node.target in {"flatten", "view", "reshape", "squeeze"} or node.op == "call_function"
    )
    if call(gm, node, nn.Flatten) is None and not (flattens and len(node.all_input_nodes) == 1):
        return None
    source, read = node.all_input_nodes[0], shape(node)
    sizes = shape(source)
    return source if len(sizes) == MAP and sizes == (*read, 1, 1) else None


def convolution_of_linear(linear: nn.Linear) -> nn.Conv2d:
    """Return the 1x1 convolution that computes what a linear layer does."""
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
    return with_weights(conv, linear.weight[:, :, None, None], linear.bias)


def convolution_of_transposed(layer: nn.ConvTranspose2d) -> nn.Conv2d | None:
    """Return the 1x1 convolution that does the same before a pixel shuffle, or None."""
    k = layer.kernel_size[0]
    alike = layer.kernel_size == layer.stride == (k, k) and layer.groups == 1
    if not alike or any((*layer.padding, *layer.output_padding)) or layer.dilation != (1, 1):
        return None
    weight = layer.weight.permute(1, 2, 3, 0).flatten(0, 2)
    bias = None if layer.bias is None else layer.bias.repeat_interleave(k * k)
    conv = nn.Conv2d(layer.in_channels, len(weight), 1, bias=bias is not None)
    return with_weights(conv, weight[:, :, None, None], bias)


def with_weights(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """Give a convolution copies of weights, float32 [O, I, 1, 1] and [O]."""
    conv.weight = nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad)
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone(), requires_grad=bias.requires_grad)
    return conv.eval()


def put_convolution(
    gm: fx.GraphModule, layer: Call[Any], source: fx.Node, conv: nn.Conv2d
) -> fx.Node:
    """Put a convolution of `source` before a layer's node, which then arranges its result."""
    node = layer.node
    gm.set_submodule(layer.target, conv)
    with gm.graph.inserting_before(node):
        made = gm.graph.create_node(
            "call_module", layer.target, (source,), name=f"{node.name}_conv"
        )
    made.meta["yqc.role"] = node.meta["yqc.role"]
    if isinstance(layer.module, nn.Linear):
        node.op, node.target, node.args = "call_method", "flatten", (made, 1)
    else:
        factor = layer.module.kernel_size[0]
        node.op, node.target, node.args = "call_function", F.pixel_shuffle, (made, factor)
    node.kwargs = {}
    return made
