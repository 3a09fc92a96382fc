"""Rules for OpenVINO on Intel CPUs, GPUs and NPUs.

It turns QuantizeLinear and DequantizeLinear into FakeQuantize and moves the dequantization behind
convolutions (documentation "Low Precision Transformations"); the convolution takes in its
activation, SiLU too, and a residual. A pair that repeats a scale behind a split, concat, pooling or
resize is a requantization of its own: without them yolov8n at 320 px takes 8.8 ms and not 9.4
(OpenVINO 2026.4, f32 hint, one thread, x86 with VNNI). Int8-typed activations in front of a concat
are computed wrong by its CPU plugin (2025.4, 2026.4): 10 dB; as uint8 with zero point 128, 142 dB.
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
