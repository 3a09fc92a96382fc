"""Train a rewritten graph to compute what the float original does, without labels.

In reading order:

- `plan`: length and learning rate of a training, and its outcome.
- `distill`: a training from its first step, or its last checkpoint, to its end.
- `images`: batches of training images, made ahead of the steps.
- `augment`: letterboxed, scaled, recoloured images and mosaics.
- `heads`: the outputs and features of two graphs that are compared.
- `losses`: distances between the outputs of two graphs.
- `task_losses`: the same of masks, keypoints, angles and a classifier's logits.
- `untouched`: the nodes of a rewritten graph that still compute what the original does.
- `options`: the options of recipes that train at their end.
- `teacher`: the original, cut behind these nodes.
- `student`: the graph in training.
- `session`: steps of the optimizer and the running average of the weights.
- `rate_check`: held-out images on the way, and a lower rate where they disagree.
- `guard`: the best state of packed weights by held-out images, and an early end.
- `state`: checkpoints of a training in the cache.
- `fake_quantize`: gradients through quantizers, and weights stored as integers.
- `packed_weights`: weights of few bits in training.
- `rice_weights`: weights in codes of variable length in training.
"""

from yqc.training import packed_weights, rice_weights  # noqa: F401  # register how they are trained
from yqc.training.distill import distill
from yqc.training.fake_quantize import Latent, latent
from yqc.training.options import RecoveryOptions
from yqc.training.plan import Plan, TrainingOutcome
from yqc.training.untouched import find_untouched

__all__ = [
    "Latent",
    "Plan",
    "RecoveryOptions",
    "TrainingOutcome",
    "distill",
    "find_untouched",
    "latent",
]
