"""The sets that users can add to, and where names of each are written."""

from yqc.registered.named import NamedSet

CRITERIA: NamedSet = NamedSet(
    "criterion",
    "criteria",
    group="yqc.criteria",
    options=("prune{criterion}", "channel-prune{criterion}"),
    own=("auto", "bn-scale", "l1", "l2", "taylor", "hessian", "reconstruction", "random"),
)
"""Saliency criteria of pruning: see `yqc.register_criterion`."""
RANGES: NamedSet = NamedSet(
    "range method",
    "range methods",
    group="yqc.ranges",
    options=("int8{ranges}", "calibrate{ranges}"),
    own=("minmax", "percentile", "mse", "entropy", "relevance"),
)
"""Methods that choose the range of an activation: see `yqc.register_range`."""
OBSERVERS: NamedSet = NamedSet(
    "observer",
    "observers",
    group="yqc.observers",
    options=("int8{observer}", "calibrate{observer}"),
    own=("histogram",),
)
"""Statistics of activations: see `yqc.register_observer`."""
SCHEMES: NamedSet = NamedSet(
    "weight scheme",
    "weight schemes",
    group="yqc.schemes",
    options=("codebook{table}", "cluster{table}"),
    own=("codebook", "pwlq", "pot"),
)
"""Tables of values that weights of few bits take: see `yqc.register_scheme`."""
TARGET_NAMES: NamedSet = NamedSet(
    "target",
    "targets",
    group="yqc.targets",
    options=("--target",),
    own=("onnxruntime", "openvino", "tensorrt", "portable"),
)
"""Targets: see `yqc.register_target`."""
SETS: tuple[NamedSet, ...] = (CRITERIA, RANGES, OBSERVERS, SCHEMES, TARGET_NAMES)
"""All sets that users can add to."""
