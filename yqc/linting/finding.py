"""A finding: what a rule reports of one node."""

from dataclasses import dataclass
from typing import Literal, Self

from onnx import NodeProto

Severity = Literal["error", "warning", "note"]
"""The runtime refuses the file; it runs slower or less exactly than it could; for information."""


@dataclass(frozen=True)
class Finding:
    """A node, what is wrong with it, and what to do."""

    node: str
    op: str
    rule: str
    severity: Severity
    what: str
    fix: str

    @classmethod
    def at(cls, node: NodeProto, rule: str, severity: Severity, what: str, fix: str) -> Self:
        """Make a finding about a node."""
        return cls(node.name, node.op_type, rule, severity, what, fix)
