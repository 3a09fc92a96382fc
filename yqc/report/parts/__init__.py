"""The parts of a report: their fields, in this order, are the keys of the JSON contract.

None stands for null: nothing was measured. A trailing underscore is no part of a key (`float_` is
"float"). Bytes are plain counts, mAP is a fraction of 1, every ratio is before / after. Numbers
that follow from others are computed here, by the class methods, and nowhere else.

`given`      the model, data, passes and files that a compile was given
`passes`     what passes did, and to which nodes
`file`       size and work of the emitted file, how it was verified, its speed, and the device
`accuracy`   of the file beside the float model's
`quotients`  quotients and differences of figures that may be missing
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
