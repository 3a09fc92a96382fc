"""Which twin stands for which pickled class, for the three projects and for users' own blocks."""

import re
from collections.abc import Container

from torch import nn

from yqc.errors import CheckpointError, first_line
from yqc.graph.torch_layers import TORCH_LAYERS
from yqc.models.blocks import (
    attention,
    conv,
    csp,
    elan,
    ghost,
    hgnet,
    pool,
    rep,
    transformer,
    weighting,
    yolor,
)
from yqc.models.heads import anchor, branched, classify, dfl, oriented, pose, segment

Twin = type[nn.Module]

YOLOV5: dict[str, Twin] = {
    twin.__name__: twin
    for twin in (
        *(conv.Conv, conv.DWConv, conv.CrossConv, conv.MixConv2d, conv.Focus, conv.Contract),
        *(conv.Expand, conv.Concat, conv.Sum, csp.BottleneckCSP, csp.C3, csp.C3x),
        *(pool.SPP, pool.SPPF, pool.C3SPP, ghost.GhostConv, ghost.GhostBottleneck, ghost.C3Ghost),
        *(transformer.TransformerLayer, transformer.TransformerBlock, transformer.C3TR),
    )
} | {
    "Bottleneck": csp.Bottleneck1,
    "Detect": anchor.AnchorHead,
    "Segment": segment.AnchorSegmentHead,
    "Proto": segment.Proto,
    "Classify": classify.ClassifyHead,
}

YOLOV7: dict[str, Twin] = {
    twin.__name__: twin
    for twin in (
        *(conv.ReOrg, conv.Chuncat, conv.Shortcut, conv.Foldcut, pool.MP, pool.SP, pool.SPPCSPC),
        *(pool.DownC, yolor.Stem, yolor.Res, yolor.ResCSPA, yolor.ResCSPB, yolor.ResCSPC),
        *(yolor.BottleneckCSPA, yolor.BottleneckCSPB, yolor.BottleneckCSPC),
        *(anchor.ImplicitA, anchor.ImplicitM),
    )
} | {
    "RepConv": rep.RepConv7,
    "IDetect": anchor.ImplicitHead,
    "IAuxDetect": anchor.AuxiliaryHead,
    "ResX": yolor.Res,
    "ResXCSPA": yolor.ResCSPA,
    "ResXCSPB": yolor.ResCSPB,
    "ResXCSPC": yolor.ResCSPC,
}
"""Blocks that YOLOv7's project adds; no other name of `models.common` differs between the two."""

YOLOV9: dict[str, Twin] = {
    twin.__name__: twin
    for twin in (
        *(conv.Silence, pool.SPPELAN, pool.AConv, pool.ADown, elan.RepNCSPELAN4, elan.ELAN1),
        *(elan.CBLinear, elan.CBFuse, dfl.DFL),
    )
} | {
    "RepConvN": rep.RepConv,
    "RepNBottleneck": rep.RepBottleneck,
    "RepNCSP": rep.RepCSP,
    "DDetect": branched.BranchedHead,
    "DualDDetect": branched.DualHead,
    "TripleDDetect": branched.TripleHead,
    "DualDetect": branched.PlainDualHead,
    "TripleDetect": branched.PlainTripleHead,
}
"""Blocks that the project of YOLOv9's authors adds to those of YOLOv5 and YOLOv7."""

SHARED = YOLOV5 | YOLOV7 | YOLOV9
"""Blocks of the three projects whose classes are pickled under the same paths."""

ULTRALYTICS: dict[str, Twin] = {
    twin.__name__: twin
    for twin in (
        *(conv.Conv, conv.DWConv, conv.ConvTranspose, conv.Focus, conv.Concat, ghost.GhostConv),
        *(ghost.GhostBottleneck, ghost.C3Ghost, csp.Bottleneck, csp.C1, csp.C2),
        *(csp.C2f, csp.C3, csp.C3k, pool.SPP, pool.SPPF, pool.SPPELAN, pool.AConv, pool.ADown),
        *(rep.RepConv, rep.RepBottleneck, rep.RepCSP, rep.RepVGGDW, rep.CIB, rep.C2fCIB),
        *(rep.SCDown, elan.RepNCSPELAN4, elan.ELAN1, elan.CBLinear, elan.CBFuse),
        *(attention.Attention, attention.PSA, attention.PSABlock, attention.C2PSA),
        *(attention.C2fPSA, attention.C3k2, attention.AAttn, attention.ABlock, attention.A2C2f),
        *(transformer.TransformerLayer, transformer.TransformerBlock, transformer.C3TR, dfl.DFL),
        *(conv.Conv2, conv.Index, csp.C3f, hgnet.LightConv, hgnet.HGStem, hgnet.HGBlock),
        *(hgnet.RepC3, hgnet.ResNetBlock, hgnet.ResNetLayer, hgnet.AIFI),
        *(weighting.ChannelAttention, weighting.SpatialAttention, weighting.CBAM, weighting.ECA),
    )
} | {
    "C2f_v2": csp.C2fV2,
    "C3x": csp.C3xU,
    "BottleneckCSP": csp.BottleneckCSPU,
    "Detect": dfl.DistanceHead,
    "v10Detect": dfl.SplitHead,
    "Segment": segment.SegmentHead,
    "Segment26": segment.Segment26Head,
    "Proto": segment.Proto,
    "Proto26": segment.Proto26,
    "Pose": pose.PoseHead,
    "Pose26": pose.Pose26Head,
    "OBB": oriented.OrientedHead,
    "OBB26": oriented.Oriented26Head,
    "Classify": classify.ClassifyHead,
}

