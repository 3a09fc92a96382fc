"""Make layers from rows of a model YAML: how channels and repeats scale, block by block."""

import ast
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from yqc.errors import CheckpointError, UnknownBlockError
from yqc.models.blocks.elan import CBLinear
from yqc.models.detector import Route, read_route
from yqc.models.heads import (
    AnchorHead,
    AnchorSegmentHead,
    BranchedHead,
    ClassifyHead,
    DetectionHead,
    OrientedHead,
    PoseHead,
    SegmentHead,
    SplitHead,
)
from yqc.models.register import SHARED, ULTRALYTICS, Twin

CHAINS = frozenset(
    [
        *("BottleneckCSP", "C1", "C2", "C2f", "C3", "C3x", "C3TR", "C3Ghost", "C3k2", "A2C2f"),
        *("C2PSA", "C2fPSA", "C2fCIB", "SPPCSPC", "DownC", "BottleneckCSPA", "BottleneckCSPB"),
        *("BottleneckCSPC", "ResCSPA", "ResCSPB", "ResCSPC", "ResXCSPA", "ResXCSPB", "ResXCSPC"),
        *("C3f", "C2f_v2", "RepC3"),
    ]
)
"""Blocks that take the repeats as their third argument; others are repeated as a whole."""

WIDE = CHAINS | frozenset(
    [
        *("Conv", "DWConv", "ConvTranspose", "GhostConv", "GhostBottleneck", "Bottleneck", "Focus"),
        *("SPP", "SPPF", "C3SPP", "CrossConv", "MixConv2d", "RepConv", "SCDown", "PSA", "AConv"),
        *("ADown", "ELAN1", "RepNCSPELAN4", "SPPELAN", "Stem", "Res", "ResX", "nn.Conv2d"),
        *("nn.ConvTranspose2d", "Conv2", "LightConv"),
    ]
)
"""Blocks that take their input's channels first, then output channels that the width scales."""

GIVEN_BACK: dict[str, Callable[[list[int], list[Any]], int]] = {
    "Concat": lambda c, _: sum(c),
    "Chuncat": lambda c, _: sum(c),
    "Foldcut": lambda c, _: c[0] // 2,
    "ReOrg": lambda c, _: c[0] * 4,
    "Contract": lambda c, args: c[0] * args[0] ** 2,
    "Expand": lambda c, args: c[0] // args[0] ** 2,
    "CBFuse": lambda c, _: c[-1],
    "Index": lambda c, args: c[args[0]],
    "ResNetLayer": lambda _, args: args[1] if args[3] else 4 * args[1],
    "HGStem": lambda _, args: args[1],
    "HGBlock": lambda _, args: args[1],
}
"""Output channels of blocks that neither take them as an argument nor keep their input's."""

TORCH: dict[str, Twin] = {
    f"nn.{twin.__name__}": twin
    for twin in (
        *(nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.Upsample, nn.MaxPool2d, nn.AvgPool2d),
        *(nn.ZeroPad2d, nn.Identity, nn.SiLU, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish),
        *(nn.GELU, nn.Mish, nn.ELU, nn.Sigmoid),
    )
}


KPT_SHAPE = [17, 3]
"""Keypoints of a person, x, y and visibility of each, as COCO has them: what a YAML without
`kpt_shape` means."""


@dataclass(frozen=True)
class Scaling:
    """Depth, width and channel limit that scale a YAML's numbers to one size of a family."""

    depth: float = 1.0
    width: float = 1.0
    limit: float = math.inf
    """Output channels are cut to this before they are multiplied by the width."""
    letter: str = ""

    def channels(self, c: int) -> int:
        """Scale output channels, rounded up to a multiple of 8."""
        return math.ceil(min(c, self.limit) * self.width / 8) * 8

    def repeats(self, n: int) -> int:
        """Scale repeats; a single one stays."""
        return max(round(n * self.depth), 1) if n > 1 else n


