"""Rules for onnxruntime on a CPU, the target that accuracy is measured in.

Its optimiser puts an operator on an integer kernel if every data input comes out of
DequantizeLinear and all that reads the result is QuantizeLinear (documentation "Quantize ONNX
models", section "Quantization on QDQ format"). So the result of a convolution is quantized between
it and its activation, unless that is a Relu or Clip, which the kernel takes in; SiLU has no
integer kernel, Sigmoid and Mul have. Int8 activations are not fused without a session option.

Measured with onnxruntime 1.32 on an x86 CPU with VNNI, yolov8n at 320 px, one thread: float 22.3
ms; SiLU in one piece 31 ms, as quantized sigmoid and product 10.0 ms. Products of
attention are fused to QLinearMatMul, or with a float result to MatMulIntegerToFloat: yolo12n at 320
px takes 0.79 of the time that it takes with them in float. A first layer that reads the
3 channels of an image is slower on integers than in float; 16 channels are not.
DequantizeLinear of constants is not folded at load, QuantizeLinear and what depends on it is: so
weights of few bits stand behind that seed. With INT4 behind DequantizeLinear yolov8n (320 px) ran
at 0.57 of the float file's speed and tables at 0.39; behind the seed both run at 1.00.
"""

from yqc.targets.base import Target

ONNXRUNTIME = Target(
    name="onnxruntime",
    summary="CPUs, x86 and ARM; where accuracy and speed are measured",
    aliases=("ort",),
    integer_silu=True,
    integer_results=True,
    few_channels=3,
    fused_addition=False,
    integer_products=True,
    products=True,
    copied_pixels=True,
    stored_halves=True,
    weights="seed",
)
