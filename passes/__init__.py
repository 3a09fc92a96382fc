"""The built-in passes and recipes; each is imported when it is named or asked for.

from yqc_passes import Int8, Prune

yqc.compile("model.pt", [Prune(ratio=0.3), Int8()])
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers and editors, which do not run __getattr__
    from yqc_passes.bias_correct import BiasCorrect
    from yqc_passes.calibrate import Calibrate
    from yqc_passes.channel_prune import ChannelPrune
    from yqc_passes.cluster import Cluster
    from yqc_passes.codebook import Codebook
    from yqc_passes.conv_for_focus import ConvForFocus
    from yqc_passes.conv_for_linear import ConvForLinear
    from yqc_passes.conv_for_split import ConvForSplit
    from yqc_passes.dce import DeadCodeElimination
    from yqc_passes.decompose_silu import DecomposeSilu
    from yqc_passes.deconv_for_resize import DeconvForResize
    from yqc_passes.equalize import Equalize
    from yqc_passes.fold_bn import FoldBatchNorm
    from yqc_passes.fp16 import Fp16
    from yqc_passes.fuse import Fuse
    from yqc_passes.half import Half
    from yqc_passes.int4 import Int4
    from yqc_passes.int8 import Int8
    from yqc_passes.observe import Observe
    from yqc_passes.pack_int4 import PackInt4
    from yqc_passes.pack_rice import PackRice
    from yqc_passes.pad_in_conv import PadInConv
    from yqc_passes.prune import Prune
    from yqc_passes.quantize import Quantize
    from yqc_passes.recover import Recover
    from yqc_passes.relax import Relax
    from yqc_passes.relu import Relu
    from yqc_passes.reparam import Reparameterize
    from yqc_passes.rice import Rice
    from yqc_passes.slim import Slim
    from yqc_passes.split_pools import SplitPools
    from yqc_passes.swap_activation import SwapActivation

__all__ = [
    "BiasCorrect",
    "Calibrate",
    "ChannelPrune",
    "Cluster",
    "Codebook",
    "ConvForFocus",
    "ConvForLinear",
    "ConvForSplit",
    "DeadCodeElimination",
    "DecomposeSilu",
    "DeconvForResize",
    "Equalize",
    "FoldBatchNorm",
    "Fp16",
    "Fuse",
    "Half",
    "Int4",
    "Int8",
    "Observe",
    "PackInt4",
    "PackRice",
    "PadInConv",
    "Prune",
    "Quantize",
    "Recover",
    "Relax",
    "Relu",
    "Reparameterize",
    "Rice",
    "Slim",
    "SplitPools",
    "SwapActivation",
]

_CLASSES = {
    "bias-correct": "BiasCorrect",
    "calibrate": "Calibrate",
    "channel-prune": "ChannelPrune",
    "cluster": "Cluster",
    "codebook": "Codebook",
    "conv-for-focus": "ConvForFocus",
    "conv-for-linear": "ConvForLinear",
    "conv-for-split": "ConvForSplit",
    "dce": "DeadCodeElimination",
    "decompose-silu": "DecomposeSilu",
    "deconv-for-resize": "DeconvForResize",
    "equalize": "Equalize",
    "fold-bn": "FoldBatchNorm",
    "fp16": "Fp16",
    "fuse": "Fuse",
    "half": "Half",
    "int4": "Int4",
    "int8": "Int8",
    "observe": "Observe",
    "pack-int4": "PackInt4",
    "pack-rice": "PackRice",
    "pad-in-conv": "PadInConv",
    "prune": "Prune",
    "quantize": "Quantize",
    "recover": "Recover",
    "relax": "Relax",
    "relu": "Relu",
    "reparam": "Reparameterize",
    "rice": "Rice",
    "slim": "Slim",
    "split-pools": "SplitPools",
    "swap-activation": "SwapActivation",
}

PASSES = {name: f"yqc_passes.{name.replace('-', '_')}:{cls}" for name, cls in _CLASSES.items()}
"""Where each pass is: all that listing them reads."""


def __getattr__(name: str) -> object:
    for target in PASSES.values():
        module, _, cls = target.partition(":")
        if cls == name:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'yqc_passes' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
