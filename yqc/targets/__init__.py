"""What a runtime wants of a file: where it is quantized, with which types and forms of weights.

In reading order:

    base          the fields of a target, each a rule that passes, emission or measurements follow
    onnxruntime   rules for onnxruntime on a CPU
    openvino      rules for OpenVINO
    tensorrt      rules for TensorRT
    portable      rules for a file that any runtime loads
    device        the TOML file of a device, read and checked
    find          targets by name or file, with a hint for a device that is none
"""

from yqc.targets.base import DecodeForm, Limits, Runtime, Target, TargetName
from yqc.targets.device import DeviceFileError
from yqc.targets.find import TARGETS, find_target, register_target

__all__ = [
    "TARGETS",
    "DecodeForm",
    "DeviceFileError",
    "Limits",
    "Runtime",
    "Target",
    "TargetName",
    "find_target",
    "register_target",
]
