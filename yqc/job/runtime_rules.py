"""Check an emitted model by the rules of the runtime that it was compiled for."""

import platform

import onnx

from yqc.linting import Finding, count_ops, group_findings, lint, name_nodes
from yqc.report.environment import has_int8_products
from yqc.targets import find_target

X86 = frozenset({"x86_64", "AMD64", "i686"})
"""What `platform.machine()` says of processors whose int8 kernels saturate without VNNI."""


def check_rules(model: onnx.ModelProto, target: str) -> tuple[str, ...]:
    """Say in a sentence a rule what the target's runtime refuses, computes wrong or runs slower.

    Notes are left out: they are about choices of the passes, or about other processors. Only
    saturation is said where this processor does it, since accuracy was measured so. What is beyond
    the limits of a device's file stands in another part of the report.
    """
    target = find_target(target).base or target
    groups = group_findings(lint(model, target))
    return tuple(write_sentence(target, group) for group in groups if is_urgent(group[0]))


def is_urgent(finding: Finding) -> bool:
    """Return whether the user must act on a finding."""
    if finding.rule == "saturation":
        return platform.machine() in X86 and has_int8_products() is False
    return finding.severity != "note"


def write_sentence(target: str, group: list[Finding]) -> str:
    """Say what one rule found: what is wrong, at how many nodes, the first of them, what to do."""
    first = group[0]
    return (
        f"lint for {target}: {count_ops(group)}: {first.what} [{first.rule}], "
        f"at {name_nodes(group)}; {first.fix}"
    )
