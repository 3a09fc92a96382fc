"""Rebuild modules from the inert tree of a pickled one: twins and modules of torch.nn.

Nothing of the checkpoint runs here. A module of torch.nn is made by its own constructor from
attributes that were checked, without initialisation; a twin is made without its constructor. Both
are then given the stored tensors: parameters and buffers as float32, counters as they are.
"""

import inspect
import types
from collections.abc import Mapping
from typing import Any, ClassVar, get_args, get_origin

import torch
from torch import Tensor, nn

from yqc.errors import CheckpointError, UnknownBlockError, first_line
from yqc.models.blocks.base import Block
from yqc.models.pickles.read import Inert
from yqc.models.register import find_twin
from yqc.models.split_weights import HOOKS, join_parts
from yqc.models.torch_modules import QUANTIZERS, TORCH, make_torch_module, plain_form
from yqc.models.unknown import is_loss, left_out_of
from yqc.models.unused import (
    FUSED_AWAY,
    FUSED_FORWARDS,
    Origin,
    replaced_methods,
    stored_forward,
    unread_attributes,
)

MOST_MODULES = 20_000
"""Modules that one tree may run: the largest golden file runs 887. A limit on files whose
modules are stored inside one another many times."""

LONGEST = 64
"""Numbers of a vector that a user's twin is given as an attribute, such as a head's strides."""

PLAIN = (bool, int, float, str, type(None))


class Rebuilder:
    """Rebuilds one tree; a module stored in two places becomes one module again.

    Single modules without parameters (activations above all) become separate ones, so that a pass
    may rewrite one use without touching the others.
    """

    def __init__(self) -> None:
        self.done: dict[int, nn.Module] = {}
        self.sizes: dict[int, int] = {}
        """How many modules a tree makes, counted as often as they run."""
        self.blocks: dict[str, int] = {}
        """How many modules of each of the projects' classes were rebuilt, by class name."""
        self.quantizers: set[str] = set()
        """Paths of quantizers of quantization-aware training, which are left out."""
        self.hooks: dict[str, str] = {}
        """Path of each module with hooks that are left out -> the first of them."""
        self.origins: dict[nn.Module, Origin] = {}
        """Where each module came from, and which of its attributes nothing reads."""

    def module(self, tree: object, path: str) -> nn.Module:
        """Rebuild the module at `path` and all below it.

        Raises:
            UnknownBlockError: a class has no twin.
            CheckpointError: what is stored does not make a module.
        """
        if not isinstance(tree, Inert):
            raise CheckpointError(f"{path} is a {type(tree).__name__}, not a module")
        if (module := self.done.get(id(tree))) is not None:
            return module
        module = self._fresh(tree, path)
        parts = self._parts(tree, path).values()
        self.sizes[id(tree)] = 1 + sum(self.sizes[id(part)] for part in parts)
        if self.sizes[id(tree)] > MOST_MODULES:
            raise CheckpointError(f"{path} runs more than {MOST_MODULES:,} modules")
        if parts or module._parameters:  # noqa: SLF001
            self.done[id(tree)] = module
        return module

    def _parts(self, tree: Inert, path: str) -> dict[str, Any]:
        """Return the children to rebuild; quantizers are counted and left out."""
        parts = _section(tree, "_modules", path)
        quantizers = {
            name
            for name, part in parts.items()
            if isinstance(part, Inert) and QUANTIZERS.fullmatch(part.class_path)
        }
        self.quantizers.update(f"{path}.{name}" for name in quantizers)
        gone = quantizers | {name for name, part in parts.items() if is_loss(part)}
        gone |= left_out_of(tree)
        if stored_forward(tree) in FUSED_FORWARDS and not tree.class_path.endswith(".Conv2"):
            gone |= FUSED_AWAY
        return {k: v for k, v in parts.items() if v is not None and k not in gone}

    def _hooks(self, tree: Inert, path: str) -> list[str]:
        """Return the hooks of torch that compute weights; others are noted, and left out."""
        sections = ("_forward_pre_hooks", "_forward_hooks")
        held = [part for name in sections for part in (tree.state.get(name) or {}).values()]
        names = [
            hook.class_path if isinstance(hook, Inert) else getattr(hook, "path", "a function")
            for hook in held
        ]
        torchs = [name for name in names if name.startswith(HOOKS)]
        if others := [name for name in names if name not in torchs]:
            self.hooks[path] = others[0]
        return torchs

    def _fresh(self, tree: Inert, path: str) -> nn.Module:
        children = {
            name: self.module(child, f"{path}.{name}")
            for name, child in self._parts(tree, path).items()
        }
        tensors = {name: _tensors(tree, name, path) for name in ("_parameters", "_buffers")}
        if self._hooks(tree, path):
            _join_parts(tensors)
        twin = find_twin(tree.class_path, children)
        class_path = plain_form(tree.class_path)
        if twin is not None and twin.__module__.startswith(TORCH):
            class_path, twin = f"{twin.__module__}.{twin.__name__}", None
        if twin is None and class_path.startswith(TORCH):
            made = make_torch_module(class_path, tree.state, tensors["_parameters"], path)
            _check_shapes(made, tensors, path)
            unread = replaced_methods(tree)
        elif twin is None:
            raise UnknownBlockError(f"{path} is a {tree.class_path}, for which yqc has no twin")
        else:
            made = _make_twin(twin, tree, path)
            reads = declared(twin) if issubclass(twin, Block) else ()
            unread = unread_attributes(tree, reads) if issubclass(twin, Block) else ()
        if find_twin(tree.class_path) is not None:
            name = tree.class_path.rpartition(".")[2]
            self.blocks[name] = self.blocks.get(name, 0) + 1
        self.origins[made] = Origin(path, tree.class_path, unread)
        _fill(made, children, tensors)
        if isinstance(made, Block):
            try:
                made.finish()
            except ValueError as error:  # names an attribute first
                raise CheckpointError(f"{path}.{error}") from error
            except (AttributeError, IndexError, RuntimeError) as error:
                raise CheckpointError(f"{path} is incomplete: {first_line(error)}") from error
        return made.eval()


