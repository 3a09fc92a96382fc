"""Apply the rules of one runtime to every node of a file."""

from pathlib import Path

import onnx

from yqc.errors import CheckpointError
from yqc.linting import onnxruntime, openvino, tensorrt
from yqc.linting.device import DeviceRules
from yqc.linting.finding import Finding
from yqc.linting.graph import Graph
from yqc.linting.readers import READERS
from yqc.linting.shared import LintRule
from yqc.onnx_file import check_onnx, is_sound, require_opens
from yqc.targets import find_target

RULES: dict[str, tuple[LintRule, ...]] = {
    "portable": onnxruntime.SATURATION,
    "onnxruntime": onnxruntime.RULES,
    "openvino": openvino.RULES,
    "tensorrt": tensorrt.RULES,
    **READERS,
}
"""The rules of each target, and of readers of files that are none."""
ORDER = ("error", "warning", "note")


def find_runtime(name: str) -> str:
    """Return the name of a target, for its name or an alias, of a reader, or a device's file.

    Raises:
        PipelineError: there is none.
    """
    word = name.lower()
    return word if word in READERS else find_target(name).name


def rules_of(name: str) -> tuple[LintRule, ...]:
    """Return the rules of a target or reader; of a device's file, those of its base and its limits.

    A target of a user has those of `portable` and its limits.

    Raises:
        PipelineError: there is no such target, reader or file.
    """
    if name in RULES:
        return RULES[name]
    target = find_target(name)
    return (*RULES.get(target.base or target.name, RULES["portable"]), DeviceRules(target))


def lint(source: Path | onnx.ModelProto, target: str = "onnxruntime") -> list[Finding]:
    """List the nodes that a runtime refuses, saturates or leaves unfused: what is refused first.

    Args:
        source: a file, or the model in it.
        target: a target of a compile, the file of a device, or a reader of ONNX files: `opencv`,
            `mnn`, `ncnn`. The target `portable` looks for what goes wrong on any CPU.

    Raises:
        PipelineError: there is no such target or reader.
        CheckpointError: the file cannot be read as ONNX, or no runtime can open it.
    """
    name = find_runtime(target)
    if isinstance(source, Path):
        path, source = source, check_onnx(source)
        if name in {"onnxruntime", "portable"} or not is_sound(source):
            require_opens(path)
    try:
        graph = Graph(source)
        place = {node.name: i for i, node in enumerate(graph.nodes)}
        found = [finding for rule in rules_of(name) for finding in rule(graph)]
    except (LookupError, ValueError, TypeError) as error:
        raise CheckpointError(f"the ONNX graph is malformed: {error!r}") from error
    return sorted(found, key=lambda f: (ORDER.index(f.severity), f.group, place.get(f.node, 0)))
