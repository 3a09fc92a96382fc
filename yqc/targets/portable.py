"""Rules for a file that any runtime loads: plain QDQ around units of convolution and activation.

Every operation on quantized tensors has a QuantizeLinear and DequantizeLinear on both sides, as
OpenCV 5's engine needs them. Nothing is fitted to one runtime: onnxruntime runs it slower than the
float model, and decodes weights of few bits, INT4 behind DequantizeLinear, at every inference.
"""

from yqc.targets.base import Target

PORTABLE = Target(
    name="portable",
    summary="any runtime that reads ONNX; fitted to none",
    aliases=("generic",),
)
