"""Files of a small detector, float and int8, that the clients are given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import yqc

Compiled = Callable[..., Path]


@pytest.fixture(scope="session")
def compiled(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Compiles the checkpoint, each combination once."""
    folder, made = tmp_path_factory.mktemp("clients"), dict[str, Path]()

    def make(passes: str, target: Any = "portable", **choices: Any) -> Path:
        key = f"{passes}-{target}-{'-'.join(map(str, choices.values()))}"
        if key not in made:
            made[key] = folder / f"{len(made)}.onnx"
            if "int8" in passes:
                choices |= {"data": data, "calib_images": 8}
            yqc.compile(
                checkpoint,
                passes,
                output=made[key],
                target=target,
                evaluate=False,
                html=False,
                **choices,
            )
        return made[key]

    return make


@pytest.fixture(scope="session")
def images() -> Any:
    """float32 [4, 3, 64, 64] of seeded noise, blurred so that it has something like objects."""
    noise = np.random.default_rng(2).random((4, 3, 16, 16), np.float32)
    return noise.repeat(4, 2).repeat(4, 3)
