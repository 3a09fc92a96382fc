"""The same input, options, seed and thread count: the same bytes, in the file and in the report."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMPILE = """
import sys
import torch
import yqc
torch.set_num_threads(1)
checkpoint, data, passes, output = sys.argv[1:]
yqc.compile(checkpoint, passes, data=data, calib_images=4, output=output, html=False, latency=False)
"""
TIMES = {"seconds", "latency", "baseline"}
"""Times, and whether the float model was measured or its accuracy kept."""


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    """Each with hashes of text of its own, so that no order of a set can matter."""
    made = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        arguments = [str(checkpoint), str(data), "int4,int8", "x.onnx"]
        subprocess.run(  # noqa: S603  # our own script
            [sys.executable, "-W", "ignore", "-c", COMPILE, *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONHASHSEED": str(number)},
            check=True,
        )
        report = json.loads((folder / "x.report.json").read_text())
        made.append(
            (
                (folder / "x.onnx").read_bytes(),
                without_times(report),
                (folder / "x.recipe.toml").read_bytes(),
            )
        )
    assert made[0] == made[1]
