"""A finding: what a rule reports of one node; and findings as text, a rule at a time."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from onnx import NodeProto
from rich.console import Group, RenderableType

from yqc.report import Shown, render
from yqc.report.layout import Trimmed, hanging, say

Severity = Literal["error", "warning", "note"]
"""The runtime refuses the file, or computes it wrong; it runs slower or less exactly than it could;
for information."""
SHOWN = 4
"""Nodes that are named of a rule: four names of a YOLO graph fill a line of 80."""


@dataclass(frozen=True)
class Finding:
    """A node, what is wrong with it, and what to do."""

    node: str
    op: str
    rule: str
    severity: Severity
    what: str
    fix: str

    @property
    def group(self) -> tuple[str, ...]:
        """What findings that are shown together have in common."""
        return (self.severity, self.rule)

    @classmethod
    def at(cls, node: NodeProto, rule: str, severity: Severity, what: str, fix: str) -> Self:
        """Make a finding about a node."""
        return cls(node.name, node.op_type, rule, severity, what, fix)


@dataclass(frozen=True)
class LintResult(Shown):
    """What is wrong with a file for a runtime; it prints a line a rule."""

    model: str
    target: str
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> int:
        """How many nodes the runtime refuses or computes wrong."""
        return sum(finding.severity == "error" for finding in self.findings)


@render.register
def lint_page(found: LintResult) -> RenderableType:
    """List the rules that found something: where, and what to do."""
    if not found.findings:
        return say(f"{found.model}: nothing that {found.target} would mind")
    lines: list[RenderableType] = []
    for group in group_findings(found.findings):
        one = group[0]
        lines += [
            say(f"{one.severity}: {count_ops(group)}: {one.what} [{one.rule}]"),
            hanging("    at  ", name_nodes(group)),
            hanging("    fix ", one.fix),
        ]
    return Trimmed(Group(*lines))


def group_findings(found: Sequence[Finding]) -> Iterator[list[Finding]]:
    """Yield the findings of one group together; `found` is in the order of `lint`."""
    for _, group in itertools.groupby(found, lambda f: f.group):
        yield list(group)


def count_ops(group: Sequence[Finding]) -> str:
    """Write the number of findings of a rule, with the operators that it found: `7 x Add, Mul`."""
    return f"{len(group)} x {', '.join(sorted({finding.op for finding in group}))}"


def name_nodes(group: Sequence[Finding]) -> str:
    """Name the first nodes that a rule found, and count the others."""
    names = ", ".join(finding.node for finding in group[:SHOWN])
    return f"{names} and {len(group) - SHOWN} more" if len(group) > SHOWN else names
