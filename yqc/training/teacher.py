"""The teacher: the original graph with its batch norms folded, since it only ever infers."""

import copy

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from yqc.graph import callers, chains


def fold(gm: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of a graph without gradients, its batch norms folded where that is possible."""
    gm = copy.deepcopy(gm).eval().requires_grad_(requires_grad=False)
    for conv, bn in chains(gm, nn.Conv2d, nn.BatchNorm2d):
        alone = len(conv.node.users) == 1 and callers(gm, conv.target) == 1
        if alone and bn.module.running_var is not None:
            gm.set_submodule(conv.target, fuse_conv_bn_eval(conv.module, bn.module))
            bn.node.replace_all_uses_with(conv.node)
            gm.graph.erase_node(bn.node)
    gm.delete_all_unused_submodules()
    gm.recompile()
    return gm.requires_grad_(requires_grad=False)
