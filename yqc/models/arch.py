"""Build detectors from model YAMLs, for weights without an architecture and for training.

Reads the format that the three projects share: rows of `[from, repeats, module, args]` under
`backbone` and `head`, with `depth_multiple` and `width_multiple` or a table of `scales`, and
`anchors` where the head has them.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from yqc.errors import CheckpointError, first_line
from yqc.models.arch_rows import LayerStack, Scaling, activation_of
from yqc.models.blocks.base import Block
from yqc.models.blocks.conv import Conv
from yqc.models.content import V7_ONLY, V9_ONLY, refuse_other_tasks, scaled_name
from yqc.models.detector import Detector
from yqc.models.heads import AnchorHead
from yqc.models.rebuild import widen
from yqc.models.register import SHARED, ULTRALYTICS
from yqc.models.split_weights import join_parts

ANCHOR_DIMS = 3
"""Of stored anchors: [levels, anchors, 2]."""
OWN_CONSTANTS = (
    *(".num_batches_tracked", ".anchors"),
    *(".dfl.conv.weight", ".dfl2.conv.weight", ".dfl3.conv.weight"),
)
"""Ends of the names of tensors that a fresh model holds already with their values."""
NEVER_LOADED = (".anchor_grid", ".num_batches_tracked", "total_ops", "total_params")
"""Ends of the names of stored tensors that no model needs: derived ones, and counters."""

SCALED_STEM = re.compile(r"(yolov?\d+)([a-z])(-.*)?")


@dataclass(frozen=True)
class Architecture:
    """The content of a model YAML, its name, and the scale to build."""

    spec: Mapping[str, Any]
    name: str
    scale: str

    @property
    def last(self) -> int:
        """Index of the last layer, the head."""
        return len(self.spec["backbone"]) + len(self.spec["head"]) - 1

    @property
    def family(self) -> str:
        """The project whose rules of building apply."""
        if str(self.spec["head"][-1][2]) in V9_ONLY:
            return "yolov9"
        if "anchors" not in self.spec:
            return "ultralytics"
        modules = {row[2] for row in (*self.spec["backbone"], *self.spec["head"])}
        return "yolov7" if modules & V7_ONLY else "yolov5"


@dataclass(frozen=True)
class BuiltDetector:
    """A detector made from a YAML, with the YAML's family, name, class names and block counts."""

    detector: Detector
    family: str
    name: str
    names: object
    blocks: dict[str, int]


def read_architecture(path: Path) -> Architecture:
    """Read a model YAML. A scale's letter may stand in the file name only, as `yolov8n.yaml`.

    Raises:
        CheckpointError: the file is absent, or is no model YAML.
    """
    file, letter = path, ""
    if (match := SCALED_STEM.fullmatch(path.stem)) is not None:
        letter = match[2]
        if not path.is_file():
            file = path.with_stem(f"{match[1]}{match[3] or ''}")
    if file.exists() and not file.is_file():
        raise CheckpointError(f"the model YAML {path} cannot be read: it is no file")
    try:
        spec = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"the model YAML {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is no YAML: {first_line(error)}") from error
    return check_architecture(spec, letter, path.stem)


def check_architecture(spec: object, scale: str = "", name: str = "model") -> Architecture:
    """Check a model YAML's content; `scale` is one of its `scales`, unless a key `scale` names it.

    Raises:
        CheckpointError: rows are missing or malformed, or there is no such scale.
    """
    if not isinstance(spec, Mapping):
        raise CheckpointError(f"{name} is no model YAML: it is not a mapping")
    for part in ("backbone", "head"):
        rows = spec.get(part)
        if not isinstance(rows, list) or not all(map(_is_row, rows)):
            raise CheckpointError(f"{name} is no model YAML: {part} is no list of rows of four")
    scales = spec.get("scales") or {}
    scale = str(spec.get("scale") or (scale if scale in scales else next(iter(scales), "")))
    if scales and scale not in scales:
        raise CheckpointError(f"{name} has no scale {scale!r}, only {', '.join(scales)}")
    return Architecture(spec, scaled_name(name, scale or None), scale)


def _is_row(row: object) -> bool:
    match row:
        case [int() | [*_], int(), str(), [*_]]:  # from, repeats, module, args
            return True
    return False


def build_detector(arch: Architecture, nc: int | None = None) -> Detector:
    """Make a detector with fresh weights, ready to train, for `nc` classes or those of the YAML.

    Raises:
        CheckpointError: a row does not make a layer.
        UnknownBlockError: a row names a block without a twin.
    """
    spec = arch.spec
    anchors = [] if arch.family == "yolov9" else spec.get("anchors", [])
    if isinstance(anchors, int):
        raise CheckpointError(
            "the model YAML gives a number of anchors, not their sizes: these must stand in it, or"
            " in the weights (anchors of the last layer)"
        )
    channels = spec.get("channels", spec.get("ch", 3))
    if type(channels) is not int or channels < 1:
        raise CheckpointError("the model YAML's number of channels is no whole number above 0")
    multiples = (spec.get("depth_multiple", 1.0), spec.get("width_multiple", 1.0))
    depth, width, *limit = spec.get("scales", {}).get(arch.scale) or multiples
    stack = LayerStack(
        family=arch.family,
        scaling=Scaling(depth, width, limit[0] if limit else math.inf, arch.scale),
        nc=int(spec.get("nc", 80) if nc is None else nc),
        anchors=anchors,
        head=spec,
        images=channels,
    )
    rows = (*spec["backbone"], *spec["head"])
    refuse_other_tasks([str(rows[-1][2])])
    for row in rows:
        stack.add(row)
    detector = Detector(stack.layers, stack.routes)
    if (text := spec.get("activation", spec.get("act"))) is not None:
        for module in list(detector.modules()):
            if isinstance(module, Block) and isinstance(module.child("act"), nn.SiLU):
                module.act = activation_of(str(text))
    head = detector.head
    head.stride = detector.measure_strides()
    if isinstance(head, AnchorHead):
        head.scale_anchors()
    return detector.train()


