"""Swap the activations of a trained graph for others, without labels.

In reading order:

- `options`: which activations are swapped, for what, and how far the detections may change.
- `forms`: the activations that can be put in.
- `units`: activations with the layers before them whose scale and bias can be changed.
- `fit`: scale, bias and constant of each channel that fit the new activation to the old one.
- `refit`: change of a convolution's weights that lowers the error left.
- `kept`: records of finished steps, for a resumed compile.
- `positions`: positions drawn by relevance, and the damage of each swap alone.
- `step`: what is changed at one activation.
- `walk`: the swap node by node, the graph beside its original.
- `write_back`: what was fitted, into convolutions and batch norms.
- `task`: one swap under way: trials, and the choice of what stays.
"""

from yqc.swapping.options import SwapOptions
from yqc.swapping.task import SwapTask, SwapTrial

__all__ = ["SwapOptions", "SwapTask", "SwapTrial"]
