"""Traceable twins of the blocks that YOLO detectors are made of.

Each class keeps the attribute names that its original pickles, so weights land by name, and takes
the arguments in the order in which model YAMLs give them, input channels first. All of them map
`f32[N, C, H, W]` to `f32[N, C', H', W']`, have no control flow that depends on a tensor's contents
and never fix the batch size.
"""
