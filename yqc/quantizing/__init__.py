"""Quantization of graphs: which tensors, with which statistics, and into what.

In reading order:

    placement        which tensors int8 quantizes, and which share one scale
    as_convolutions  layers that are convolutions of one pixel, written as such
    activations      the activation that alone reads a tensor
    relevance        relevance of the values that nodes compute, by backward passes
    bias_error       reference outputs of convolutions, and the mean error against them
    calibration      images through the graph, for all of these statistics at once
    float_time       what convolutions in float cost in a runtime
    distribution     mean, deviation and extremes of tensors from batch norms, without data
    half_error       what half precision does to each node of a graph
    half             a part of a graph in half precision
    half_storage     what quantization left in float32, stored in half
    weights          few-bit weights of graphs: which layers, against which inputs
"""

from yqc.quantizing.activations import OnlyActivation, find_only_activation
from yqc.quantizing.as_convolutions import write_as_convolutions
from yqc.quantizing.bias_error import (
    ReferenceOutputs,
    correctable_convolutions,
    measure_outputs,
    put_outputs,
    take_outputs,
)
from yqc.quantizing.calibration import gather_statistics
from yqc.quantizing.distribution import Distribution, follow_distributions
from yqc.quantizing.float_time import FloatTime
from yqc.quantizing.half import (
    compute_in_half,
    half_candidates,
    skip_reason,
    spread_obstacles,
)
from yqc.quantizing.half_error import HalfError, measure_half_errors
from yqc.quantizing.half_storage import computes_from_integers, store_in_half
from yqc.quantizing.placement import (
    FUSED_ACTIVATIONS,
    WEIGHTED,
    ObserverPlacement,
    find_float_reason,
    find_products,
    is_addition,
    is_reshaped,
    keeps_values,
    passes_values_through,
    place_observers,
    repeats_pixels,
)
from yqc.quantizing.relevance import measure_node_relevance
from yqc.quantizing.weights.allocate import plan_differences, read_plan_line
from yqc.quantizing.weights.budget import WeightBudget
from yqc.quantizing.weights.inputs import foresee_rounding
from yqc.quantizing.weights.options import CodebookOptions, Int4Options, RiceOptions
from yqc.quantizing.weights.pack import PackJob, pack_layers
from yqc.quantizing.weights.pack_rice import RiceJob, pack_rice_layers
from yqc.quantizing.weights.rewrite import (
    call_conv2d,
    hold_tensors,
    is_packed,
    move_bias,
    stored_bias,
)
from yqc.quantizing.weights.rounder import RoundingSettings

__all__ = [
    "FUSED_ACTIVATIONS",
    "WEIGHTED",
    "CodebookOptions",
    "Distribution",
    "FloatTime",
    "HalfError",
    "Int4Options",
    "ObserverPlacement",
    "OnlyActivation",
    "PackJob",
    "ReferenceOutputs",
    "RiceJob",
    "RiceOptions",
    "RoundingSettings",
    "WeightBudget",
    "call_conv2d",
    "compute_in_half",
    "computes_from_integers",
    "correctable_convolutions",
    "find_float_reason",
    "find_only_activation",
    "find_products",
    "follow_distributions",
    "foresee_rounding",
    "gather_statistics",
    "half_candidates",
    "hold_tensors",
    "is_addition",
    "is_packed",
    "is_reshaped",
    "keeps_values",
    "measure_half_errors",
    "measure_node_relevance",
    "measure_outputs",
    "move_bias",
    "pack_layers",
    "pack_rice_layers",
    "passes_values_through",
    "place_observers",
    "plan_differences",
    "put_outputs",
    "read_plan_line",
    "repeats_pixels",
    "skip_reason",
    "spread_obstacles",
    "store_in_half",
    "stored_bias",
    "take_outputs",
    "write_as_convolutions",
]
