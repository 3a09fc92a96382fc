"""Find what a checkpoint stores and the rebuilt detector does not use.

A block that was edited under its own class name loads by name like the original, and its additions
would be left out of the forward without a word. Two things are compared with what is stored:
tensors and modules with those that one forward on meta tensors reads, and plain attributes with
those that the twin declares or the released classes are known to store.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from yqc.errors import UnknownBlockError
from yqc.graph.meta_tensors import MetaMode
from yqc.models.blocks.base import Block
from yqc.models.detector import PROBE, Detector
from yqc.models.pickles.read import Inert, Named, shown
from yqc.models.unknown import how_to_register, is_loss

COUNTERS = frozenset({"num_batches_tracked", "total_ops", "total_params"})
"""Buffers that no forward reads: batch norm's step count, and the counts that thop adds."""

OF_TORCH = frozenset({"T_destination", "call_super_init", "dump_patches", *vars(nn.Module())})
"""Attributes that every `nn.Module` stores."""

OF_LAYERS = frozenset({"i", "f", "type", "np", "inplace", "export", "default_act"})
"""Attributes that the three projects put on layers: index, source, type, size, switches."""

OF_HEADS = frozenset(
    {
        *("no", "anchors", "strides", "shape", "grid", "anchor_grid", "agnostic_nms", "max_det"),
        *("dynamic", "onnx_dynamic", "format", "legacy", "xyxy", "separate_outputs"),
        *("include_nms", "concat", "end2end", "_end2end", "stride"),
    }
)
"""Attributes of the heads: recomputed, applied by the loader, or for export only."""

OF_TASK_HEADS = OF_HEADS | {"npr", "nk", "nk_sigma", "detect"}
"""The same of heads beyond detection: sizes that their modules show, the detection's forward."""

RECORDED: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("Detect", "v10Detect", "IDetect", "IAuxDetect"), OF_HEADS),
    **dict.fromkeys(("DDetect", "DualDDetect", "TripleDDetect"), OF_HEADS),
    **dict.fromkeys(("DualDetect", "TripleDetect"), OF_HEADS),
    **dict.fromkeys(("Segment", "Segment26", "Pose", "Pose26", "OBB", "OBB26"), OF_TASK_HEADS),
    **dict.fromkeys(
        ("RepConv", "RepConvN"),
        frozenset(
            {
                *("c1", "c2", "g", "deploy", "groups", "in_channels", "out_channels", "padding"),
                "dilation",
            }
        ),
    ),
    **dict.fromkeys(("AIFI", "TransformerEncoderLayer"), frozenset({"activation"})),
    "ResNetLayer": frozenset({"is_first"}),
    **dict.fromkeys(("ImplicitA", "ImplicitM"), frozenset({"channel", "mean", "std"})),
    "AAttn": frozenset({"all_head_dim"}),
    "RepVGGDW": frozenset({"dim"}),
    "TransformerBlock": frozenset({"c2"}),
    "Sum": frozenset({"iter", "n"}),
    "MultiheadAttention": frozenset(
        {
            *("kdim", "vdim", "_qkv_same_embed_dim", "dropout", "batch_first", "head_dim"),
            "add_zero_attn",
        }
    ),
}
"""Attributes that released classes store and their forward at inference does not need."""

SHOWN = 5
"""Names in one message; further ones are counted."""


@dataclass(frozen=True)
class Origin:
    """Where a rebuilt module came from, and which of its attributes nothing reads."""

    path: str
    class_path: str
    unread: tuple[str, ...] = ()

    @property
    def class_name(self) -> str:
        """The class's own name."""
        return self.class_path.rpartition(".")[2]


FORWARDS = frozenset({"forward", "forward_fuse", "fuseforward", "forward_split"})
"""Methods of the projects' blocks that their `fuse` and export put in the place of `forward`."""

FUSED_FORWARDS = frozenset({"forward_fuse", "fuseforward"})
"""Forwards that the projects' `fuse` switches to once a convolution holds what stood beside it."""

FUSED_AWAY = frozenset({"bn", "ia", "im"})
"""Children that such a forward leaves out: batch norms, and YOLOv7's implicit knowledge."""


def stored_forward(tree: Inert) -> str | None:
    """Return the name of the forward that a pickled module was switched to, if it is known."""
    match tree.state.get("forward"):
        case Inert(class_path="builtins.getattr", args=(str(name),)):
            return name
    return None


def unread_attributes(tree: Inert, declared: Iterable[str]) -> tuple[str, ...]:
    """List the attributes of a pickled block that hold numbers or code and are not known.

    `declared` are those that its twin reads.
    """
    name = tree.class_path.rpartition(".")[2]
    known = OF_TORCH | OF_LAYERS | RECORDED.get(name, frozenset()) | set(declared)
    if stored_forward(tree) in FORWARDS:
        known |= {"forward"}
    return tuple(key for key, value in tree.state.items() if key not in known and _counts(value))


