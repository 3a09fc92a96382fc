"""Targets by name or file; a device without a file is none, and its name meets a hint."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

from yqc.errors import PipelineError, near
from yqc.registered import TARGET_NAMES, Added
from yqc.targets.base import Target, TargetName
from yqc.targets.device import SUFFIX, read_device
from yqc.targets.onnxruntime import ONNXRUNTIME
from yqc.targets.openvino import OPENVINO
from yqc.targets.portable import PORTABLE
from yqc.targets.tensorrt import TENSORRT

TARGETS: Final[dict[TargetName, Target]] = dict(
    zip(get_args(TargetName), (ONNXRUNTIME, OPENVINO, TENSORRT, PORTABLE), strict=True)
)
"""All targets by name; the first is the default."""

_ARM = "for ARM CPUs write onnxruntime"
_INTEL = "for Intel hardware write openvino, for any CPU onnxruntime"
_NVIDIA = "for NVIDIA GPUs write tensorrt"
_READERS = "for what reads plain ONNX write portable"
HINTS: Final[dict[str, str]] = {
    **dict.fromkeys(("rpi", "raspberrypi", "pi", "arm", "arm64", "aarch64"), _ARM),
    **dict.fromkeys(("android", "ios", "phone", "mobile"), _ARM),
    **dict.fromkeys(("jetson", "orin", "cuda", "gpu", "nvidia", "engine"), _NVIDIA),
    **dict.fromkeys(("intel", "npu", "igpu", "x86", "x64", "cpu", "vnni"), _INTEL),
    **dict.fromkeys(("ncnn", "mnn", "opencv", "onnx", "tract", "web", "wasm"), _READERS),
    **dict.fromkeys(("tflite", "coreml", "litert"), "it reads no ONNX; convert a portable file"),
}
"""What to write for devices and tools that users name."""


def find_target(name: str) -> Target:
    """Return the target of a name or alias, or that of a device's file, named `*.toml`.

    Raises:
        PipelineError: there is none; the message says what to write for a device.
        DeviceFileError: the file cannot be read, or says what cannot be.
    """
    if name.endswith(SUFFIX):
        return _read_target(name)
    known = {word: target for t in TARGETS.values() for word, target in _words(t)}
    found = known.get(name)
    if found is None and name in TARGET_NAMES.names():
        added = TARGET_NAMES.find(name)
        found = None if added is None else _check_target(name, added)
    if found is None:
        word = name.lower().replace("-", "").replace("_", "")
        names = TARGET_NAMES.names()
        hint = f"; {HINTS[word]}" if word in HINTS else near(name.lower(), [*known, *names])
        raise PipelineError(f"there is no target {name!r}; write {' or '.join(names)}{hint}")
    return found


def register_target(target: Target) -> Target:
    """Register a target, for `--target NAME`; make it of another one by `dataclasses.replace`.

    Raises:
        PipelineError: the name is taken, or is none.
    """
    module = str(sys._getframe(1).f_globals.get("__name__"))  # noqa: SLF001  # who calls it
    registered: Target = TARGET_NAMES.register(target.name, target, module)
    return registered


def _check_target(name: str, added: Added) -> Target:
    """Return a target that a user registered.

    Raises:
        PipelineError: it is none, or has another name.
    """
    if not isinstance(added.value, Target) or added.value.name != name:
        raise PipelineError(f"{name!r} of {added.origin} is not a yqc.Target named {name!r}")
    return added.value


def _words(target: Target) -> list[tuple[str, Target]]:
    return [(word, target) for word in (target.name, *target.aliases)]


def _read_target(name: str) -> Target:
    """Return the base of a device's file, with the rules that the file states."""
    device = read_device(Path(name))
    keys = device.keys
    return replace(
        TARGETS[keys.base],
        name=name,
        summary=f"the device of a file; else as {keys.base}",
        aliases=(),
        base=keys.base,
        sha256=device.sha256,
        operators=keys.operators,
        limits=device.limits,
        decode=keys.decode,
        fast_activations=keys.fast_activations,
    )
