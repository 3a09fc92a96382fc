"""The built-in passes. This table is all that listing them reads; each is imported when named."""

PASSES = {
    "bias-correct": "yqc_passes.bias_correct:BiasCorrect",
    "calibrate": "yqc_passes.calibrate:Calibrate",
    "dce": "yqc_passes.dce:DeadCodeElimination",
    "equalize": "yqc_passes.equalize:Equalize",
    "fold-bn": "yqc_passes.fold_bn:FoldBatchNorm",
    "fuse": "yqc_passes.fuse:Fuse",
    "int8": "yqc_passes.int8:Int8Recipe",
    "observe": "yqc_passes.observe:Observe",
    "quantize": "yqc_passes.quantize:Quantize",
    "reparam": "yqc_passes.reparam:Reparameterize",
}
