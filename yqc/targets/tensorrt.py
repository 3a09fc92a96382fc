"""Rules for TensorRT on NVIDIA GPUs and Jetson.

Activations are int8 with zero point 0, one scale a tensor; weights int8, one scale an output
channel (documentation "Working with Quantized Types"). A residual is added inside the convolution
if only the other summand is quantized ("Q/DQ Layer-Placement Recommendations"). Four bits are INT4
behind DequantizeLinear, the one form with four bits in that documentation; other widths below eight
have none.
"""

from yqc.targets.base import Target

TENSORRT = Target(
    name="tensorrt",
    summary="NVIDIA GPUs and Jetson by TensorRT",
    aliases=("trt",),
    runtime=None,
    engine="trtexec --onnx=FILE.onnx --saveEngine=FILE.engine --int8 --fp16",
    symmetric=True,
    activations="int8",
    code_bits=(4, 8),
)
