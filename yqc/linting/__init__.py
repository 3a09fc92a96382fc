"""Find the nodes of an ONNX file that a runtime refuses, saturates or leaves unfused.

`finding`      what is wrong with one node, and findings as text
`graph`        producers, readers and constants of a model
`advice`       what to do about a finding, for the file at hand
`shared`       rules that several runtimes share
`onnxruntime`  rules for onnxruntime on a CPU
`openvino`     rules for OpenVINO on a CPU
`tensorrt`     rules for TensorRT
`readers`      rules for OpenCV, MNN and ncnn
`remedies`     what removes a node that a device does not take
`device`       the limits of a device's file as rules
`check`        all rules of one runtime over a file
"""

from yqc.linting.check import find_runtime, lint
from yqc.linting.device import Misfit, list_misfits
from yqc.linting.finding import (
    Finding,
    LintResult,
    Severity,
    count_ops,
    group_findings,
    name_nodes,
)
from yqc.linting.remedies import EXACT_ORDER

__all__ = [
    "EXACT_ORDER",
    "Finding",
    "LintResult",
    "Misfit",
    "Severity",
    "count_ops",
    "find_runtime",
    "group_findings",
    "lint",
    "list_misfits",
    "name_nodes",
]
