"""What to do about a finding: text that can be typed, and never what made the file.

The metadata of a file that yqc wrote name its target and its pipeline.
"""

from collections.abc import Iterable

from onnx import NodeProto

from yqc.errors import PipelineError
from yqc.linting.graph import Graph
from yqc.pipeline import format_value
from yqc.pipeline.grammar import Item, split
from yqc.targets import find_target

NARROWING = frozenset(
    {"int8", "int4", "codebook", "rice", "fp16", "pack-int4", "cluster", "pack-rice", "half"}
) | {*("observe", "calibrate", "relax", "bias-correct", "quantize")}
"""Passes and recipes that leave tensors of other types than float32, or serve those that do."""


def target_of(g: Graph) -> str:
    """Return the target that a file was compiled for, "" if yqc did not write it."""
    try:
        return find_target(g.about["yqc.target"]).name
    except (KeyError, PipelineError):
        return ""


def steps_of(g: Graph) -> list[Item]:
    """Return the passes and recipes that made a file, none if yqc did not write it."""
    try:
        return split(g.about["yqc.pipeline"])
    except (KeyError, PipelineError):
        return []


def option_of(g: Graph, step: str, key: str) -> str | None:
    """Return the value of an option that a file was made with, None if it was not given."""
    given = (setting for item in steps_of(g) if item.name == step for setting in item.settings)
    return next((setting.value for setting in given if setting.key == key), None)


def undo_float_inputs(g: Graph) -> str | None:
    """Return what to type so that all convolutions read integers, None if that is no option's work.

    `relax` leaves inputs in float where rounding them does most damage, `skip` where the user said.
    """
    names = {item.name for item in steps_of(g)}
    share = option_of(g, "int8", "float_inputs")
    if "int8" in names and (share is None or share.strip("0.")):
        return "int8{float_inputs=0}, if speed matters more than accuracy"
    if "relax" in names:
        return "leave out the pass relax, if speed matters more than accuracy"
    skip = option_of(g, "int8", "skip") or option_of(g, "observe", "skip")
    return None if skip is None else f"leave out skip={skip}, if speed matters more than accuracy"


def compile_for(g: Graph, target: str, otherwise: str) -> str:
    """Advise a target; or something else if the file was compiled for it."""
    return otherwise if target_of(g) == target else f"compile with --target {target}"


def compile_by_int8(g: Graph, otherwise: str) -> str:
    """Advise the recipe int8 if the file was made without it."""
    made_by = {item.name for item in steps_of(g)}
    return otherwise if made_by & {"int8", "quantize"} else f"{otherwise}, as --passes int8 does"


def compile_in_float(g: Graph) -> str:
    """Advise the pipeline that made a file without the passes that narrow types."""
    names = [item.name for item in steps_of(g) if item.name not in NARROWING]
    return f"compile with --passes {','.join(names) or 'fuse'}"


def leave_in_float(g: Graph, nodes: Iterable[NodeProto]) -> str:
    """Advise to leave convolutions in float, by the paths of their modules where those are known.

    Weights that PyTorch exported are named `model.0.conv.weight`, those of yqc alike.
    """
    weights = [g.weight(node) for node in nodes]
    paths = [w.input[0].rpartition(".")[0] for w in weights if w is not None]
    known = f": int8{{skip={format_value(tuple(paths))}}}" if all(paths) else ""
    return f"leave it in float{known}"
