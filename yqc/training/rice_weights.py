"""Train weights in codes of variable length: floats in whole steps, encoded again afterwards.

    w -> s f * clamp(round(w / (s f)), low, high)        f: the channel's factor, which stays

The scale of the layer is trained, too. Integers stay within those that the layer had, so that the
network's planes hold them; the Rice parameter and the planes stay as they are.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from yqc.graph.calls import get_attribute
from yqc.quant.weights.packing import unpack
from yqc.quant.weights.rice import Planes, decode_levels, encode_levels, read_planes
from yqc.quant.weights.rice_layer import EXPONENTS, channel_factors
from yqc.training.fake_quantize import Latent, Scale, latent, round_to_steps, write_tensor
from yqc.training.packed_weights import round_straight_through


class TrainedRiceWeight(Latent):
    """Integers times the step of their channel."""

    def __init__(self, gm: fx.GraphModule, node: fx.Node) -> None:
        super().__init__()
        packed, scale, exponents, shape, low, planes = cast("tuple[Any, ...]", node.args)
        stored, step, codes = (
            cast("Tensor", get_attribute(gm, str(each.target)))
            for each in (packed, scale, exponents)
        )
        self.path, self.shape, self.parameter = str(packed.target), list(shape), int(low)
        self.planes: Planes = read_planes(planes)
        levels = decode_levels(stored, math.prod(self.shape), self.parameter, self.planes)
        self.lowest, self.highest = (float(end) for end in levels.aminmax())
        factors = channel_factors(unpack(codes, self.shape[0], 4).to(torch.int16) + EXPONENTS[0])
        self.register_buffer("factors", factors.view(-1, *[1] * (len(self.shape) - 1)))
        self.scale = Scale(step.float(), str(scale.target))
        self.value = nn.Parameter(levels.float().view(self.shape) * self._step())

    def forward(self) -> Tensor:
        """Return the weight as the graph unpacks it."""
        low, high = (self.value.new_tensor(end) for end in (self.lowest, self.highest))
        share = 1 / math.sqrt(self.value.numel() * max(self.highest, 1.0))
        return round_to_steps(self.value, self._step(), low, high, share)

    def _step(self) -> Tensor:
        return round_straight_through(self.scale()) * cast("Tensor", self.factors)

    @torch.no_grad()
    def store(self, gm: fx.GraphModule) -> None:
        """Write codes and scale."""
        levels = (self.value / self._step()).round().clamp(self.lowest, self.highest).long()
        owner, _, name = self.path.rpartition(".")
        stream = encode_levels(levels.cpu(), self.parameter, self.planes)
        gm.get_submodule(owner).register_buffer(name, stream)  # it may be longer or shorter
        write_tensor(gm, self.scale.path, self.scale().half())


latent(torch.ops.yqc.unpack_rice)(TrainedRiceWeight)
