"""Accuracy, agreement and latency of detectors, as their files or graphs run.

`runner`    run an ONNX file or a PyTorch module on images
`openvino`  run a file under OpenVINO
`runtimes`  open a file under a runtime by its name
`boxes`     what is found in one image, and its form as plain arrays
`forms`     find what a model's outputs are
`rotated`   overlap and corners of oriented boxes
`decode`    turn an output array into boxes
`masks`     draw the masks of boxes at the size of their image
`find`      all of these: from a model's outputs to what is in an image
`detect`    find objects in the images of a split
`judges`    average precision by pycocotools, of boxes, masks, keypoints, oriented boxes
`bootstrap` intervals of accuracy, by drawing images anew
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
from yqc.evaluation.bootstrap import drop_interval, figure_interval
from yqc.evaluation.boxes import Boxes, stack_boxes, unstack_boxes
from yqc.evaluation.decode import detections
from yqc.evaluation.detect import Detections, detect
from yqc.evaluation.find import Place, find_objects
from yqc.evaluation.forms import find_form
from yqc.evaluation.latency import Timing, latency
from yqc.evaluation.runner import FileModel, OnnxModel, Runner, TorchModel, count_cores
from yqc.evaluation.runtimes import Precision, open_file
from yqc.facts import Layout, OutputForm
from yqc.targets import Runtime

__all__ = [
    "Boxes",
    "Detections",
    "DetectorAccuracy",
    "DetectorAgreement",
    "FileModel",
    "Layout",
    "OnnxModel",
    "OutputForm",
    "Place",
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
    "drop_interval",
    "evaluate",
    "figure_interval",
    "find_form",
    "find_objects",
    "latency",
    "open_file",
    "stack_boxes",
    "unstack_boxes",
]
