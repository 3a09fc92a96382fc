"""Make modules of torch.nn anew from checked pickled attributes."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from yqc.errors import CheckpointError, UnknownBlockError, first_line
from yqc.graph.torch_layers import TORCH_LAYERS, takes_device

TORCH = "torch.nn.modules."

FORMS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    f"{cls.__module__}.{cls.__name__}".removeprefix(TORCH): (cls, settings)
    for cls, settings in TORCH_LAYERS.items()
} | {
    f"container.{cls.__name__}": (cls, ())
    for cls in (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
}
"""Modules of torch by where they are pickled from, and the attributes that make them."""
FORMS["batchnorm.SyncBatchNorm"] = FORMS["batchnorm.BatchNorm2d"]
"""Distributed training leaves it in files; at inference it is a plain batch norm."""
FORMS["linear.NonDynamicallyQuantizableLinear"] = FORMS["linear.Linear"]
FORMS["linear._LinearWithBias"] = FORMS["linear.Linear"]
"""Names under which releases of torch pickled the output projection of attention."""


QUANTIZED_FORMS = re.compile(
    r"(?:torch\.(?:ao\.)?nn\.qat\.modules|pytorch_quantization\.nn\.modules"
    r"|modelopt\.torch\.quantization\.nn\.modules)\.\w+\.(?:Quant)?(Conv2d|Linear)"
)
"""Layers of quantization-aware training: the plain layer, with quantizers as children."""

QUANTIZERS = re.compile(
    r"torch\.(?:ao\.)?quantization\.(?:observer|fake_quantize)\.\w+"
    r"|(?:pytorch_quantization|modelopt\.torch\.quantization)\.nn\.modules"
    r"\.tensor_quantizer\.\w+"
)
"""Observers and quantizers of quantization-aware training: children that hold ranges."""


def plain_form(class_path: str) -> str:
    """Return the plain layer of torch that a layer of quantization-aware training stands for."""
    if (match := QUANTIZED_FORMS.fullmatch(class_path)) is None:
        return class_path
    return TORCH + ("conv.Conv2d" if match[1] == "Conv2d" else "linear.Linear")


def make_torch_module(
    class_path: str, state: Mapping[str, object], parameters: Mapping[str, Tensor], path: str
) -> nn.Module:
    """Make the module of torch.nn at `path` whose tensors have shapes but no storage yet.

    Attributes in `state` that the class does not know are ignored, `inplace` among them, since a
    traced graph computes no tensor in place; those that older releases lack keep their defaults.

    Raises:
        UnknownBlockError: the class is not one of the table.
        CheckpointError: an attribute has no legal value.
    """
    if (form := FORMS.get(class_path.removeprefix(TORCH))) is None:
        raise UnknownBlockError(f"{path} is a {class_path}, for which yqc has no twin")
    cls, settings = form
    options = {
        name: _plain(state[name], f"{path}.{name}")
        for name in settings
        if name in state and name not in parameters
    }
    if "bias" in settings and not isinstance(state.get("bias"), bool):
        options["bias"] = "bias" in parameters
    if takes_device(cls):
        options["device"] = "meta"
    try:
        return cls(**options)
    except (TypeError, ValueError, RuntimeError, OverflowError, AssertionError) as error:
        reason = first_line(error)
        raise CheckpointError(
            f"{path} cannot be made: {reason}; the checkpoint is damaged"
        ) from error


def _plain(value: object, path: str) -> object:
    """Return a number, text, None or flat list of such; refuse anything else."""
    items = value if isinstance(value, (list, tuple)) else [value]
    if not all(type(item) in {bool, int, float, str, type(None)} for item in items):
        raise CheckpointError(f"{path} is {value!r:.60}: the checkpoint is damaged")
    return tuple(value) if isinstance(value, (list, tuple)) else value
