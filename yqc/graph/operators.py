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
    """Register the decorated function as an operator without gradients, `yqc::quantize_linear`.

    Unlike `torch.library.custom_op` it does not import torch's compiler, which takes a second.
    `shape` takes the same arguments and returns an empty tensor of the result's shape and dtype.
    """

    def register(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
        torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
        torch.library.impl(name, DEVICES)(function)
        torch.library.register_fake(name, shape)
        space, _, own = name.partition("::")
        return cast("Callable[P, Tensor]", getattr(getattr(torch.ops, space), own))

    return register
