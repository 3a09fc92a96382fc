"""The built-in passes. This table is all that listing them reads; each is imported when named."""

PASSES = {
    "dce": "yqc_passes.dce:DeadCodeElimination",
    "fold-bn": "yqc_passes.fold_bn:FoldBatchNorm",
    "fuse": "yqc_passes.fuse:Fuse",
    "reparam": "yqc_passes.reparam:Reparameterize",
}
