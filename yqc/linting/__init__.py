"""What a runtime will make of an ONNX file's nodes: unsupported, saturating, or not fused."""

from yqc.linting.check import lint
from yqc.linting.finding import Finding, Severity

__all__ = ["Finding", "Severity", "lint"]
