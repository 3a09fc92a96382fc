"""A block that yqc does not know: a convolution with squeeze and excitation (Hu et al. 2018).

    y = silu(bn(conv(x)))        out = gain * y * sigmoid(excite(relu(squeeze(mean(y)))))

A checkpoint whose model has such a block, pickled as `acme.blocks.SEConv`, is refused, and
`yqc inspect` names the class. With this file it compiles; the package `acme` need not be there:

    yqc compile model.pt --load register_block.py --passes fuse
"""

from torch import Tensor, nn

import yqc


class SEConv(nn.Module):
    """The twin of `acme.blocks.SEConv`: a forward that can be traced, over what is stored.

    It has no `__init__`, since none would be called: children, parameters, buffers and plain
    attributes come from the checkpoint, under the names that they have there.
    """

    conv: nn.Conv2d
    bn: nn.BatchNorm2d
    act: nn.SiLU
    squeeze: nn.Conv2d
    excite: nn.Conv2d
    gain: float

    def forward(self, x: Tensor) -> Tensor:
        """Weight the channels of a convolution: `f32[N, c1, H, W]` to `f32[N, c2, h, w]`."""
        y = self.act(self.bn(self.conv(x)))
        weights = self.excite(self.squeeze(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.gain * y * weights  # type: ignore[no-any-return]


yqc.register_block("acme.blocks.SEConv", SEConv)
