"""Data sets, and images as a model takes them."""

from yqc.data.images import (
    CalibrationImages,
    Placed,
    Unreadable,
    calibration_images,
    prefetch,
    read_images,
)
from yqc.data.letterbox import Placement, letterbox, to_float
from yqc.data.load import load_data
from yqc.data.sets import Annotations, Data, Object, Split, annotate, check_classes

__all__ = [
    "Annotations",
    "CalibrationImages",
    "Data",
    "Object",
    "Placed",
    "Placement",
    "Split",
    "Unreadable",
    "annotate",
    "calibration_images",
    "check_classes",
    "letterbox",
    "load_data",
    "prefetch",
    "read_images",
    "to_float",
]
