"""Making Python functions PyTorch operators, `torch.ops.yqc.*`, which graphs hold as one node."""

from collections.abc import Callable
from typing import ParamSpec, cast

import torch
from torch import Tensor

P = ParamSpec("P")

DEVICES = ("cpu", "cuda")


def operator(
    name: str, shape: Callable[P, Tensor]
) -> Callable[[Callable[P, Tensor]], Callable[P, Tensor]]:
    """Register the decorated function as an operator without gradients.

    It is `torch.library.custom_op` without torch's compiler, which that imports when the operator
    is first called, for a second.

    Args:
        name: as in `yqc::quantize_linear`.
        shape: takes the same arguments; returns an empty tensor of the result's shape and dtype.

    Returns:
        What calls the operator.
    """

    def register(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
        torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
        torch.library.impl(name, DEVICES)(function)
        torch.library.register_fake(name, shape)
        space, _, own = name.partition("::")
        return cast("Callable[P, Tensor]", getattr(getattr(torch.ops, space), own))

    return register
