"""Open a model as a traced graph: a checkpoint, a graph file of yqc, or a module from Python."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import fx, nn

from yqc.errors import CheckpointError, TraceError
from yqc.facts import DEFAULT_SIZE, HasFacts, HeadFacts, Layout, ModelFacts, Task
from yqc.graph.compare import check_finite, parameter_count
from yqc.graph.resizing import find_difference, resize_graph, trial_size
from yqc.graph.serial import is_graph_file, load_graph
from yqc.graph.values import KEY, TensorSpec
from yqc.models.heads import HeadBranch
from yqc.models.load import LoadedModel, load
from yqc.models.pickles.read import file_stamp
from yqc.models.trace import trace

AnyModel: TypeAlias = str | Path | nn.Module | LoadedModel
"""What can be compiled: a file's path, a module from Python, or what `load` returned."""
DEFAULT_STRIDE = 32
"""Sides of a net without known strides are tried in multiples of it, as most backbones want."""
LARGEST = 1 << 25
"""Pixels of an image at most, such as 8192 x 4096; a larger one takes gigabytes in every layer."""


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
    model = Path(model)
    if is_graph_file(model):
        if head is not None or arch is not None:
            option = "--arch" if head is None else "--head"
            raise CheckpointError(f"{model} is a graph that was traced already; leave {option} out")
        source = _of_graph_file(model, imgsz)
        return replace(source, fixed=why_fixed(source.gm, source.strides) if dynamic else "")
    return _of_loaded(load(model, head=head, arch=arch), imgsz, dynamic=dynamic)


def _of_loaded(loaded: LoadedModel, imgsz: tuple[int, int] | None, *, dynamic: bool) -> Source:
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
    if isinstance(module, fx.GraphModule) and (traced := _traced_shape(module)) is not None:
        if imgsz not in (None, traced[1:]):
            raise TraceError(
                f"the graph is traced at {traced[1]} x {traced[2]}, and that cannot be changed; "
                "leave imgsz out"
            )
        gm = module
    else:
        gm = _trace_module(module, imgsz or DEFAULT_SIZE)
    channels, *size = _traced_shape(gm) or (3, *(imgsz or DEFAULT_SIZE))
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


def _traced_shape(gm: fx.GraphModule) -> tuple[int, int, int] | None:
    """Return channels, height and width of the images that a traced graph takes."""
    images = next((node for node in gm.graph.nodes if node.op == "placeholder"), None)
    spec = None if images is None else images.meta.get("yqc.value")
    if not isinstance(spec, TensorSpec) or len(spec.shape) != 4:  # noqa: PLR2004  # [N,C,H,W]
        return None
    return spec.shape[1], spec.shape[2], spec.shape[3]


def _of_graph_file(path: Path, imgsz: tuple[int, int] | None) -> Source:
    before = file_stamp(path.stat())
    gm, info, _ = load_graph(path)
    check_finite(gm, str(path), CheckpointError)
    sha256 = file_sha256(path)
    if file_stamp(path.stat()) != before:
        raise CheckpointError(f"{path} was written to while it was read; try again")
    if info.get("kind") != "model":
        raise CheckpointError(
            f"{path} is a {info.get('kind', 'snapshot')} of a compile, not a model; compile the "
            "checkpoint it came from"
        )
    match info.get("imgsz"):
        case [int(high), int(wide)] if min(high, wide) > 0 and high * wide <= LARGEST:
            pass
        case other:
            raise CheckpointError(f"{path} records no image size, but {json.dumps(other)}")
    wanted = (int(info.get("channels", 3)), high, wide)
    if _traced_shape(gm) != wanted:
        raise CheckpointError(f"{path} does not take the images that it says: {wanted}")
    if imgsz not in (None, (high, wide)):
        raise TraceError(
            f"{path} is traced at {high} x {wide}, and that cannot be changed; leave --imgsz out"
        )
    try:
        return Source(
            gm=gm,
            path=str(path),
            sha256=sha256,
            params=parameter_count(gm),
            facts=ModelFacts(
                family=str(info["family"]),
                name=str(info["name"]),
                task=str(_one_of(Task, info["task"]) if info["layout"] else info["task"]),
                names=tuple(map(str, info["names"])),
                strides=tuple(map(int, info["strides"])),
                imgsz=(high, wide),
                channels=int(info.get("channels", 3)),
                layout=_one_of(Layout, info["layout"]) if info["layout"] else None,
                coefficients=int(info.get("coefficients", 0)),
                kpt_shape=_pair(info.get("kpt_shape")),
                head=_read_head(info.get("head")),
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not say what model it holds ({error})") from error


def _one_of(allowed: Any, found: object) -> Any:  # noqa: ANN401  # a Literal, and one of it
    """Return what was found if a `Literal` allows it.

    Raises:
        ValueError: it does not.
    """
    if found not in get_args(allowed):
        raise ValueError(f"{found!r:.40}")
    return found


def _pair(found: object) -> tuple[int, int] | None:
    """Read keypoints and numbers of each, or None.

    Raises:
        ValueError: it is something else.
    """
    match found:
        case None:
            return None
        case [int(keypoints), int(numbers)] if keypoints > 0 and numbers in (2, 3):
            return keypoints, numbers
    raise ValueError(f"kpt_shape {found!r:.40}")


def _read_head(found: object) -> HeadFacts | None:
    """Read how raw outputs are decoded, or None.

    Raises:
        TypeError, ValueError: it is something else.
    """
    if not isinstance(found, dict):
        return None
    levels = [[(float(w), float(h)) for w, h in level] for level in found["anchors"]]
    factors = found["keypoints"]
    return HeadFacts(
        reg_max=int(found["reg_max"]),
        anchors=tuple(map(tuple, levels)),
        keypoints=None if factors is None else (float(factors[0]), float(factors[1])),
        angle=found["angle"] and _one_of(Literal["sigmoid", "radians"], found["angle"]),
    )


def file_sha256(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
