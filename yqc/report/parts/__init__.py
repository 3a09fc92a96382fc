"""The parts of a report: their fields, in this order, are the keys of the JSON contract.

None stands for null: nothing was measured. A trailing underscore is no part of a key (`float_` is
"float"). Bytes are plain counts, mAP is a fraction of 1, every ratio is before / after. Numbers
that follow from others are computed here, by the class methods, and nowhere else.
"""

from yqc.report.parts.accuracy import (
    Accuracy,
    Agreement,
    Baseline,
    ClassScore,
    Main,
    OutputAgreement,
    Precision,
    Scores,
)
from yqc.report.parts.file import (
    Compute,
    DeviceFit,
    Latency,
    RoundTripError,
    Size,
    SizeParts,
    Unfit,
    Verification,
)
from yqc.report.parts.given import DataInput, LoadedFile, ModelInput, PipelineText, UsedPlugin
from yqc.report.parts.passes import (
    Layer,
    NodeNumbers,
    PassRecord,
    Sensitivity,
    Skip,
    Swap,
    number_names,
)
from yqc.report.parts.quotients import difference, ratio

__all__ = [
    "Accuracy",
    "Agreement",
    "Baseline",
    "ClassScore",
    "Compute",
    "DataInput",
    "DeviceFit",
    "Latency",
    "Layer",
    "LoadedFile",
    "Main",
    "ModelInput",
    "NodeNumbers",
    "OutputAgreement",
    "PassRecord",
    "PipelineText",
    "Precision",
    "RoundTripError",
    "Scores",
    "Sensitivity",
    "Size",
    "SizeParts",
    "Skip",
    "Swap",
    "Unfit",
    "UsedPlugin",
    "Verification",
    "difference",
    "number_names",
    "ratio",
]
