"""Load a `.pt` file of YOLOv5, YOLOv7 or Ultralytics as a runnable detector."""

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from yqc.errors import CheckpointError
from yqc.facts import HasFacts, ModelFacts
from yqc.graph.serial import is_graph_file
from yqc.models import arch as architectures
from yqc.models.blocks.base import Block
from yqc.models.content import Content, class_names, find_content, training_size
from yqc.models.detector import Detector, Route, read_route
from yqc.models.file_kinds import describe_other_format
from yqc.models.graph_files import Snapshot, read_graph_file
from yqc.models.heads import AuxiliaryHead, BranchedHead, HeadBranch, RegisteredHead
from yqc.models.pickles.globals import foreign
from yqc.models.pickles.read import read_with_sha256
from yqc.models.rebuild import Rebuilder
from yqc.models.register import known
from yqc.models.transforms import IMAGENET, ImageTransforms, read_transforms
from yqc.models.unknown import refuse_unknown
from yqc.models.unused import Origin, refuse_edited, refuse_unused
from yqc.models.weights import is_safetensors, read_safetensors
from yqc.report.human import clean


@dataclass(frozen=True, kw_only=True)
class LoadedModel(HasFacts):
    """A detector ready to trace, and the facts that its checkpoint records."""

    module: nn.Module
    """float32, in eval mode: `f32[N, 3, H, W]` in 0..1 to the decoded output."""
    path: Path
    sha256: str
    snapshot: Snapshot | None = None
    """What a snapshot has beside its graph, which is the module; None for anything else."""
    blocks: dict[str, int] = field(default_factory=dict)
    """How many blocks of each of the project's classes the checkpoint holds."""
    warnings: tuple[str, ...] = ()


def load(
    path: str | Path, *, head: HeadBranch | None = None, arch: Path | None = None
) -> LoadedModel:
    """Load a detector from a checkpoint; nothing that the file holds is imported or run.

    Args:
        path: a `.pt` file as a YOLOv5, YOLOv7 or Ultralytics training writes it, a file of weights
            alone (`.pt`, `.safetensors`), or a graph file or snapshot (`.yqc`), whose graph is the
            module then.
        head: which branches of an end-to-end model to use; by default the one-to-one ones.
        arch: a model YAML, for a file that holds weights and no architecture.

    Raises:
        CheckpointError: the file is no such checkpoint, or is damaged.
        ForbiddenGlobalError: it names something that is not allowed in a checkpoint.
        UnknownBlockError: it holds a block without a twin.
        UnsupportedTaskError: it is not a detector.
    """
    path = Path(path)
    if is_graph_file(path):
        if head is not None or arch is not None:
            option = "--arch" if head is None else "--head"
            raise CheckpointError(f"{path} is a graph that was traced already; leave {option} out")
        gm, facts, sha256, snapshot = read_graph_file(path)
        return LoadedModel(module=gm, facts=facts, path=path, sha256=sha256, snapshot=snapshot)
    try:
        return _load(path, head, arch)
    except CheckpointError as error:
        raise named_error(path, error) from error
    except RecursionError as error:
        raise named_error(path, CheckpointError("its modules are nested too deeply")) from error


def named_error(path: Path, error: CheckpointError) -> CheckpointError:
    """Return an error that begins with the file's name, control characters escaped.

    Names of modules and classes come from the file and may hold terminal commands.
    """
    said, name = str(error), str(path)
    said = said if name in said else f"{name}: {said}"
    return type(error)("\n".join(map(clean, said.split("\n"))))


def is_outsider(class_path: str) -> bool:
    """Whether a class lives in another package: objects of it are read as data, never imported."""
    return foreign(class_path) and all(map(str.isidentifier, class_path.split(".")))


def read_any(path: Path) -> tuple[object, str]:
    """Read a checkpoint, or a file of weights alone, as data; return it and its SHA-256.

    Raises:
        CheckpointError: it is of another format, which the error names, or damaged.
        ForbiddenGlobalError: it names something that is not allowed in a checkpoint.
    """
    if (other := describe_other_format(path)) is not None:
        raise CheckpointError(other)
    if is_safetensors(path):
        return read_safetensors(path)
    return read_with_sha256(path, known, is_outsider)


