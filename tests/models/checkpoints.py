"""Checkpoint files as the three projects pickle them, made without the projects.

A detector of twins is taken apart into objects whose classes carry the projects' paths: classes of
these names stand in `sys.modules` while the file is written, and nowhere afterwards.
"""

import sys
import types
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yqc.models.arch import build_detector, check_architecture
from yqc.models.blocks.csp import Bottleneck
from yqc.models.blocks.transformer import SelfAttention
from yqc.models.detector import Detector
from yqc.models.heads import AnchorHead, DetectionHead, DistanceHead
from yqc.models.heads.branched import PlainHead
from yqc.models.register import ULTRALYTICS, YOLOV5, YOLOV7, YOLOV9

ADDED = {"AConv": {"mean"}, "ADown": {"mean", "pool"}}
"""Children of twins that their originals do not have."""

HOMES = {
    "conv": {"Conv", "DWConv", "ConvTranspose", "Focus", "GhostConv", "RepConv", "Concat"},
    "head": {
        *("Detect", "v10Detect", "Segment", "Segment26", "Pose", "Pose26", "OBB", "OBB26"),
        "Classify",
    },
    "transformer": {"TransformerLayer", "TransformerBlock"},
}


def class_path(module: nn.Module, project: str) -> str:
    """Return where the class that a twin stands for lives."""
    if project == "ultralytics":
        names = {twin: name for name, twin in ULTRALYTICS.items()}
        name = names[type(module)]
        home = next((home for home, held in HOMES.items() if name in held), "block")
        return f"ultralytics.nn.modules.{home}.{name}"
    names = {twin: name for name, twin in reversed((YOLOV5 | YOLOV7).items())}
    if project == "yolov9":
        names |= {twin: name for name, twin in YOLOV9.items()} | {PlainHead: "Detect"}
    names[Bottleneck] = "Bottleneck"
    name = names[type(module)]
    home = "experimental" if name in {"MixConv2d", "Sum"} else "common"
    return f"models.{'yolo' if isinstance(module, DetectionHead) else home}.{name}"


def stand_in(path: str) -> type[nn.Module]:
    """Make a class that pickles under a path, and put it there."""
    parts = path.split(".")
    for i in range(1, len(parts)):
        name = ".".join(parts[:i])
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
            if i > 1:
                setattr(sys.modules[".".join(parts[: i - 1])], parts[i - 1], sys.modules[name])
    home = sys.modules[".".join(parts[:-1])]
    if not hasattr(home, parts[-1]):
        setattr(home, parts[-1], type(parts[-1], (nn.Module,), {"__module__": home.__name__}))
    found: type[nn.Module] = getattr(home, parts[-1])
    return found


@contextmanager
def project_modules() -> Iterator[None]:
    """Forget the stand-ins' modules afterwards."""
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in {"models", "ultralytics", "acme"}:
                del sys.modules[name]


def disguise(
    module: nn.Module, project: str, done: dict[int, nn.Module] | None = None
) -> nn.Module:
    """Return a module as the project would have it, sharing the tensors and shared modules."""
    done = {} if done is None else done
    if isinstance(module, SelfAttention):
        return as_torch_attention(module)
    if id(module) in done:
        return done[id(module)]
    own = type(module).__module__.startswith("torch.")
    path = getattr(module, "pickle_as", None) or ("" if own else class_path(module, project))
    cls = type(module) if not path else stand_in(path)
    twin: nn.Module = cls.__new__(cls)
    twin.__dict__ = dict(module.__dict__)
    twin.__dict__.pop("pickle_as", None)
    added = ADDED.get(type(module).__name__, set())
    twin._modules = {
        name: disguise(child, project, done)
        for name, child in module._modules.items()
        if child is not None and name not in added
    }
    if isinstance(module, DetectionHead):
        twin.__dict__ |= stale(module, project)
    done[id(module)] = twin
    return twin


