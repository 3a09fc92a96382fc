"""Accuracy, agreement and latency of detectors as their files run."""

from yqc.evaluate.accuracy import Accuracy, Agreement, accuracy, agreement, agreement50, evaluate
from yqc.evaluate.decode import Boxes, Head, Layout, detections
from yqc.evaluate.detect import Detections, detect
from yqc.evaluate.latency import Latency, Runtime, latency
from yqc.evaluate.runner import OnnxModel, Runner, TorchModel

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
    "detect",
    "detections",
    "evaluate",
    "latency",
]