def _load(path: Path, head: HeadBranch | None, arch: Path | None) -> LoadedModel:
    top, sha256 = read_any(path)
    content = find_content(top)
    warnings = [*content.ignored]
    origins: Mapping[nn.Module, Origin] = {}
    if content.layers:
        if arch is not None:
            raise CheckpointError("the file holds its own architecture; leave --arch out")
        if content.beside:
            refuse_edited(Origin("the model", content.class_path), content.beside)
        rebuilder, trees = Rebuilder(), content.layers
        refuse_unknown(trees)
        routes = [read_route(tree.state.get("f", -1), i) for i, tree in enumerate(trees)]
        layers = [rebuilder.module(tree, f"model.{i}") for i, tree in enumerate(trees)]
        layers[-1] = as_head(layers[-1], routes[-1], content)
        detector = Detector(layers, routes)
        blocks, origins = rebuilder.blocks, rebuilder.origins
        if count := len(rebuilder.quantizers):
            found = f"the file holds {count} ranges of quantization-aware training"
            warnings.append(f"{found}, which yqc ignores: it chooses its own")
        if rebuilder.hooks:
            place, hook = next(iter(rebuilder.hooks.items()))
            count = len(rebuilder.hooks)
            warnings.append(
                f"the file holds hooks on {count} modules ({place}: {hook}), which yqc does not run"
            )
    else:
        if arch is None:
            raise CheckpointError(
                "the file holds weights without an architecture; name its model YAML with --arch"
            )
        built = architectures.load_architecture(arch, content.tensors)
        names = built.names or content.names
        content = replace(content, family=built.family, name=built.name, names=names)
        detector, blocks = built.detector, built.blocks
    branched = isinstance(detector.head, BranchedHead) and detector.head.branches > 1
    if branched or isinstance(detector.head, AuxiliaryHead):
        warnings.append("the auxiliary heads serve training only and were left out")
    if head is None and detector.head.preferred == "one2many":
        warnings.append("the file switches its one-to-one branches off: the others are used")
    finish_detector(detector, head)
    warnings += [*detector.head.ignored(), *refuse_unused(detector, origins)]
    transforms = read_transforms(content.transforms)
    if detector.head.task == "classify":
        warnings += normalise_images(detector, transforms, content.family)
    names, doubts = class_names(content.names, detector.head.nc)
    return LoadedModel(
        module=detector,
        path=path,
        sha256=sha256,
        facts=ModelFacts(
            family=content.family,
            name=content.name,
            names=names,
            strides=tuple(map(int, detector.head.stride)),
            imgsz=(transforms and transforms.size) or training_size(content),
            channels=detector.channels,
            task=detector.head.task,
            layout=detector.head.layout,
            coefficients=detector.head.coefficients,
            kpt_shape=detector.head.keypoints,
            head=detector.head.facts(),
        ),
        blocks=dict(sorted(blocks.items())),
        warnings=tuple(map(clean, (*warnings, *doubts))),
    )


def normalise_images(
    detector: Detector, transforms: ImageTransforms | None, family: str
) -> list[str]:
    """Let a classifier normalise its images as it was trained; return what was assumed."""
    said = []
    if transforms is None and family == "yolov5":
        transforms = ImageTransforms(None, *IMAGENET)
        said.append("the file records no normalisation; that of ImageNet is assumed")
    if transforms is not None and transforms.normalises:
        detector.normalise(transforms.mean, transforms.std)
    return said


def as_head(last: nn.Module, route: Route, content: Content) -> nn.Module:
    """Wrap the last layer as a head if it is a module of a user's own; else return it."""
    if isinstance(last, Block) or type(last).__module__.startswith("torch."):
        return last
    named = len(content.names) if isinstance(content.names, Sized) else 0
    return RegisteredHead(last, len(route.sources), route.many, named)


def finish_detector(detector: Detector, head: HeadBranch | None) -> None:
    """Make a detector whose weights are in place ready to trace: one head, strides, no dead layers.

    Raises:
        CheckpointError: the requested head is absent, or layers do not fit together.
    """
    last = detector.head
    try:
        last.check()
    except AttributeError as error:
        raise CheckpointError(f"the head is incomplete: {error}") from error
    if (branch := head or last.preferred) is not None:
        last.choose_branch(branch)
    detector.drop_unused_layers()
    measured = detector.measure_strides()
    if last.stride and tuple(last.stride) != measured:
        raise CheckpointError(
            f"the file records strides {list(last.stride)}, but its layers make {list(measured)}:"
            " the checkpoint is damaged"
        )
    last.stride = measured
    detector.eval().requires_grad_(requires_grad=False)
