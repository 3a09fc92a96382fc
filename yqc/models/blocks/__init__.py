"""Traceable twins of the blocks that YOLO detectors are made of.

Each class keeps the attribute names that its original pickles, so weights land by name, and takes
the arguments in the order in which model YAMLs give them, input channels first. All of them map
`f32[N, C, H, W]` to `f32[N, C', H', W']`, have no control flow that depends on a tensor's contents
and never fix the batch size.

Files in reading order:

    base         the base class, and helpers of constructors
    conv         convolutions, rearrangements of pixels, joins
    csp          residual bottlenecks, cross-stage-partial blocks
    pool         spatial pyramids, blocks that pool
    rep          branches that can become one convolution
    elan         layer aggregation (YOLOv9)
    ghost        GhostNet's blocks
    yolor        blocks that YOLOv7 shares with YOLOR
    attention    attention over positions (YOLOv10 to 12, 26)
    transformer  YOLOv5's transformer
    hgnet        RT-DETR's backbone and encoder blocks
    weighting    channels and positions weighted by attention
"""
