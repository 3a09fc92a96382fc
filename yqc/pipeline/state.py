"""What a graph is known to be, as passes require, provide, remove and exclude it."""

from enum import StrEnum


class State(StrEnum):
    """States that built-in passes know. Other passes may use any other words beside them."""

    FLOAT32 = "float32"
    """Tensors and parameters are float32, as the tracer leaves them, or quantized to integers."""
    BATCH_NORM = "batch-norm"
    """Batch norms are modules of their own, as the tracer leaves them."""
    BN_FOLDED = "bn-folded"
    """Batch norms behind convolutions are part of these."""
    REPARAMETERIZED = "reparameterized"
    """Parallel linear branches are one convolution."""
    CLEAN = "clean"
    """Nothing is left that no output reads, and no call that returns its input."""
    OBSERVED = "observed"
    """Observers mark the tensors to quantize."""
    CALIBRATED = "calibrated"
    """Observers and the convolutions to quantize have their scales."""
    INT8 = "int8"
    """Tensors are rounded to eight bits, and weights are integers of eight bits."""
    PACKED = "packed"
    """Weights of convolutions are packed integers of few bits."""
    HALF = "half"
    """Weights and arithmetic are in half precision, or what integers leave is stored in it."""


TRACED: frozenset[str] = frozenset({State.BATCH_NORM, State.FLOAT32})
"""What a graph is known to be when it comes from the tracer."""
