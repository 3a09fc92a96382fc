"""The settings of a compile, each in one place: its type, check, default and help.

From a field come the option of the command line, the argument of `yqc.compile`, the key of a recipe
file, and the lines about it in help and documentation. A new setting is a field here, and its use.
"""

import functools
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_type_hints

from yqc.pipeline.options import field_docs
from yqc.settings.origin import Provenance
from yqc.settings.values import (
    Count,
    Device,
    Emitted,
    Opset,
    OptionsText,
    PathText,
    Size,
    TargetText,
    Threads,
    Whole,
    check_value,
)


@dataclass(frozen=True)
class Settings:
    """What decides a compile's result, beside the model and the data.

    Every value is checked, and its usual forms are read: `imgsz=640`, `data=Path(...)`.

    Raises:
        SettingError: a value is not allowed.
    """

    passes: str = ""
    """Such as prune,int8; see `yqc passes`."""
    imgsz: Size | None = None
    """640 or H,W; default: as trained."""
    head: Literal["one2one", "one2many"] | None = None
    """one2one or one2many, for models with two heads."""
    arch: PathText | None = None
    """Model YAML, for a file of bare weights."""
    data: PathText | None = None
    """Data YAML, COCO JSON, or a folder of images."""
    images: PathText | None = None
    """Folder of the images that a COCO JSON names."""
    single_class: bool = False
    """Count every object as the model's one class."""
    strict: bool = False
    """Stop at a bad label; else its image is left out."""
    calib_images: Count = 128
    """Images to calibrate on, at most."""
    target: TargetText = "onnxruntime"
    """Runtime: onnxruntime, openvino, tensorrt, portable for any, or a device's file NPU.toml."""
    device: Device = "cpu"
    """cpu, or cuda for passes that train."""
    seed: Whole = 0
    """Of every random choice."""
    dynamic: bool = False
    """Any batch size, height and width."""
    opset: Opset | None = None
    """ONNX opset; default: the oldest that works."""
    emit: Emitted | None = None
    """onnx, or onnx,pt2: torch.export too."""
    decode: Literal["full", "scores", "raw"] | None = None
    """full; raw: outputs before decoding; scores: the same, scores after their sigmoid."""
    nms: bool = False
    """Suppress boxes in the graph."""
    nms_options: OptionsText = ""
    """iou=0.65 conf=0.25 top=300 multi_label=false agnostic=false inputs=false; implies --nms."""
    fp16_io: bool = False
    """Half in and out."""
    uint8_input: bool = False
    """Take bytes 0..255, not floats 0..1."""
    held_out: Count | None = None
    """Training images that passes do not see; `yqc tune` chooses by them."""
    threads: Threads | None = None
    """Of PyTorch and the runtime; default: the cores, for bench one."""
    written_for: Provenance = field(default=Provenance(), compare=False)
    """What the recipe file records that these settings were read from."""
    given: frozenset[str] = field(default=frozenset(), compare=False)
    """Names of those that were given, even where the value is the default."""

    def __post_init__(self) -> None:
        for name, hint in setting_types().items():
            value = getattr(self, name)
            if value is not _DEFAULTS[name]:
                object.__setattr__(self, name, check_value(name, hint, value))


@functools.cache
def setting_types() -> dict[str, Any]:
    """Return the type of each setting by name, with what annotates it."""
    hints = get_type_hints(Settings, include_extras=True)
    return {one.name: hints[one.name] for one in fields(Settings) if one.compare}


@functools.cache
def setting_helps() -> dict[str, str]:
    """Return the help of each setting by name."""
    docs = field_docs(Settings)
    return {name: docs.get(name, "") for name in setting_types()}


_DEFAULTS = {one.name: one.default for one in fields(Settings)}
SETTINGS = tuple(setting_types())
"""The names of all settings, which are the keys of a recipe file."""
