"""The environment of a compile: versions, machine, threads and seed."""

import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Self

from yqc.report.contract import Part

PACKAGES = ("torch", "onnx", "onnxruntime", "onnxsim", "numpy")

INT8_PRODUCTS = {"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm"}
"""Flags in Linux's /proc/cpuinfo: VNNI and AMX of x86, dot product and matrix product of ARM."""


@dataclass(frozen=True, kw_only=True)
class Environment(Part):
    """Versions, machine, threads and seed that the numbers of a report were measured with."""

    python: str
    torch: str | None
    onnx: str | None
    onnxruntime: str | None
    onnxsim: str | None
    numpy: str | None
    platform: str
    cpu: str
    threads: int
    """Of the runtime that measured."""
    torch_threads: int | None
    """Of PyTorch, whose sums are rounded by it; None where PyTorch computed nothing."""
    seed: int

    @classmethod
    def here(cls, *, threads: int, seed: int, torch_threads: int | None = None) -> Self:
        """Describe this process without importing any of the packages that it names."""
        return cls(
            python=platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
            platform=platform.platform(),
            cpu=cpu_name(),
            threads=threads,
            torch_threads=torch_threads,
            seed=seed,
        )


def _version(package: str) -> str | None:
    """Return the version of an installed package, or of the module if that is all there is."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        version = getattr(sys.modules.get(package), "__version__", None)
        return None if version is None else str(version)


def has_int8_products() -> bool | None:
    """Return whether the processor has int8 dot products, None where the system does not say."""
    words = {
        word for line in _cpu_values("flags") + _cpu_values("Features") for word in line.split()
    }
    return bool(words & INT8_PRODUCTS) if words else None


def cpu_name() -> str:
    """Return the name of the processor that the system gives."""
    names = _cpu_values("model name")
    return names[0] if names else platform.processor() or platform.machine()


def _cpu_values(key: str) -> list[str]:
    """Return what Linux says of the first processor under a key, an empty list for nothing."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", errors="replace").splitlines() if info.is_file() else []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(key)][:1]
