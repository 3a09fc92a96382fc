"""int8: quantize weights and activations to eight bits, and leave the decoding in float.

Stands for `reparam,fold-bn,dce,observe,calibrate,relax,bias-correct,quantize`, and has
`decompose-silu` before `observe` where the target computes SiLU on integers. Options go to the
passes that have them.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from yqc import Given, Recipe
from yqc.pipeline import Bounds, Share, Space, format_value
from yqc.quant import RangeMethod
from yqc.registered import OBSERVERS


@dataclass(frozen=True)
class Int8(Recipe):
    """Quantize weights and activations to eight bits."""

    name: ClassVar[str] = "int8"

    ranges: RangeMethod = "relevance"
    """How the range of an activation is chosen: minmax, percentile, mse, entropy, or relevance."""
    observer: Annotated[str, OBSERVERS] = "histogram"
    """Statistics of activations; any but histogram choose the range themselves, with data."""
    reduce_range: bool = False
    """Weights of 7 bits, for x86 CPUs without VNNI, where eight bits can saturate."""
    float_inputs: Annotated[float, Share, Bounds(least=0, most=1)] = 0.1
    """At most this share of convolutions read float, where that is worth its time; needs data."""
    skip: tuple[str, ...] = ()
    """Convolutions to leave in float: their paths, * as a wildcard; worst:3, the costliest."""

    @classmethod
    def space(cls) -> Space:
        return Space("integers", {"float_inputs": [0.1, 0.0, 0.3], "skip": [[], ["worst:3"]]})

    def expand(self, given: Given) -> str:
        observe = f"observe{{skip={format_value(self.skip)}}}" if self.skip else "observe"
        reduced = " reduce_range=true" if self.reduce_range else ""
        relax = f"relax{{share={format_value(self.float_inputs)}}}," if self.float_inputs else ""
        observer = "" if self.observer == "histogram" else f" observer={self.observer}"
        calibrate = f"calibrate{{ranges={self.ranges}{observer}{reduced}}}"
        decompose = "decompose-silu," if given.rules.integer_silu else ""
        return f"reparam,fold-bn,dce,{decompose}{observe},{calibrate},{relax}bias-correct,quantize"
