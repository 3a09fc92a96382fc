"""Loading: from a `.pt` file of YOLOv5, YOLOv7 or Ultralytics to a runnable detector."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from yqc.errors import CheckpointError
from yqc.facts import HasFacts, ModelFacts
from yqc.models import arch as architectures
from yqc.models.content import Content, class_names, find_content, training_size
from yqc.models.detector import Detector, route
from yqc.models.heads import AuxiliaryHead, Branch
from yqc.models.pickles.read import read
from yqc.models.rebuild import Rebuilder
from yqc.models.register import known


@dataclass(frozen=True, kw_only=True)
class LoadedModel(HasFacts):
    """A detector ready to trace, and what its checkpoint says of it."""

    module: nn.Module
    """float32, in eval mode: `f32[N, 3, H, W]` in 0..1 to the decoded output."""
    path: Path
    sha256: str
    blocks: dict[str, int] = field(default_factory=dict)
    """How many blocks of each of the project's classes the checkpoint holds."""
    warnings: tuple[str, ...] = ()


def load(path: str | Path, *, head: Branch | None = None, arch: Path | None = None) -> LoadedModel:
    """Load a detector from a checkpoint; nothing that the file holds is imported or run.

    Args:
        path: a `.pt` file as a YOLOv5, YOLOv7 or Ultralytics training writes it.
        head: which branches of an end-to-end model to use; by default the one-to-one ones.
        arch: a model YAML, for a file that holds nothing but a state dict.

    Raises:
        CheckpointError: the file is no such checkpoint, or is damaged.
        ForbiddenGlobalError: it names something that is not allowed in a checkpoint.
        UnknownBlockError: it holds a block without a twin.
        UnsupportedTaskError: it is not a detector.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        raise CheckpointError(
            f"{path} is an ONNX file; give the checkpoint (.pt) that it was made from: only"
            " `yqc eval` and `yqc bench` take ONNX files"
        )
    try:
        return _load(path, head, arch)
    except CheckpointError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except RecursionError as error:
        raise CheckpointError(f"{path}: its modules are nested too deeply") from error


def _load(path: Path, head: Branch | None, arch: Path | None) -> LoadedModel:
    content = find_content(read(path, known))
    warnings: list[str] = []
    if content.layers:
        if arch is not None:
            raise CheckpointError("the file holds its own architecture; leave --arch out")
        detector, blocks = _rebuild(content)
    else:
        if arch is None:
            raise CheckpointError(
                "the file holds a state dict without an architecture; name its model YAML with"
                " --arch"
            )
        built = architectures.load_architecture(arch, content.tensors)
        content = replace(content, family=built.family, name=built.name, names=built.names)
        detector, blocks = built.detector, built.blocks
    if isinstance(detector.head, AuxiliaryHead):
        warnings.append("the auxiliary heads serve training only and were left out")
    settle(detector, head)
    names, doubts = class_names(content.names, detector.head.nc)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return LoadedModel(
        module=detector,
        path=path,
        sha256=sha256,
        facts=ModelFacts(
            family=content.family,
            name=content.name,
            names=names,
            strides=tuple(int(stride) for stride in detector.head.stride),
            imgsz=training_size(content),
            layout=detector.head.layout,
        ),
        blocks=dict(sorted(blocks.items())),
        warnings=(*warnings, *doubts),
    )


def _rebuild(content: Content) -> tuple[Detector, dict[str, int]]:
    """Make the detector of a pickled model."""
    rebuilder = Rebuilder()
    routes = [route(layer.state.get("f", -1), i) for i, layer in enumerate(content.layers)]
    layers = [rebuilder.module(layer, f"model.{i}") for i, layer in enumerate(content.layers)]
    return Detector(layers, routes), rebuilder.blocks


def settle(detector: Detector, head: Branch | None) -> None:
    """Make a detector whose weights are in place ready to trace: one head, strides, no dead layers.

    Raises:
        CheckpointError: the head asked for is absent, or layers do not fit together.
    """
    last = detector.head
    try:
        last.check()
    except AttributeError as error:
        raise CheckpointError(f"the head is incomplete: {error}") from error
    if head is not None:
        last.choose(head)
    detector.prune()
    measured = detector.measure_strides()
    if last.stride and tuple(last.stride) != measured:
        raise CheckpointError(
            f"the file records strides {list(last.stride)}, but its layers make {list(measured)}:"
            " the checkpoint is damaged"
        )
    last.stride = measured
    detector.eval().requires_grad_(requires_grad=False)