@dataclass
class LayerStack:
    """Makes the layers of one model, row by row."""

    family: str
    scaling: Scaling
    nc: int
    anchors: list[list[float]] = field(default_factory=list)
    head: Mapping[str, Any] = field(default_factory=dict)
    """`reg_max`, `end2end` and `kpt_shape`, for heads that take them."""
    images: int = 3
    """Channels of the image."""
    layers: list[nn.Module] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    """Channels of each layer's output."""
    legacy: bool = True
    """Whether class branches are plain; blocks of YOLOv10 and later bring depthwise ones."""

    def add(self, row: Sequence[Any]) -> None:
        """Make the layer of a row `[from, repeats, module, args]`.

        Raises:
            UnknownBlockError: there is no twin of that name.
            CheckpointError: the arguments do not fit the block.
        """
        source, repeats, name, given = row
        i = len(self.layers)
        self.routes.append(read_route(source, i))
        inputs = [self.images if j < 0 else self.outputs[j] for j in self.routes[-1].sources]
        try:
            n = self.scaling.repeats(repeats)
            layer, channels = self.make(name, inputs, n, [self.value(item) for item in given])
        except (TypeError, ValueError, IndexError, ZeroDivisionError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"row {i} of the model YAML, {row}, is wrong: {reason}"
            ) from error
        self.layers.append(layer)
        self.outputs.append(channels)

    def make(self, name: str, inputs: list[int], n: int, args: list[Any]) -> tuple[nn.Module, int]:
        """Make one layer; return it and its output channels."""
        twin = self.twin(name)
        if issubclass(twin, DetectionHead):
            return self.make_head(twin, inputs, args), 0
        if name == "CBLinear":
            return CBLinear(inputs[0], *args), 0
        if name == "nn.BatchNorm2d":
            args = [inputs[0]]
        channels = GIVEN_BACK[name](inputs, args) if name in GIVEN_BACK else inputs[0]
        if name in {"HGStem", "HGBlock", "AIFI"}:
            args = [inputs[0], *args]
        if name == "HGBlock":
            args[4:4], n = [n], 1
        if name in WIDE:
            channels = args[0] if args[0] == self.unscaled else self.scaling.channels(args[0])
            args = [inputs[0], channels, *args[1:]]
        if name in CHAINS:
            args.insert(2, n)
            n = 1
        make = self.with_habits(name, twin, args)
        return (nn.Sequential(*(make() for _ in range(n))) if n > 1 else make()), channels

    def twin(self, name: str) -> Twin:
        """Return the class that a YAML's name stands for in this family."""
        blocks = ULTRALYTICS if self.family == "ultralytics" else SHARED
        twin = TORCH.get(name) or blocks.get(name.rpartition(".")[2])
        if twin is None:
            raise UnknownBlockError(f"the model YAML names {name}, a block that yqc does not know")
        return twin

    @property
    def unscaled(self) -> int:
        """Output channels that are left as they are: the head's, by the projects' convention."""
        if not self.anchors:
            return self.nc
        return len(self.anchors[0]) // 2 * (self.nc + 5)

    def with_habits(self, name: str, twin: Twin, args: list[Any]) -> Callable[[], nn.Module]:
        """Apply what the projects do by scale and by argument rather than by the YAML."""
        options: dict[str, Any] = {}
        if name in {"C3k2", "A2C2f", "C2fCIB"}:
            self.legacy = False
        if name == "C3k2" and self.scaling.letter in set("mlx"):
            args[3:4] = [True]
        if name == "A2C2f" and self.scaling.letter in set("lx"):
            args += [True, 1.2]
        if name == "Conv" and len(args) > 6 and isinstance(args[6], (nn.Module, bool)):  # noqa: PLR2004
            options["act"] = args.pop(6)  # YOLOv5 and YOLOv7 have no dilation before it.
        if name.startswith("ResX"):
            options["g"] = 32
        block: Callable[..., nn.Module] = twin
        return lambda: block(*args, **options)

    def make_head(
        self, twin: type[DetectionHead], inputs: list[int], args: list[Any]
    ) -> DetectionHead:
        """Make the head; Ultralytics keeps its `reg_max` and `end2end` beside the rows.

        Heads of masks take how many prototypes, and their hidden channels, behind what a detection
        head takes; those of keypoints their shape; those of oriented boxes the numbers of an angle.
        """
        make: Callable[..., DetectionHead] = twin
        if issubclass(twin, ClassifyHead):
            return make(inputs[0], self.nc)
        if issubclass(twin, AnchorHead):
            masks = self.mask_sizes(args[2:]) if issubclass(twin, AnchorSegmentHead) else []
            return make(self.nc, self.anchors, inputs, *masks)
        if issubclass(twin, BranchedHead):
            return make(self.nc, inputs)
        reg_max = int(self.head.get("reg_max", 16))
        if issubclass(twin, SplitHead):
            return make(self.nc, inputs, reg_max)
        options = {"end2end": bool(self.head.get("end2end")), "legacy": self.legacy}
        more = self.mask_sizes(args[1:]) if issubclass(twin, SegmentHead) else []
        more = args[1:2] if issubclass(twin, PoseHead | OrientedHead) else more
        return make(self.nc, inputs, *more, reg_max=reg_max, **options)

    def mask_sizes(self, args: Sequence[int]) -> list[int]:
        """Return the number of prototypes, and their hidden channels by this model's width."""
        return [*args[:1], *map(self.scaling.channels, args[1:2])]

    def value(self, item: object) -> object:
        """Read an argument; a text may name the classes' number, None, a boolean, an activation."""
        if isinstance(item, list):
            return [self.value(part) for part in item]
        if not isinstance(item, str):
            return item
        if item.startswith("nn."):
            return activation_of(item)
        names = {
            "nc": self.nc,
            "anchors": self.anchors,
            "kpt_shape": self.head.get("kpt_shape", KPT_SHAPE),
            "None": None,
            "True": True,
            "False": False,
        }
        return names.get(item, item)


def activation_of(text: str) -> nn.Module:
    """Make the module that a text such as `nn.LeakyReLU(0.1)` describes.

    Raises:
        ValueError: it is no call of a known module with plain arguments.
    """
    match = re.fullmatch(r"(nn\.\w+)\((.*)\)", text)
    twin = TORCH.get(match[1]) if match else None
    call = ast.parse(f"f({match[2]})", mode="eval").body if match else None
    if twin is None or not isinstance(call, ast.Call):
        raise ValueError(f"{text} is no activation that yqc knows")
    args = [ast.literal_eval(arg) for arg in call.args]
    options = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg != "inplace"}
    return twin(*args, **{str(name): value for name, value in options.items()})
