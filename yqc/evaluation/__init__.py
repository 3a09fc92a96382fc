"""Accuracy, agreement and latency of detectors, as their files or graphs run.

`runner`    run an ONNX file or a PyTorch module on images
`openvino`  run a file under OpenVINO
`runtimes`  open a file under a runtime by its name
`decode`    turn an output array into boxes
`nms`       suppress boxes that overlap
`detect`    find objects in the images of a split
`accuracy`  compare what was found with labels, or with what another model found
`latency`   time files against each other
`profile`   time every node of a file
"""

from yqc.evaluation.accuracy import (
    DetectorAccuracy,
    DetectorAgreement,
    accuracy,
    agreement,
    agreement50,
    evaluate,
)
from yqc.evaluation.decode import Boxes, detections
from yqc.evaluation.detect import Detections, detect
from yqc.evaluation.latency import Timing, latency
from yqc.evaluation.runner import OnnxModel, Runner, TorchModel, count_cores
from yqc.evaluation.runtimes import Precision, open_file
from yqc.facts import Layout, OutputForm
from yqc.targets import Runtime

__all__ = [
    "Boxes",
    "Detections",
    "DetectorAccuracy",
    "DetectorAgreement",
    "Layout",
    "OnnxModel",
    "OutputForm",
    "Precision",
    "Runner",
    "Runtime",
    "Timing",
    "TorchModel",
    "accuracy",
    "agreement",
    "agreement50",
    "count_cores",
    "detect",
    "detections",
    "evaluate",
    "latency",
    "open_file",
]
