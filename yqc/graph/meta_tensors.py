"""Running operations on meta tensors, which have shapes and dtypes and no values."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from yqc.graph.shape_rules import META, RULES


def to_meta(value: object) -> object:
    """Return a meta tensor like a tensor; anything else as it is."""
    if not isinstance(value, Tensor) or value.is_meta:
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=META)


def run_on_meta(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401  # any result
    """Run an ATen operation with meta tensors in the place of its tensors.

    Raises:
        RuntimeError, IndexError, TypeError, ValueError: the arguments do not fit together, or there
            is no such kernel.
    """
    rule = None if kwargs else RULES.get(func)
    result = rule(*args) if rule else None
    if result is not None:
        return result
    moved, named = tree_map(to_meta, (tuple(args), dict(kwargs)))
    if "device" in named:
        named["device"] = META
    return func(*moved, **named)


class PlainDispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own metaclass
    """A dispatch mode that does not import torch's compiler.

    torch imports it to keep it out of the mode's own code, which is not compiled here anyway.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class MetaMode(PlainDispatchMode):  # type: ignore[no-untyped-call]
    """Let operations that read a meta tensor return meta tensors, also beside ordinary tensors.

    Operations on ordinary tensors alone compute as always, so that the values of tensors that a
    module makes by itself are known.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  # any result
        """Run an operation, on meta tensors if it reads one."""
        given = kwargs or {}
        if any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_leaves((args, given))):
            return run_on_meta(func, args, given)
        return func(*args, **given)
