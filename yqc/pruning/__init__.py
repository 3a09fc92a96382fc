"""Channel pruning: saliency scores, removal, correction, and the share to remove.

In reading order:

- `options`: the options of channel pruning.
- `trials`: one pruning under way; pruned and corrected copies of the graph to compare.
- `search`: the share to remove, by a search over trials.
- `selection`: which channels of which group are removed, so that a share of the whole is.
- `sizes`: parameters, multiply-accumulates or channels that are left for any selection.
- `surgery`: removal of channels from weights, norms, constants and arguments.
- `weight_scores`: saliency from weights and batch norms alone.
- `statistics`: covariances of tensors and relevance of channels, from calibration images.
- `probes`: random projections of a head, for gradients.
- `gradient_scores`: saliency from gradients.
- `custom_scores`: saliency by a function that a user registered.
- `reconstruction_scores`: saliency as the error that correction leaves.
- `correction`: least-squares correction of the weights behind removed channels.
- `described`: what a removal takes from every group, in words.
- `without_data`: saliency and correction from batch norms, where there are no images.
"""

from yqc.pruning.custom_scores import ScoredLayer, needs_images, register_criterion
from yqc.pruning.described import describe_removal
from yqc.pruning.options import DATA_CRITERIA, PruningOptions
from yqc.pruning.search import FREE_SHARE, PruningChoice, choose_channels
from yqc.pruning.trials import PruningTask, Trial

__all__ = [
    "DATA_CRITERIA",
    "FREE_SHARE",
    "PruningChoice",
    "PruningOptions",
    "PruningTask",
    "ScoredLayer",
    "Trial",
    "choose_channels",
    "describe_removal",
    "needs_images",
    "register_criterion",
]
