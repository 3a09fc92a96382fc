"""Running operations on meta tensors: shapes and dtypes come out, nothing is computed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from yqc.graph.shape_rules import META, RULES


def weightless(value: object) -> object:
    """Return a meta tensor like a tensor; anything else as it is."""
    if not isinstance(value, Tensor) or value.is_meta:
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=META)


def ahead(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401  # whatever the operation gives
    """Run an ATen operation on meta tensors in the place of its tensors.

    Raises:
        RuntimeError, IndexError, TypeError, ValueError: the arguments do not fit together, or there
            is no such kernel.
    """
    rule = None if kwargs else RULES.get(func)
    told = rule(*args) if rule else None
    if told is not None:
        return told
    moved, named = tree_map(weightless, (tuple(args), dict(kwargs)))
    if "device" in named:
        named["device"] = META
    return func(*moved, **named)


class Quick(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own metaclass
    """A dispatch mode that does not import torch's compiler.

    torch does so only to keep its compiler out of the mode's own code; nothing here is compiled.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Weightless(Quick):  # type: ignore[no-untyped-call]
    """While it is entered, what reads a meta tensor gives meta tensors, whatever else it reads.

    Operations that read none compute as always, so that numbers which a module makes up for itself
    can be looked at.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  # whatever the operation gives
        """Run an operation, on meta tensors if it reads one."""
        given = kwargs or {}
        if any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_leaves((args, given))):
            return ahead(func, args, given)
        return func(*args, **given)
