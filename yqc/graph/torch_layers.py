"""Modules of torch.nn that can be made anew from their attributes: classes and their settings.

The settings are read off the constructors: torch's modules keep their arguments as attributes of
the same names. Left out are modules that compute otherwise at each call or hold other modules'
arguments only (fractional pools, transformers), losses, and those that torch keeps for old code.
"""

import inspect

from torch import nn

NO_SETTINGS = frozenset(
    {
        *("self", "device", "dtype", "inplace", "args", "kwargs", "min_value", "max_value"),
        *("_weight", "_freeze", "process_group"),
    }
)
"""Arguments that are no part of what a module computes, or that only initialise it."""

LEFT_OUT = frozenset(
    {
        *("Module", "Container", "Sequential", "ModuleList", "ModuleDict", "ParameterList"),
        *("ParameterDict", "DataParallel", "MultiheadAttention", "Transformer", "RNNCellBase"),
        *("TransformerEncoder", "TransformerEncoderLayer", "TransformerDecoder", "RNNBase"),
        *("TransformerDecoderLayer", "FractionalMaxPool2d", "FractionalMaxPool3d"),
        *("AdaptiveLogSoftmaxWithLoss", "NLLLoss2d", "CrossMapLRN2d"),
    }
)
RECURRENT = (
    *("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout"),
    "bidirectional",
)
"""Settings of recurrent layers, whose constructors take any arguments."""
ODD = {
    nn.GRU: RECURRENT,
    nn.LSTM: (*RECURRENT, "proj_size"),
    nn.RNN: (*RECURRENT, "nonlinearity"),
    nn.Hardtanh: ("min_val", "max_val"),
}


def settings_of(cls: type[nn.Module]) -> tuple[str, ...]:
    """List the constructor arguments that a module of torch keeps as attributes."""
    if cls in ODD:
        return ODD[cls]
    return tuple(p for p in inspect.signature(cls.__init__).parameters if p not in NO_SETTINGS)


def takes_device(cls: type[nn.Module]) -> bool:
    """Whether the tensors of a module can be made on the meta device, without initialisation."""
    return (cls in ODD and cls is not nn.Hardtanh) or (
        "device" in inspect.signature(cls.__init__).parameters
    )


def _layers() -> dict[type[nn.Module], tuple[str, ...]]:
    found: dict[type[nn.Module], tuple[str, ...]] = {}
    for name in sorted(vars(nn)):
        cls = getattr(nn, name)
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)) or name in LEFT_OUT:
            continue
        if not name.startswith("Lazy") and not name.endswith("Loss"):
            found[cls] = settings_of(cls)
    return found


TORCH_LAYERS: dict[type[nn.Module], tuple[str, ...]] = _layers()
"""Classes -> the arguments that make a module equal to another one but for its tensors."""
