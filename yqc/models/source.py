"""Open a model as a traced graph: a checkpoint, a graph file of yqc, or a module from Python."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import fx, nn

from yqc.errors import CheckpointError, TraceError
from yqc.facts import DEFAULT_SIZE, HasFacts, ModelFacts
from yqc.graph.compare import check_finite, parameter_count
from yqc.graph.resizing import find_difference, resize_graph, trial_size
from yqc.graph.values import KEY
from yqc.models.graph_files import LARGEST, Snapshot, traced_shape
from yqc.models.heads import HeadBranch
from yqc.models.load import LoadedModel, load
from yqc.models.trace import trace

AnyModel: TypeAlias = str | Path | nn.Module | LoadedModel
"""What can be compiled: a file's path, a module from Python, or what `load` returned."""
DEFAULT_STRIDE = 32
"""Sides of a net without known strides are tried in multiples of it, as most backbones want."""


@dataclass(frozen=True, kw_only=True)
class Source(HasFacts):
    """A traced detector and what is known about it; `imgsz` is the size that it is traced at."""

    gm: fx.GraphModule
    path: str
    """The file it came from, or the class of the module."""
    sha256: str
    """Of that file; empty for a module."""
    params: int
    """Parameters (not buffers) that the traced graph uses."""
    warnings: tuple[str, ...] = ()
    fixed: str = ""
    """Why height and width cannot vary in a file; empty where they can, or nothing was tried."""
    snapshot: Snapshot | None = None
    """The graph behind passes at which it is entered, if it was read from a snapshot."""

    @property
    def imgsz(self) -> tuple[int, int]:
        """Height and width that it is traced at."""
        return self.facts.size

    @property
    def is_detector(self) -> bool:
        """Whether the output can be evaluated."""
        return self.layout is not None

    def info(self) -> dict[str, Any]:
        """Return the facts as a graph file keeps them, plain JSON values."""
        plain = {name: getattr(self, name) for name in ("family", "name", "layout", "task")}
        lists = {name: list(getattr(self, name)) for name in ("names", "strides", "imgsz")}
        found = {"kind": "model", **plain, **lists, "channels": self.channels}
        if self.facts.coefficients:
            found["coefficients"] = self.facts.coefficients
        if self.facts.kpt_shape is not None:
            found["kpt_shape"] = list(self.facts.kpt_shape)
        if self.facts.head is not None:
            found["head"] = asdict(self.facts.head)
        return found


def open_model(
    model: AnyModel,
    *,
    imgsz: tuple[int, int] | None = None,
    head: HeadBranch | None = None,
    arch: Path | None = None,
    dynamic: bool = False,
) -> Source:
    """Load a model and trace it at one input size.

    Args:
        model: a YOLO checkpoint, a graph file (`.yqc`), a loaded checkpoint whose module may have
            been changed since, or a traceable module that takes float32 [N,C,H,W] in 0..1.
        imgsz: height and width in pixels; by default those of a traced graph, or what the model's
            training recorded, else 640.
        head: for models with two heads, which one to compile; by default the end-to-end one.
        arch: a model YAML, for checkpoints that hold only a state_dict.
        dynamic: find out whether height and width can vary, by tracing at another size, too.

    Raises:
        CheckpointError: the file cannot be read.
        TraceError: the size does not fit the model's strides, or the model cannot be traced.
    """
    if isinstance(model, nn.Module):
        return _of_module(model, imgsz, dynamic=dynamic)
    if isinstance(model, LoadedModel):
        if head is not None or arch is not None:
            option = "arch" if head is None else "head"
            raise CheckpointError(f"{model.path} is loaded already; give {option} to yqc.load")
        loaded = _of_loaded(model, imgsz, dynamic=dynamic)
        return replace(loaded, sha256="")  # its module may have been changed
    return _of_loaded(load(Path(model), head=head, arch=arch), imgsz, dynamic=dynamic)


def _of_loaded(loaded: LoadedModel, imgsz: tuple[int, int] | None, *, dynamic: bool) -> Source:
    if isinstance(loaded.module, fx.GraphModule):
        return _of_graph(loaded, loaded.module, imgsz, dynamic=dynamic)
    check_finite(
        loaded.module, str(loaded.path), CheckpointError, "; restore an earlier checkpoint"
    )
    size = imgsz or _fitting(loaded) or loaded.facts.size
    warnings = loaded.warnings
    if imgsz is None and loaded.imgsz is None:
        high, wide = size
        warnings += (f"the file records no image size; {high} x {wide} is assumed, see --imgsz",)
    check_size(size, loaded.strides)
    gm = trace(loaded.module, torch.zeros(1, loaded.channels, *size))
    return Source(
        gm=gm,
        path=str(loaded.path),
        sha256=loaded.sha256,
        params=parameter_count(gm),
        facts=replace(loaded.facts, imgsz=size),
        warnings=warnings,
        fixed=why_fixed(gm, loaded.strides, loaded.module) if dynamic else "",
    )