def replaced_methods(tree: Inert) -> tuple[str, ...]:
    """List what a pickled module of torch stores in the place of its forward."""
    bound = stored_forward(tree) == "forward"
    return tuple(k for k in ("forward", "_forward_impl") if k in tree.state and not bound)


def _counts(value: object) -> bool:
    """Whether a value may change what a forward computes: a number, a tensor, a module, code."""
    if is_loss(value):
        return False
    if isinstance(value, Mapping):
        return any(map(_counts, value.values()))
    if isinstance(value, list | tuple | AbstractSet):
        return any(map(_counts, value))
    return isinstance(value, bool | int | float | complex | Tensor | np.ndarray | Inert | Named)


class Reads(MetaMode):
    """Records which tensors operations read while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensors: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  # an ATen operation
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  # the operation's result
        """Note the tensors among the arguments, then run the operation."""
        leaves = tree_leaves((args, kwargs or {}))
        self.tensors.update(id(leaf) for leaf in leaves if isinstance(leaf, Tensor))
        return super().__torch_dispatch__(func, types, args, kwargs)


@dataclass(frozen=True)
class Usage:
    """The tensors and modules, by identity, that one forward reads and calls."""

    tensors: AbstractSet[int]
    modules: AbstractSet[int]

    def has_used(self, module: nn.Module) -> bool:
        """Whether a module, or anything in it, was used; one that holds nothing counts as used."""
        parts = list(module.modules())
        held = [*module.parameters(), *module.buffers()]
        if isinstance(module, nn.Sequential | nn.ModuleList) and len(parts) == 1:
            return True
        used = self.modules & set(map(id, parts)) or self.tensors & set(map(id, held))
        return bool(used)

    def unused(self, module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
        """Find in and below a module what was not used: its owner, and its name there."""
        own = {**module._parameters, **module._buffers}  # noqa: SLF001
        for name, tensor in own.items():
            if tensor is not None and id(tensor) not in self.tensors and name not in COUNTERS:
                yield module, name
        for name, child in module.named_children():
            if self.has_used(child):
                yield from self.unused(child)
            else:
                yield module, name


@torch.no_grad()
def observe_usage(detector: Detector) -> Usage | None:
    """Run a detector on meta tensors; None where it reads numbers that meta tensors lack.

    Such a detector cannot be traced either, and tracing says where.
    """
    called: set[int] = set()
    hooks = [
        module.register_forward_pre_hook(lambda module, _: called.add(id(module)))
        for module in detector.modules()
    ]
    image = torch.empty(1, detector.channels, PROBE, PROBE, device="meta")
    try:
        with Reads() as reads:
            detector.eval()(image)
    except Exception:  # noqa: BLE001  # a user's twin may raise anything
        return None
    finally:
        for hook in hooks:
            hook.remove()
    return Usage(reads.tensors, called)


def refuse_unused(detector: Detector, origins: Mapping[nn.Module, Origin]) -> list[str]:
    """Check that a detector, strides included, uses everything that its checkpoint stores.

    Returns sentences about what a user's own twins leave out.

    Raises:
        UnknownBlockError: one of yqc's twins, or a module of torch, leaves something out.
    """
    found: dict[nn.Module, list[str]] = {}
    needed = detector.needed() | {len(detector.model) - 1}
    usage = observe_usage(detector)
    for i in sorted(needed):
        for module in detector.model[i].modules():
            if module in origins and origins[module].unread:
                found.setdefault(module, []).extend(origins[module].unread)
        for owner, name in usage.unused(detector.model[i]) if usage else ():
            if not (owner is detector.head and name in detector.head.training_only):
                found.setdefault(owner, []).append(name)
    said = []
    for module in filter(origins.__contains__, found):
        if isinstance(module, Block) or type(module).__module__.startswith("torch."):
            refuse_edited(origins[module], found[module])
        said.append(
            f"{_place(origins[module])} also holds {_listed(found[module])}, which its registered"
            f" twin {type(module).__name__} does not use"
        )
    return said


def refuse_edited(origin: Origin, names: Sequence[str]) -> NoReturn:
    """Refuse a block that holds what its known form does not use.

    Raises:
        UnknownBlockError: always.
    """
    whose = "torch's" if origin.class_path.startswith("torch.") else "yqc's"
    raise UnknownBlockError(
        f"{_place(origin)} also holds {_listed(names)}, which {whose} {origin.class_name} does not"
        f" use: the block was edited; register a twin, in a file for --load:\n"
        f"{how_to_register(origin.class_path)}"
    )


def _place(origin: Origin) -> str:
    return f"{shown(origin.path)} ({shown(origin.class_name)})"


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(map(shown, names[:SHOWN])) + (f" and {rest} more" if rest > 0 else "")
