"""Rebuild storages and tensors of a checkpoint, checked against the bytes that are there.

torch.save writes a storage as the persistent id ("storage", type, key, location, numel), and a
tensor as `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)` over it, all
counted in elements.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeGuard

import torch
from torch import Tensor, nn

from yqc.models.pickles.values import Allowance, Inert, MalformedError, Named, shown

MAX_DIMS, MAX_STRIDE = 64, 1 << 40

_BY_STORAGE = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
STORAGES: dict[str, torch.dtype] = {
    **{f"torch.{name}Storage": dtype for name, dtype in _BY_STORAGE.items()},
    **{f"torch.cuda.{name}Storage": dtype for name, dtype in _BY_STORAGE.items()},
    "torch.storage.UntypedStorage": torch.uint8,
    "torch.UntypedStorage": torch.uint8,
}
"""The element type of each storage class that a pickle may name."""

_WIDE = {torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2}
DTYPES = {str(dtype): dtype for dtype in {*_BY_STORAGE.values(), *_WIDE}}
"""The element types by the names that a pickle gives them, such as `torch.float16`."""

_TENSOR_TYPES = {"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}


@dataclass(frozen=True, eq=False)
class Storage:
    """Flat memory that tensors are views of: `data` holds all its bytes."""

    dtype: torch.dtype
    data: torch.UntypedStorage


@dataclass
class Storages:
    """Resolves the persistent ids of one file; the same key is the same storage every time.

    `fetch(key, nbytes)` gives the memory of a storage, uint8 [nbytes], after comparing that count
    with the file. `modules` lets a persistent id name a class, as the form before PyTorch 1.6 has.
    """

    fetch: Callable[[str, int], Tensor]
    modules: bool = False
    found: dict[str, Storage] = field(default_factory=dict)

    def load(self, pid: object) -> Storage | Named:
        """Return the storage or class of a persistent id; raise MalformedError."""
        if type(pid) is tuple:
            match pid:
                case ("storage", Named(path), str(key), str(), int(numel), *rest) if (
                    path in STORAGES and _nothing(rest)
                ):
                    return self._storage(key, STORAGES[path], numel)
                case ("module", Named() as cls, _, _) if self.modules:
                    return cls
        raise MalformedError("its pickle holds a persistent id that is no storage of torch.save")

    def _storage(self, key: str, dtype: torch.dtype, numel: int) -> Storage:
        if numel < 0:
            raise MalformedError(f"storage {shown(key)} claims a negative size")
        nbytes = numel * dtype.itemsize
        if key not in self.found:
            self.found[key] = Storage(dtype, self.fetch(key, nbytes).untyped_storage())
        storage = self.found[key]
        if storage.dtype != dtype or storage.data.nbytes() != nbytes:
            raise MalformedError(f"storage {shown(key)} is described in two ways")
        return storage


def tensor_v2(args: tuple[object, ...], allowance: Allowance) -> object:
    """Rebuild by `_rebuild_tensor_v2`, or `_rebuild_tensor` with its first four arguments."""
    match args:
        case (Storage() as storage, offset, size, stride):
            return _view(storage, storage.dtype, (offset, size, stride), allowance)
        case (Storage() as storage, offset, size, stride, bool(grad), _, *rest) if _nothing(rest):
            view = _view(storage, storage.dtype, (offset, size, stride), allowance)
            return view.requires_grad_(_may_require(view, grad))
    raise MalformedError("it holds a tensor of an unknown kind")


def tensor_v3(args: tuple[object, ...], allowance: Allowance) -> object:
    """Rebuild by `_rebuild_tensor_v3`: an untyped storage and an element type."""
    match args:
        case (Storage() as storage, offset, size, stride, bool(grad), _, dtype, *rest) if (
            isinstance(dtype, torch.dtype) and _nothing(rest)
        ):
            view = _view(storage, dtype, (offset, size, stride), allowance)
            return view.requires_grad_(_may_require(view, grad))
    raise MalformedError("it holds a tensor of an unknown kind")


def parameter(args: tuple[object, ...], allowance: Allowance) -> object:
    """Rebuild by `_rebuild_parameter(data, requires_grad, hooks)`; a state is dropped."""
    match args:
        case (Tensor() as data, bool(grad), _, *state) if len(state) <= 1:
            allowance.spend("tensors", 1)
            return nn.Parameter(data, _may_require(data, grad))
    raise MalformedError("it holds a parameter of an unknown kind")


def from_type(args: tuple[object, ...], allowance: Allowance) -> object:
    """Rebuild by `_rebuild_from_type_v2(function, type, args, state)`; the state is dropped."""
    match args:
        case (Named(path), Named(kind), tuple(inner), _) if (
            kind in _TENSOR_TYPES and path in REBUILDERS
        ):
            return REBUILDERS[path](inner, allowance)
    raise MalformedError("it holds a tensor of an unknown kind")


REBUILDERS: dict[str, Callable[[tuple[object, ...], Allowance], object]] = {
    "torch._utils._rebuild_tensor": tensor_v2,
    "torch._utils._rebuild_tensor_v2": tensor_v2,
    "torch._utils._rebuild_tensor_v3": tensor_v3,
    "torch._utils._rebuild_parameter": parameter,
    "torch._utils._rebuild_parameter_with_state": parameter,
}


def rebuild_size(args: tuple[object, ...], _: Allowance) -> object:
    """Rebuild `torch.Size(sizes)` as a plain tuple of int."""
    match args:
        case (tuple() | list() as sides,) if all(type(side) is int for side in sides):
            return tuple(sides)
    return Inert("torch.Size", args)


def _view(
    storage: Storage,
    dtype: torch.dtype,
    layout: tuple[object, object, object],
    allowance: Allowance,
) -> Tensor:
    """Return a view of a storage; raise MalformedError where it reaches outside."""
    offset, sides, strides = layout
    if not (
        type(offset) is int
        and 0 <= offset < MAX_STRIDE
        and _counts(sides)
        and _counts(strides)
        and len(sides) == len(strides) <= MAX_DIMS
    ):
        raise MalformedError("it holds a tensor with an impossible size, stride or offset")
    numel = storage.data.nbytes() // dtype.itemsize
    last = offset + sum((side - 1) * step for side, step in zip(sides, strides, strict=True))
    if 0 in sides:
        last = -1
    if last >= numel:
        raise MalformedError(
            f"it holds a tensor that reaches to element {last} of a storage of {numel} elements"
        )
    allowance.spend("tensors", 1)
    allowance.spend("elements", math.prod(max(side, 1) for side in sides))
    return torch.empty(0, dtype=dtype).set_(storage.data, offset, sides, strides)


def _counts(values: object) -> TypeGuard[tuple[int, ...]]:
    return type(values) is tuple and all(type(v) is int and 0 <= v < MAX_STRIDE for v in values)


def _may_require(data: Tensor, grad: bool) -> bool:
    return grad and (data.is_floating_point() or data.is_complex())


def _nothing(rest: list[object]) -> bool:
    """Whether optional last arguments are absent or None."""
    return all(part is None for part in rest)
