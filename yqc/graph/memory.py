"""How a graph's tensors lie in memory while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LAST = torch.channels_last


@contextmanager
def channels_last(*modules: nn.Module) -> Iterator[None]:
    """Keep weights with their channels last for a while; numbers and shapes stay as they are.

    On CPUs convolutions are up to twice as fast so, on images that `as_weights` has laid out.
    """
    for module in modules:
        module.to(memory_format=LAST)  # type: ignore[call-overload]
    try:
        yield
    finally:
        for module in modules:
            module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def as_weights(images: Tensor, module: nn.Module) -> Tensor:
    """Lay images, [N, C, H, W], out as a module's weights are."""
    weights = (p for p in module.parameters() if p.ndim == 4 and not p.is_contiguous())  # noqa: PLR2004
    last = any(w.is_contiguous(memory_format=LAST) for w in weights)
    return images.contiguous(memory_format=LAST) if last else images


def flat(values: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Return tensors of one shape as vectors, in the order in which the first lies in memory."""
    if values.ndim == 4 and values.is_contiguous(memory_format=LAST):  # noqa: PLR2004
        return tuple(x.permute(0, 2, 3, 1).reshape(-1) for x in (values, *others))
    return tuple(x.reshape(-1) for x in (values, *others))
