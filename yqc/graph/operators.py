"""Registering Python functions as PyTorch operators, `torch.ops.yqc.*`: one node in a graph."""

from collections.abc import Callable
from typing import ParamSpec, cast

import torch
from torch import Tensor

P = ParamSpec("P")

DEVICES = ("cpu", "cuda")


def operator(
    name: str, shape: Callable[..., Tensor]
) -> Callable[[Callable[P, Tensor]], Callable[P, Tensor]]:
    """Register the decorated function as an operator without gradients.

    Unlike `torch.library.custom_op` it does not import torch's compiler, which takes a second.

    Args:
        name: as in `yqc::quantize_linear`.
        shape: takes the same arguments; returns an empty tensor of the result's shape and dtype.

    Returns:
        A function that calls the operator.
    """

    def register(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
        torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
        torch.library.impl(name, DEVICES)(function)
        torch.library.register_fake(name, shape)
        space, _, own = name.partition("::")
        return cast("Callable[P, Tensor]", getattr(getattr(torch.ops, space), own))

    return register
