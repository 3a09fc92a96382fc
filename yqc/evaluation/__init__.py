"""Accuracy, agreement and latency of detectors as their files run."""

from yqc.evaluation.accuracy import Accuracy, Agreement, accuracy, agreement, agreement50, evaluate
from yqc.evaluation.decode import Boxes, Head, Layout, detections
from yqc.evaluation.detect import Detections, detect
from yqc.evaluation.latency import Latency, Runtime, latency
from yqc.evaluation.runner import OnnxModel, Runner, TorchModel, count_cores

__all__ = [
    "Accuracy",
    "Agreement",
    "Boxes",
    "Detections",
    "Head",
    "Latency",
    "Layout",
    "OnnxModel",
    "Runner",
    "Runtime",
    "TorchModel",
    "accuracy",
    "agreement",
    "agreement50",
    "count_cores",
    "detect",
    "detections",
    "evaluate",
    "latency",
]
