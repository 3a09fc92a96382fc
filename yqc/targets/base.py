"""The rules of a target, and the limits of a device: a field for each."""

from dataclasses import dataclass
from typing import Literal

TargetName = Literal["onnxruntime", "openvino", "tensorrt", "portable"]
"""The targets, as commands, recipes and reports write them."""
WeightForm = Literal["dequantize", "seed", "cast"]
"""How stored weights are decoded.

`dequantize`: INT4, UINT4 or INT8 behind DequantizeLinear, which any runtime reads; few fold it.
`seed`: bytes behind a QuantizeLinear of 0, which simplifiers leave packed and onnxruntime folds.
`cast`: UINT4 or UINT8 behind Cast, which runtimes and some simplifiers fold.
"""
Runtime = Literal["onnxruntime", "openvino"]
"""A runtime that can be timed here."""
DecodeForm = Literal["full", "scores", "raw"]
"""What a device takes of the decoding: all of it, the sigmoid of scores alone, nothing."""
ActivationName = Literal["relu", "relu6", "leaky-relu", "hardswish", "hard-sigmoid", "silu"]
"""Activations as files of devices name them; all but the last are values of `relu{to=...}`."""

TypeName = Literal[
    "float32", "float16", "bfloat16", "float64", "uint8", "int8", "uint16", "int16", "uint32",
    "int32", "uint64", "int64", "uint4", "int4", "bool",
]  # fmt: skip
"""Element types of ONNX tensors."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest of each that a device takes; None where its file does not say."""

    opset: int | None = None
    """ONNX opset of the file."""
    kernel: int | None = None
    """Side of a convolution's kernel."""
    pool_kernel: int | None = None
    """Side of a pooling's window."""
    stride: int | None = None
    """Stride of convolutions and poolings."""
    channels: int | None = None
    """Channels of an image-like tensor: the second dimension of four."""
    rank: int | None = None
    """Dimensions of a tensor."""
    dtypes: tuple[TypeName, ...] | None = None
    """Element types of tensors. Constants of int64 do not count: they are shapes, axes, places."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What one runtime wants; the defaults are what any runtime loads."""

    name: str
    """One of `TargetName`, or the path of a device's file."""
    summary: str
    """What it is for, in half a line."""
    aliases: tuple[str, ...] = ()
    """Further names that `--target` takes."""
    runtime: Runtime | None = "onnxruntime"
    """What its files are timed in; None if that cannot run here."""
    engine: str = ""
    """The command that builds an engine from the file FILE, if the runtime wants one."""

    integer_silu: bool = False
    """Whether SiLU is quantized as x * sigmoid(x), each part with an integer kernel of its own."""
    integer_results: bool = False
    """Whether a convolution runs on integers only if its own result is quantized."""
    few_channels: int = 0
    """Input channels up to which a convolution stays in float, since it is faster there."""
    fused_addition: bool = True
    """Whether a convolution adds a residual at full precision if its own side is not quantized."""
    repeated_scales: bool = True
    """Whether operations that pass values through get a quantize-dequantize on both sides."""
    symmetric: bool = False
    """Whether activations are symmetric: 0 is stored as the middle of the type."""
    activations: Literal["uint8", "int8"] = "uint8"
    """Element type of quantized activations."""
    integer_products: bool = False
    """Whether products of two computed matrices, those of attention, run faster on integers."""
    products: bool = False
    """Whether 1x1 convolutions of integers with float results are written as MatMul.

    A MatMul has an integer kernel with a float result; a convolution has none.
    """
    copied_pixels: bool = False
    """Whether upsampling of integers is written as Tile and Transpose, which copy whole pixels."""
    stored_halves: bool = False
    """Whether biases and scales beside integers may be stored in half.

    Nodes make float32 of them, which the runtime must fold when it loads the file.
    """
    weights: WeightForm = "dequantize"
    """How weights of few bits are decoded in the file, and int8 weights of float convolutions.

    What the runtime folds when it loads the file costs nothing at inference; see the targets.
    """

    code_bits: tuple[int, ...] = (2, 3, 4, 5, 6, 8)
    """Bits of a uniform weight that it decodes. Without a type for them, codes are put together
    from planes of bits."""

    base: TargetName | None = None
    """The target whose rules hold where a device's file is silent; None for a target itself."""
    sha256: str = ""
    """Of the device's file."""
    operators: tuple[str, ...] | None = None
    """ONNX operators that the device runs; None: all that `base` runs."""
    limits: Limits = Limits()
    """What the device takes at most."""
    decode: DecodeForm = "full"
    """How much of the decoding the device is to run."""
    fast_activations: tuple[ActivationName, ...] | None = None
    """Activations that cost the device little, the cheapest first; None where that is not known."""

    @property
    def file(self) -> str | None:
        """The path of the device's file; None for a target that is none."""
        return self.name if self.base else None

    def runs(self, operator: str) -> bool:
        """Return whether the device has an ONNX operator, as far as its file says."""
        return self.operators is None or operator in self.operators
