"""The built-in passes. This table is all that listing them reads; each is imported when named."""

PASSES = {
    "bias-correct": "yqc_passes.bias_correct:BiasCorrect",
    "calibrate": "yqc_passes.calibrate:Calibrate",
    "channel-prune": "yqc_passes.channel_prune:ChannelPrune",
    "cluster": "yqc_passes.cluster:Cluster",
    "codebook": "yqc_passes.codebook:CodebookRecipe",
    "dce": "yqc_passes.dce:DeadCodeElimination",
    "decompose-silu": "yqc_passes.decompose_silu:DecomposeSilu",
    "equalize": "yqc_passes.equalize:Equalize",
    "fold-bn": "yqc_passes.fold_bn:FoldBatchNorm",
    "fuse": "yqc_passes.fuse:Fuse",
    "int4": "yqc_passes.int4:Int4Recipe",
    "int8": "yqc_passes.int8:Int8Recipe",
    "observe": "yqc_passes.observe:Observe",
    "pack-int4": "yqc_passes.pack_int4:PackInt4",
    "prune": "yqc_passes.prune:Prune",
    "quantize": "yqc_passes.quantize:Quantize",
    "recover": "yqc_passes.recover:Recover",
    "relax": "yqc_passes.relax:Relax",
    "reparam": "yqc_passes.reparam:Reparameterize",
    "slim": "yqc_passes.slim:Slim",
}
