"""Apply the rules of one runtime to every node of a file."""

from collections.abc import Callable, Iterator
from pathlib import Path

import onnx

from yqc.errors import CheckpointError
from yqc.linting import onnxruntime, openvino, tensorrt
from yqc.linting.finding import Finding
from yqc.linting.graph import Graph
from yqc.targets import TargetName, find_target

LintRule = Callable[[Graph], Iterator[Finding]]

RULES: dict[TargetName, tuple[LintRule, ...]] = {
    "portable": onnxruntime.SATURATION,
    "onnxruntime": onnxruntime.RULES,
    "openvino": openvino.RULES,
    "tensorrt": tensorrt.RULES,
}
ORDER = ("error", "warning", "note")


def lint(source: Path | onnx.ModelProto, target: str = "onnxruntime") -> list[Finding]:
    """List the nodes that a runtime refuses, saturates or leaves unfused: what is refused first.

    The target `portable` looks for what goes wrong on any CPU.

    Raises:
        CheckpointError: the file cannot be read as ONNX.
    """
    if isinstance(source, Path):
        try:
            source = onnx.load(source)
        except Exception as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"{source} cannot be read as an ONNX file: {first}") from error
    graph = Graph(source)
    place = {node.name: i for i, node in enumerate(graph.nodes)}
    found = [finding for rule in RULES[find_target(target).name] for finding in rule(graph)]
    return sorted(found, key=lambda f: (ORDER.index(f.severity), f.rule, place.get(f.node, 0)))