def load_architecture(path: Path, state: Mapping[str, Tensor]) -> BuiltDetector:
    """Make the detector of a model YAML and give it the weights of a state dict.

    The numbers of classes and of input channels are those of the weights.

    Raises:
        CheckpointError: the YAML cannot be used, or the weights are not those of its model.
    """
    arch = with_stored_anchors(read_architecture(path), state)
    if (channels := count_channels(state)) is not None:
        arch = replace(arch, spec={**arch.spec, "channels": channels})
    detector = build_detector(arch, count_classes(state, arch))
    load_weights(detector, state, path)
    tables = ULTRALYTICS if arch.family == "ultralytics" else SHARED
    names = {twin: name for name, twin in reversed(tables.items())}
    types = [type(m) for m in detector.modules() if isinstance(m, Block)]
    blocks = Counter(names.get(t, t.__name__) for t in types)
    for module in detector.modules():
        if isinstance(module, Block):
            module.finish()
    return BuiltDetector(detector, arch.family, arch.name, arch.spec.get("names"), dict(blocks))


def with_stored_anchors(arch: Architecture, state: Mapping[str, Tensor]) -> Architecture:
    """Stand in for the sizes of anchors where a YAML gives only their number and weights hold them.

    The sizes are placeholders: those of the weights, in cells of each level, are loaded later.
    """
    stored = state.get(f"model.{arch.last}.anchors")
    if (
        not isinstance(arch.spec.get("anchors"), int)
        or stored is None
        or stored.ndim != ANCHOR_DIMS
    ):
        return arch
    levels, count, _ = stored.shape
    return replace(arch, spec={**arch.spec, "anchors": [[1.0, 1.0] * count] * levels})


def count_classes(state: Mapping[str, Tensor], arch: Architecture) -> int | None:
    """Return the number of classes by the last convolutions' outputs, or None without them."""
    anchors = arch.spec.get("anchors")
    for key, tensor in state.items():
        if re.fullmatch(rf"model\.{arch.last}\.cv[357]\.0\.\d+\.bias", key):
            return len(tensor)
        if key == f"model.{arch.last}.linear.bias":
            return len(tensor)
        if key == f"model.{arch.last}.m.0.bias" and isinstance(anchors, list):
            _, _, kind, args = arch.spec["head"][-1]
            masks = int(args[2]) if kind == "Segment" else 0
            return len(tensor) // (len(anchors[0]) // 2) - 5 - masks
    return None


def count_channels(state: Mapping[str, Tensor]) -> int | None:
    """Return the channels of the image by the first convolution; None if it is no plain one."""
    first = state.get("model.0.conv.weight")
    return None if first is None or first.ndim != 4 else first.shape[1]  # noqa: PLR2004


def load_weights(detector: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict strictly, floats as float32; weights stored in parts are joined.

    What every model computes for itself may be missing: counters of batch norms, the numbers of
    the distance expectation, anchors whose sizes the YAML gives. Batch norms may be missing, too,
    where the convolutions have biases instead, as after the projects' own fusing. What serves
    training only is left out.

    Raises:
        CheckpointError: names or shapes differ from the model's.
    """
    drop_fused_norms(detector, state)
    ours = detector.state_dict()
    whole = join_parts({k: widen(v) for k, v in state.items()}, ours.__contains__)
    unwanted = tuple(
        f"{name}.{part}."
        for name, module in detector.named_modules()
        if isinstance(module, Block)
        for part in module.left_out
    )
    given = {
        k: v
        for k, v in whole.items()
        if k in ours or not (k.endswith(NEVER_LOADED) or k.startswith(unwanted))
    }
    wrong = sorted(k for k in ours.keys() & given.keys() if ours[k].shape != given[k].shape)
    parts = [
        *(f"{k} is missing" for k in ours if k not in given and not k.endswith(OWN_CONSTANTS)),
        *(f"{k} is not part of the model" for k in given if k not in ours),
        *(f"{k} has shape {list(given[k].shape)}, not {list(ours[k].shape)}" for k in wrong),
    ]
    if parts:
        more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""  # noqa: PLR2004
        raise CheckpointError(f"the weights are not those of {path}: {'; '.join(parts[:3])}{more}")
    detector.load_state_dict(given, strict=False)


def drop_fused_norms(detector: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Leave out batch norms whose numbers stored weights hold in the convolutions' biases."""
    for name, module in detector.named_modules():
        if not isinstance(module, Conv) or f"{name}.bn.weight" in state:
            continue
        bias = state.get(f"{name}.conv.bias")
        if bias is not None and isinstance(module.conv, nn.Conv2d):
            del module.bn
            module.conv.bias = nn.Parameter(torch.zeros(module.conv.out_channels))