def _section(tree: Inert, name: str, path: str) -> dict[str, Any]:
    section = tree.state.get(name, {})
    if not isinstance(section, Mapping) or not all(isinstance(key, str) for key in section):
        raise CheckpointError(f"{path} stores no {name[1:]}: the checkpoint is damaged")
    for key in section:
        if not key or "." in key:
            raise CheckpointError(f"{path} has a part named {key!r}: the checkpoint is damaged")
    return dict(section)


def _tensors(tree: Inert, section: str, path: str) -> dict[str, Tensor]:
    tensors = {}
    for name, value in _section(tree, section, path).items():
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{path}.{name} is a {type(value).__name__}, not a tensor")
        tensors[name] = widen(value)
    return tensors


def widen(tensor: Tensor) -> Tensor:
    """Return a detached, dense copy-if-needed: floats as float32, all else as it is."""
    tensor = tensor.detach()
    if tensor.is_sparse or tensor.is_quantized or tensor.is_complex():
        raise CheckpointError("the checkpoint holds sparse, quantized or complex weights")
    return tensor.to(torch.float32).contiguous() if tensor.is_floating_point() else tensor


def _join_parts(tensors: dict[str, dict[str, Tensor]]) -> None:
    """Replace the parts in which hooks of torch keep weights by the weights, in place."""
    whole = join_parts({**tensors["_buffers"], **tensors["_parameters"]})
    buffers = {name: whole[name] for name in tensors["_buffers"] if name in whole}
    tensors["_parameters"] = {name: whole[name] for name in whole if name not in buffers}
    tensors["_buffers"] = buffers


