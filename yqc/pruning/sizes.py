"""Count parameters, multiply-accumulates or channels of a graph for any choice of what stays."""

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd

from yqc.graph.calls import get_attribute
from yqc.graph.channels.sets import Channels, Slot
from yqc.graph.channels.walk import is_transposed
from yqc.graph.compare import macs, parameter_count
from yqc.graph.values import shape
from yqc.pruning.surgery import Keep

SizeUnit: TypeAlias = Literal["params", "channels", "macs"]


@dataclass(frozen=True)
class SizeTerm:
    """A count of `each` times the channels that stay in both slots; one slot may be a constant."""

    each: float
    out: int | None
    """Index of the slot of output channels, or None."""
    into: int | None
    """Index of the slot of input channels, or None."""


class SizeCounter:
    """Count parameters, multiply-accumulates or channels of a graph after a removal.

    Channels are those that convolutions and linear layers make.
    """

    def __init__(self, gm: fx.GraphModule, channels: Channels, unit: SizeUnit) -> None:
        self.channels = channels
        self._index = {(s.target, s.side): i for i, s in enumerate(channels.slots)}
        self.terms: list[SizeTerm] = []
        if unit == "channels":
            self.terms = [
                SizeTerm(1.0, i, None) for i, s in enumerate(channels.slots) if s.side == "out"
            ]
            self.whole = self._sum(self._counts(None)) + _outside(gm, channels)
        else:
            (self._params if unit == "params" else self._macs)(gm)
            self.whole = float(parameter_count(gm) if unit == "params" else macs(gm))
        self._fixed = self.whole - self._sum(self._counts(None))

    def left(self, keep: Keep) -> float:
        """Return the count that is left when only the sets in `keep` stay."""
        return self._fixed + self._sum(self._counts(keep))

    def share_removed(self, keep: Keep) -> float:
        """Return the share that is removed, 0..1."""
        return 1 - self.left(keep) / self.whole

    def saving(self) -> NDArray[np.float64]:
        """Return what removing each set alone saves, to first order: float64 [sets]."""
        counts, slots = self._counts(None), self.channels.slots
        saved = np.zeros(self.channels.count)
        for term in self.terms:
            for index, other in ((term.out, term.into), (term.into, term.out)):
                if index is not None:
                    each = term.each * (counts[other] if other is not None else 1)
                    np.add.at(saved, slots[index].ids, each)
        return saved

    def _counts(self, keep: Keep | None) -> list[int]:
        slots = self.channels.slots
        return [len(s.ids) if keep is None else int(keep[s.ids].sum()) for s in slots]

    def _sum(self, counts: list[int]) -> float:
        total = 0.0
        for term in self.terms:
            out = 1 if term.out is None else counts[term.out]
            total += term.each * out * (1 if term.into is None else counts[term.into])
        return total

    def _params(self, gm: fx.GraphModule) -> None:
        for index, slot in enumerate(self.channels.slots):
            held = get_attribute(gm, slot.target)
            if isinstance(held, Tensor):
                if isinstance(held, nn.Parameter):
                    self.terms.append(SizeTerm(held.numel() / len(slot.ids), index, None))
            elif isinstance(held, (_ConvNd, nn.Linear)):
                self._weight(held, slot, 1)
                if slot.side != "in" and held.bias is not None:
                    self.terms.append(SizeTerm(len(held.bias) / len(slot.ids), index, None))
            else:
                each = sum(p.numel() for p in held.parameters()) / len(slot.ids)  # type: ignore[attr-defined]
                self.terms.append(SizeTerm(each, index, None))

    def _macs(self, gm: fx.GraphModule) -> None:
        for node in gm.graph.nodes:
            if node.op != "call_module":
                continue
            module = gm.get_submodule(str(node.target))
            if isinstance(module, (_ConvNd, nn.Linear)):
                source = node.all_input_nodes[0] if is_transposed(module) else node
                sizes = shape(source)
                where = sizes[1:-1] if isinstance(module, nn.Linear) else sizes[2:]
                for side in ("out", "in", "channels"):
                    index = self._index.get((str(node.target), side))
                    if index is not None:
                        self._weight(module, self.channels.slots[index], math.prod(where))

    def _weight(self, module: _ConvNd | nn.Linear, slot: Slot, times: int) -> None:
        """Count a weight once, at its output slot if it has one."""
        out, into = (self._index.get((slot.target, side)) for side in ("out", "in"))
        size = module.weight.numel() * times
        if slot.side == "channels":
            index = self._index[slot.target, "channels"]
            self.terms.append(SizeTerm(size / len(slot.ids), index, None))
        elif slot.side == "out":
            other = 1 if into is None else len(self.channels.slots[into].ids)
            self.terms.append(SizeTerm(size / len(slot.ids) / other, out, into))
        elif out is None:
            self.terms.append(SizeTerm(size / len(slot.ids), None, into))


def _outside(gm: fx.GraphModule, channels: Channels) -> int:
    """Count the channels of convolutions and linear layers that have no slot of their own."""
    known = {s.target for s in channels.slots if s.side == "out"}
    found: dict[str, int] = {}
    for node in gm.graph.nodes:
        if node.op == "call_module" and str(node.target) not in known:
            module = gm.get_submodule(str(node.target))
            if isinstance(module, (_ConvNd, nn.Linear)):
                found[str(node.target)] = module.weight.shape[0]
    return sum(found.values())
