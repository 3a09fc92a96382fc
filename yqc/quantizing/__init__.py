"""Quantization of graphs: where to quantize, with which statistics, and into what."""

from yqc.quantizing.placement import Placement, before_activations, hands_on, is_addition, place
from yqc.quantizing.response import Response, response, take_apart

__all__ = [
    "Placement",
    "Response",
    "before_activations",
    "hands_on",
    "is_addition",
    "place",
    "response",
    "take_apart",
]
