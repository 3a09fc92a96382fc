"""Rules for OpenVINO on Intel CPUs, GPUs and NPUs.

It turns QuantizeLinear and DequantizeLinear into FakeQuantize and moves the dequantization behind
convolutions (documentation "Low Precision Transformations"); the convolution takes in its
activation, SiLU too, and a residual. A pair that repeats a scale behind a split, concat, pooling or
resize is a requantization of its own: without them yolov8n at 320 px takes 8.8 ms and not 9.4
(OpenVINO 2026.4, f32 hint, one thread, x86 with VNNI). Int8-typed activations in front of a concat
are computed wrong by its CPU plugin (2025.4, 2026.4): 10 dB; as uint8 with zero point 128, 142 dB.
Weights of few bits are UINT4 behind Cast. Behind a seed (`onnxruntime`) they are computed once too,
but an integer convolution of them runs in float (0 and not 57 of yolov8n's 63 in `int4,int8`).
"""

from yqc.targets.base import Target

OPENVINO = Target(
    name="openvino",
    summary="Intel CPUs, GPUs and NPUs by OpenVINO",
    aliases=("ov",),
    runtime="openvino",
    engine="ovc FILE.onnx",
    repeated_scales=False,
    stored_halves=True,
    weights="cast",
)