def _of_graph(
    loaded: LoadedModel, gm: fx.GraphModule, imgsz: tuple[int, int] | None, *, dynamic: bool
) -> Source:
    """Return the model of a graph file; of a snapshot, its float original."""
    check_finite(gm, str(loaded.path), CheckpointError)
    if imgsz not in (None, loaded.facts.size):
        high, wide = loaded.facts.size
        raise TraceError(
            f"{loaded.path} is traced at {high} x {wide}, and that cannot be changed; "
            "leave --imgsz out"
        )
    snapshot = loaded.snapshot
    original = gm if snapshot is None else snapshot.original
    return Source(
        gm=original,
        path=str(loaded.path) if snapshot is None else snapshot.model,
        sha256=loaded.sha256 if snapshot is None else snapshot.model_sha256,
        params=parameter_count(original),
        facts=loaded.facts,
        fixed=why_fixed(original, loaded.strides) if dynamic else "",
        snapshot=None if snapshot is None else replace(snapshot, gm=gm),
    )


def why_fixed(gm: fx.GraphModule, strides: tuple[int, ...], module: nn.Module | None = None) -> str:
    """Say why the height and width of a graph cannot vary; nothing where they can.

    The graph is resized, and compared with the trace of its module at that size, where there is
    one: a number that was computed from a size would otherwise go unseen.
    """
    try:
        size = trial_size(gm, max(strides, default=DEFAULT_STRIDE))
        other = resize_graph(gm, size)
        if module is None:
            return ""
        channels = next(n for n in gm.graph.nodes if n.op == "placeholder").meta[KEY].shape[1]
        found = find_difference(other, trace(module, torch.zeros(1, channels, *size)))
    except TraceError as error:
        return str(error)
    return f"height and width cannot vary: {found} depends on the traced size" if found else ""


def check_size(size: tuple[int, int], strides: tuple[int, ...]) -> None:
    """Raise a TraceError that says which sizes are possible if `size` is not."""
    step = max(strides, default=1)
    if size[0] * size[1] > LARGEST:
        raise TraceError(f"image size {size[0]} x {size[1]} is too large; use a smaller one")
    for side in size:
        if side <= 0 or side % step:
            below, above = max(step, side // step * step), (side // step + 1) * step
            near = f"{below} or {above}" if below != above else str(below)
            raise TraceError(
                f"image size {side} does not fit this model: height and width must be multiples "
                f"of {step}, its largest stride; use {near}"
            )


def _fitting(loaded: LoadedModel) -> tuple[int, int] | None:
    """Return the recorded training size, rounded up to what the strides allow."""
    if loaded.imgsz is None:
        return None
    step = max(loaded.strides, default=1)
    high, wide = (max(step, -(-side // step) * step) for side in loaded.imgsz)
    return high, wide


def _of_module(module: nn.Module, imgsz: tuple[int, int] | None, *, dynamic: bool) -> Source:
    if isinstance(module, fx.GraphModule) and (traced := traced_shape(module)) is not None:
        if imgsz not in (None, traced[1:]):
            raise TraceError(
                f"the graph is traced at {traced[1]} x {traced[2]}, and that cannot be changed; "
                "leave imgsz out"
            )
        gm = module
    else:
        gm = _trace_module(module, imgsz or DEFAULT_SIZE)
    channels, *size = traced_shape(gm) or (3, *(imgsz or DEFAULT_SIZE))
    name = type(module).__name__
    check_finite(gm, name, CheckpointError)
    return Source(
        gm=gm,
        path=name,
        sha256="",
        params=parameter_count(gm),
        facts=ModelFacts(family="module", name=name, imgsz=(size[0], size[1]), channels=channels),
        fixed=why_fixed(gm, (), None if gm is module else module) if dynamic else "",
    )


def _trace_module(module: nn.Module, imgsz: tuple[int, int]) -> fx.GraphModule:
    """Trace a module on RGB images, or on as many channels as its first convolution takes.

    Raises:
        TraceError: it can be traced on neither.
    """
    first = next((m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d)), 3)
    try:
        return trace(module, torch.zeros(1, 3, *imgsz))
    except TraceError:
        if first == 3:  # noqa: PLR2004  # RGB
            raise
    return trace(module, torch.zeros(1, first, *imgsz))
