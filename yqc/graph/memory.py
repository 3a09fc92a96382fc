"""Memory layout and size of a graph's tensors while it runs."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, fx, nn

from yqc.graph.values import TensorSpec

M = TypeVar("M", bound=nn.Module)

LAST = torch.channels_last
AT_ONCE = 250_000_000
"""Bytes that the values of one batch of images may take; gradients come on top.

More images at once share the overhead of an operation; twice the bytes is twice the peak memory.
"""


def lay_out(module: M, memory_format: torch.memory_format = LAST) -> M:
    """Lay out the weights [O, I, H, W] of a module, in place: with channels last, or contiguous.

    Weights of other numbers of dimensions stay, which torch's own `Module.to` refuses.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:  # noqa: PLR2004
            tensor.data = tensor.data.contiguous(memory_format=memory_format)
    return module


@contextmanager
def channels_last(*modules: nn.Module) -> Iterator[None]:
    """Keep weights with their channels last inside a `with`; numbers and shapes stay as they are.

    On CPUs convolutions are up to twice as fast this way, on images laid out by `as_weights`.
    """
    for module in modules:
        lay_out(module)
    try:
        yield
    finally:
        for module in modules:
            lay_out(module, torch.contiguous_format)


def batched(gm: fx.GraphModule, images: Sequence[Tensor], memory: int = AT_ONCE) -> list[Tensor]:
    """Join images, float32 [1, 3, H, W], to batches whose values fit into the memory, in bytes.

    Values are kept for a backward pass. A batch has at least one image, and at most 8.
    """
    one = sum(
        4 * math.prod(spec.shape)
        for node in gm.graph.nodes
        if isinstance(spec := node.meta.get("yqc.value"), TensorSpec) and node.op != "get_attr"
    )
    size = max(1, min(8, memory // max(one, 1)))
    return [torch.cat(list(images[i : i + size])) for i in range(0, len(images), size)]


def as_weights(images: Tensor, module: nn.Module) -> Tensor:
    """Return images, [N, C, H, W], in the memory layout of a module's weights."""
    weights = (p for p in module.parameters() if p.ndim == 4 and not p.is_contiguous())  # noqa: PLR2004
    last = any(w.is_contiguous(memory_format=LAST) for w in weights)
    return images.contiguous(memory_format=LAST if last else torch.contiguous_format)


def flat(values: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Return tensors of one shape as vectors, in the order in which the first lies in memory."""
    if values.ndim == 4 and values.is_contiguous(memory_format=LAST):  # noqa: PLR2004
        return tuple(x.permute(0, 2, 3, 1).reshape(-1) for x in (values, *others))
    return tuple(x.reshape(-1) for x in (values, *others))
