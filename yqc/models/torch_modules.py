"""Make modules of torch.nn anew from checked pickled attributes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from yqc.errors import CheckpointError, UnknownBlockError, first_line
from yqc.models.register import how_to_register

TORCH = "torch.nn.modules."


@dataclass(frozen=True)
class LayerForm:
    """How to make one class of torch.nn."""

    make: Callable[..., nn.Module]
    attributes: tuple[str, ...] = ()
    """Pickled attributes that the constructor takes by the same name; absent ones keep defaults."""
    tensors: bool = False
    """Whether it has parameters: it is then made on the meta device, without initialisation."""
    bias: bool = False
    """Whether the constructor takes `bias`: True where one is stored."""


CONVOLUTION = (
    *("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"),
    "padding_mode",
)
POOL = ("kernel_size", "stride", "padding", "ceil_mode")

FORMS: dict[str, LayerForm] = {
    "conv.Conv2d": LayerForm(nn.Conv2d, CONVOLUTION, tensors=True, bias=True),
    "conv.ConvTranspose2d": LayerForm(
        nn.ConvTranspose2d, (*CONVOLUTION, "output_padding"), tensors=True, bias=True
    ),
    "linear.Linear": LayerForm(nn.Linear, ("in_features", "out_features"), tensors=True, bias=True),
    "batchnorm.BatchNorm2d": LayerForm(
        nn.BatchNorm2d,
        ("num_features", "eps", "momentum", "affine", "track_running_stats"),
        tensors=True,
    ),
    "normalization.LayerNorm": LayerForm(
        nn.LayerNorm, ("normalized_shape", "eps", "elementwise_affine"), tensors=True, bias=True
    ),
    "normalization.GroupNorm": LayerForm(
        nn.GroupNorm, ("num_groups", "num_channels", "eps", "affine"), tensors=True
    ),
    "pooling.MaxPool2d": LayerForm(nn.MaxPool2d, (*POOL, "dilation", "return_indices")),
    "pooling.AvgPool2d": LayerForm(nn.AvgPool2d, (*POOL, "count_include_pad", "divisor_override")),
    "pooling.AdaptiveAvgPool2d": LayerForm(nn.AdaptiveAvgPool2d, ("output_size",)),
    "upsampling.Upsample": LayerForm(
        nn.Upsample, ("size", "scale_factor", "mode", "align_corners")
    ),
    "upsampling.UpsamplingNearest2d": LayerForm(nn.UpsamplingNearest2d, ("size", "scale_factor")),
    "padding.ZeroPad2d": LayerForm(nn.ZeroPad2d, ("padding",)),
    "pixelshuffle.PixelShuffle": LayerForm(nn.PixelShuffle, ("upscale_factor",)),
    "activation.PReLU": LayerForm(nn.PReLU, ("num_parameters",), tensors=True),
    "activation.LeakyReLU": LayerForm(nn.LeakyReLU, ("negative_slope",)),
    "activation.GELU": LayerForm(nn.GELU, ("approximate",)),
    "activation.ELU": LayerForm(nn.ELU, ("alpha",)),
    "activation.Softmax": LayerForm(nn.Softmax, ("dim",)),
    "dropout.Dropout": LayerForm(nn.Dropout, ("p",)),
    "container.Sequential": LayerForm(nn.Sequential),
    "container.ModuleList": LayerForm(nn.ModuleList),
    "linear.Identity": LayerForm(nn.Identity),
} | {
    f"activation.{make.__name__}": LayerForm(make)
    for make in (
        *(nn.SiLU, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Mish),
    )
}
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
    traced graph computes no tensor in place.

    Raises:
        UnknownBlockError: the class is not one of the table.
        CheckpointError: an attribute has no legal value.
    """
    form = FORMS.get(class_path.removeprefix(TORCH))
    if form is None:
        raise UnknownBlockError(
            f"{path} is a {class_path}, which yqc does not know; register a twin, in a"
            f" file for --load:\n{how_to_register(class_path)}"
        )
    options = {
        name: _plain(state[name], f"{path}.{name}") for name in form.attributes if name in state
    }
    if form.bias:
        options["bias"] = "bias" in parameters
    if form.tensors:
        options["device"] = "meta"
    try:
        return form.make(**options)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
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
