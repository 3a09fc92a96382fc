"""Find the nodes of an ONNX file that a runtime refuses, saturates or leaves unfused.

`finding`      what is wrong with one node
`graph`        producers, readers and constants of a model
`shared`       rules that several runtimes share
`onnxruntime`  rules for onnxruntime on a CPU
`openvino`     rules for OpenVINO on a CPU
`tensorrt`     rules for TensorRT
`check`        all rules of one runtime over a file
"""

from yqc.linting.check import lint
from yqc.linting.finding import Finding, Severity

__all__ = ["Finding", "Severity", "lint"]