PATHS: dict[str, dict[str, Twin]] = {
    "models.common": SHARED,
    "models.experimental": SHARED,
    "models.yolo": SHARED,
    "ultralytics.nn.modules": ULTRALYTICS,
    "ultralytics.nn.modules.conv": ULTRALYTICS,
    "ultralytics.nn.modules.block": ULTRALYTICS,
    "ultralytics.nn.modules.transformer": ULTRALYTICS,
    "ultralytics.nn.modules.head": ULTRALYTICS,
}
"""Modules that classes were pickled under, in any release."""

OTHERS: dict[str, Twin] = {
    "__main__.C2f_v2": csp.C2fV2,
    "ultralytics.nn.modules.conv.DWConvTranspose2d": nn.ConvTranspose2d,
    "models.common.DWConvTranspose2d": nn.ConvTranspose2d,
    "models.common.ECA": weighting.ECA,
    "torch.nn.modules.activation.MultiheadAttention": transformer.SelfAttention,
    "utils.activations.SiLU": nn.SiLU,
    "utils.activations.Hardswish": nn.Hardswish,
    "utils.activations.Mish": nn.Mish,
}

DATA = ("ultralytics.", "models.common.", "models.yolo.", "models.experimental.", "utils.")
"""Packages of the three projects: what is pickled from them is read as data, never imported."""

QUANTIZATION = re.compile(
    r"torch\.(ao\.)?(quantization|nn\.qat)(\.\w+)+"
    r"|torch\.(q?u?int\d+|per_(tensor|channel)_\w+)"
    r"|(pytorch_quantization|modelopt\.torch\.quantization)(\.\w+)+"
)
"""Classes that tools of quantization-aware training pickle: read as data, never imported."""

_registered: dict[str, Twin] = {}


def register_block(class_path: str, twin: Twin) -> None:
    """Let yqc load a block that it does not know, in its place.

    Args:
        class_path: where the pickled class lived, as `"package.module.Block"`.
        twin: an `nn.Module` class whose forward can be traced. It is made without its `__init__`,
            then given the pickled children, parameters, buffers and plain attributes. A class of
            torch.nn is made from its pickled settings. A head's twin takes a list of maps and
            returns decoded detections; it may state `layout` and `nc`. One of another task than
            detection states `task` (`"segment"`, `"pose"`, `"obb"`, `"classify"`), and for
            keypoints `kpt_shape`; a segmenting one returns the prototypes, too.

    Raises:
        CheckpointError: the path is no dotted name, the twin is no `nn.Module` class, or is one
            that cannot be rebuilt.
    """
    if not all(part.isidentifier() for part in class_path.split(".")) or "." not in class_path:
        raise CheckpointError(f"{class_path!r} is no class path such as 'models.common.MyBlock'")
    if not (isinstance(twin, type) and issubclass(twin, nn.Module)):
        raise CheckpointError(f"the twin of {class_path} must be a class derived from nn.Module")
    if reason := _obstacle(twin):
        raise CheckpointError(f"{twin.__name__} cannot be the twin of {class_path}: {reason}")
    _registered[class_path] = twin


def _obstacle(twin: Twin) -> str | None:
    """Say why a class cannot be rebuilt from pickled attributes, or None if it can."""
    if twin.__module__.startswith("torch."):
        return None if twin in TORCH_LAYERS else "torch does not keep what it is made from"
    if twin.forward is nn.Module.forward:
        return "it has no forward"
    try:
        nn.Module.__init__(twin.__new__(twin))
    except Exception as error:  # noqa: BLE001  # a user's class may raise anything
        return f"it cannot be made without its __init__ ({first_line(error)})"
    return None


def find_twin(class_path: str, parts: Container[str] = ()) -> Twin | None:
    """Return the twin of a pickled class, a user's own before a built-in one.

    `parts` are the names of its children, by which classes of one path are told apart: the Detect
    of YOLOv9's authors has branches, that of YOLOv5 and YOLOv7 anchors.
    """
    if class_path in _registered:
        return _registered[class_path]
    if class_path == "models.yolo.Detect" and "cv2" in parts:
        return branched.PlainHead
    module, _, name = class_path.rpartition(".")
    return PATHS.get(module, {}).get(name) or OTHERS.get(class_path)


def known(class_path: str) -> bool:
    """Whether the checkpoint reader may take objects of this class as inert data."""
    return (
        class_path in _registered
        or class_path in OTHERS
        or class_path.startswith(DATA)
        or QUANTIZATION.fullmatch(class_path) is not None
    )
