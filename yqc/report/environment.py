"""What the numbers of a report depend on apart from the model."""

import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What the numbers depend on apart from the input: versions, machine, threads, seed."""

    python: str
    torch: str | None
    onnx: str | None
    onnxruntime: str | None
    onnxsim: str | None
    numpy: str | None
    platform: str
    cpu: str
    threads: int
    seed: int

    @classmethod
    def here(cls, *, threads: int, seed: int) -> Self:
        """Describe this process without importing any of the packages that it names."""
        return cls(
            python=platform.python_version(),
            torch=_version("torch"),
            onnx=_version("onnx"),
            onnxruntime=_version("onnxruntime"),
            onnxsim=_version("onnxsim"),
            numpy=_version("numpy"),
            platform=platform.platform(),
            cpu=_cpu(),
            threads=threads,
            seed=seed,
        )


def _version(package: str) -> str | None:
    """Version of an installed package; of the imported one if it is installed by another name."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        version = getattr(sys.modules.get(package), "__version__", None)
        return None if version is None else str(version)


def _cpu() -> str:
    """Name of the processor as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