def _check_shapes(made: nn.Module, tensors: dict[str, dict[str, Tensor]], path: str) -> None:
    for section, stored in tensors.items():
        for name, value in getattr(made, section).items():
            if value is None:
                continue
            if name == "num_batches_tracked":
                stored.setdefault(name, torch.tensor(0))
            if name not in stored:
                raise CheckpointError(f"{path}.{name} is missing: the checkpoint is damaged")
            if stored[name].shape != value.shape:
                raise CheckpointError(
                    f"{path}.{name} has shape {list(stored[name].shape)}, but its layer declares"
                    f" {list(value.shape)}: the checkpoint is damaged"
                )


def _fill(
    made: nn.Module, children: dict[str, nn.Module], tensors: dict[str, dict[str, Tensor]]
) -> None:
    for name, child in children.items():
        made._modules[name] = child  # noqa: SLF001  # past any __setattr__ of the class
    for name, tensor in tensors["_parameters"].items():
        parameter = nn.Parameter(tensor, requires_grad=False)
        if isinstance(made, nn.RNNBase):
            setattr(made, name, parameter)  # It keeps a list of them.
        else:
            made._parameters[name] = parameter  # noqa: SLF001
    for name, tensor in tensors["_buffers"].items():
        made._buffers[name] = tensor  # noqa: SLF001


def _make_twin(twin: type[nn.Module], tree: Inert, path: str) -> nn.Module:
    module = twin.__new__(twin)
    nn.Module.__init__(module)
    if not issubclass(twin, Block):
        _restore_plain(module, tree)
        return module
    for name, hint in declared(twin).items():
        if tree.state.get(name) is not None:
            setattr(module, name, coerce(tree.state[name], hint, f"{path}.{name}"))
        elif not hasattr(twin, name):
            raise CheckpointError(f"{path}.{name} is missing: the checkpoint is damaged")
    return module


def _restore_plain(module: nn.Module, tree: Inert) -> None:
    """Give a user's own twin all plain attributes, and vectors, that hide nothing of its class."""
    for name, value in tree.state.items():
        vector = isinstance(value, Tensor) and value.ndim <= 1 and len(value.flatten()) <= LONGEST
        if name.startswith("_") or hasattr(type(module), name):
            continue
        if vector or is_plain(value):
            setattr(module, name, widen(value.clone()) if isinstance(value, Tensor) else value)


def is_plain(value: object) -> bool:
    """Whether a value is a number, a text, None, or a list or tuple of such."""
    if isinstance(value, (list, tuple)):
        return type(value) in {list, tuple} and all(is_plain(item) for item in value)
    return type(value) in PLAIN


def declared(twin: type[Block]) -> dict[str, Any]:
    """Return the plain attributes that a twin and its bases declare, with their types."""
    found: dict[str, Any] = {}
    for base in reversed(twin.__mro__):
        if issubclass(base, Block) and base is not Block:
            found |= inspect.get_annotations(base)
    return {name: hint for name, hint in found.items() if _is_plain_type(hint)}


def _is_plain_type(hint: object) -> bool:
    origin = get_origin(hint)
    if origin in {tuple, types.UnionType}:
        return all(item in PLAIN or item is Ellipsis for item in get_args(hint))
    return origin is not ClassVar and hint in PLAIN


def coerce(value: object, hint: object, path: str) -> object:
    """Return a pickled attribute as the declared type, if it can be read as it without loss.

    Raises:
        CheckpointError: it cannot.
    """
    if isinstance(value, Tensor) and value.ndim <= 1:
        value = value.tolist()
    if get_origin(hint) is tuple and isinstance(value, (list, tuple)):
        return tuple(coerce(item, get_args(hint)[0], path) for item in value)
    if hint is bool and type(value) is int and value in {0, 1}:
        return bool(value)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise CheckpointError(f"{path} is {value!r:.60}, not a {hint}: the checkpoint is damaged")
    return value