def as_torch_attention(module: SelfAttention) -> nn.MultiheadAttention:
    attention = nn.MultiheadAttention(module.embed_dim, module.num_heads)
    attention.load_state_dict(module.state_dict())
    return attention


def stale(head: DetectionHead, project: str) -> dict[str, Any]:
    """Return what a head holds besides, from a forward at another size."""
    found: dict[str, Any] = {"stride": torch.tensor(head.stride)}
    if project != "yolov7":
        found["inplace"] = True
    if isinstance(head, AnchorHead):
        found["grid"] = [torch.rand(1, 1, 2, 2, 2) for _ in range(head.nl)]
    if isinstance(head, DistanceHead):
        found |= {"no": head.nc + 4, "shape": torch.Size([1, 3, 8, 8])}
        found |= {"anchors": torch.rand(2, 84), "strides": torch.rand(1, 84)}
    return found


def pickled_model(detector: Detector, project: str, **attributes: object) -> nn.Module:
    """Return a detector as the project's model class."""
    layers: list[nn.Module] = []
    done: dict[int, nn.Module] = {}
    for i, (layer, route) in enumerate(zip(detector.model, detector.routes, strict=True)):
        layers.append(disguise(layer, project, done))
        sources = list(route.sources)
        layers[i].i, layers[i].f = i, sources if route.many else sources[0]  # type: ignore[assignment]
        layers[i].type, layers[i].np = "block", 0  # type: ignore[assignment]
    path = {
        "ultralytics": "ultralytics.nn.tasks.DetectionModel",
        "yolov5": "models.yolo.DetectionModel",
        "yolov7": "models.yolo.Model",
        "yolov9": "models.yolo.DetectionModel",
    }[project]
    cls = stand_in(str(attributes.pop("class_path", path)))
    model: nn.Module = cls.__new__(cls)
    nn.Module.__init__(model)
    model.model = nn.Sequential(*layers)
    model.__dict__ |= attributes
    return model


def save(
    path: Path, detector: Detector, project: str, *, zipped: bool = True, **options: Any
) -> Path:
    """Write a checkpoint as a finished training leaves it.

    Options: `top` (more keys of the file), `under` ("model" or "ema"), others become attributes of
    the model.
    """
    top: Mapping[str, Any] = options.pop("top", {})
    under = options.pop("under", "model")
    with project_modules():
        model = pickled_model(detector, project, **options)
        ckpt = {"epoch": -1, "model": None, "ema": None, under: model, **top}
        with warnings.catch_warnings(action="ignore"):  # That the stand-ins have no source.
            torch.save(ckpt, path, _use_new_zipfile_serialization=zipped)
    return path


def make(spec: Mapping[str, Any], *, nc: int = 3, scale: str = "", seed: int = 0) -> Detector:
    """Build a detector from a spec with random weights, none of them an identity.

    Weights are rounded to half precision, so that saving them so changes nothing.
    """
    torch.manual_seed(seed)
    detector = build_detector(check_architecture(dict(spec), scale), nc)
    randomise(detector)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.copy_(parameter.half().float())
    return detector.eval()


@torch.no_grad()
def randomise(module: nn.Module) -> None:
    """Give batch norms, biases and the like values that show when they are lost."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.normal_(child.bias, 0, 0.2)
            assert child.running_mean is not None and child.running_var is not None  # noqa: PT018
            nn.init.normal_(child.running_mean, 0, 0.1)
            nn.init.uniform_(child.running_var, 0.5, 1.5)
            child.running_mean.copy_(child.running_mean.half())
            child.running_var.copy_(child.running_var.half())
        for name, parameter in child.named_parameters(recurse=False):
            own = name in {"gamma", "implicit", "bias"} and not isinstance(child, nn.BatchNorm2d)
            if own:
                nn.init.normal_(parameter, 0.3, 0.5)


def images(batch: int = 2, size: tuple[int, int] = (128, 192)) -> Tensor:
    """Return random images."""
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(7))
