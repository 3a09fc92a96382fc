"""What helps where int8 is no faster than float."""

from collections.abc import Sequence

from yqc.report import human
from yqc.report.environment import Environment, cpu_name, has_int8_products
from yqc.report.parts import Latency, Layer

INT8_BITS = 8


def advise_on_speed(
    latency: Latency | None, layers: Sequence[Layer], target: str, environment: Environment
) -> tuple[str, ...]:
    """Say in a sentence that an int8 file is no faster than the float file, and what helps.

    It counts as faster if the whole interval of the ratio is above 1. `target` is the target's
    name. Nothing is said of files that compute in float.
    """
    in_int8 = any((layer.activation_bits or 32) <= INT8_BITS for layer in layers)
    if latency is None or latency.interval[0] > 1 or not in_int8:
        return ()
    low, high = map(human.times, latency.interval)
    how = "no" if latency.interval[1] <= 1 else "not clearly"
    said = (
        f"int8 is {how} faster than float in {latency.runtime} here ({human.times(latency.ratio)}, "
        f"95 % interval {low} to {high}): "
    )
    if target == "portable":
        said += "compile with --target onnxruntime or --target openvino, whichever will run it"
    elif has_int8_products() is False and environment.cpu == cpu_name():
        said += (
            "this CPU has no int8 dot products (VNNI); time the file where it will run, with "
            f"`yqc bench FLOAT.onnx FILE.onnx --runtime {latency.runtime}`"
        )
    else:
        said += f"`yqc lint FILE.onnx --target {target}` finds what does not run in int8"
    return (said,)
