"""Find the weights in a file that holds no architecture, under the names of a model's layers.

Such files are saved by many hands: bare or in a mapping beside other things, of the model, of its
layers, or of wrappers around it, and in the format of safetensors.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from torch import Tensor

from yqc.errors import CheckpointError

LAYER = re.compile(r"((?:[A-Za-z_]\w*\.)*)(\d+\..+)")
"""What stands before the number of a layer, and the rest."""
COMPILED = "_orig_mod."
"""What `torch.compile` puts before the names of a module."""
MOST_LEVELS = 4
"""Mappings within one another that are looked into: trainers keep weights one or two deep."""
SAFETENSORS_LIMIT = 4 << 30
"""Bytes of a safetensors file: the largest YOLO has 1 GB in float32. Half refuses nothing known."""


def find_weights(top: object) -> dict[str, Tensor]:
    """Find the weights of a model's layers, named `model.0. ...`; empty where there are none.

    Of several sets the largest is taken, of equal ones an average of weights (`ema`).
    """
    sets = [(len(tensors), "ema" in path, tensors) for path, tensors in _sets(top, "")]
    if not sets:
        return {}
    best = max(sets, key=lambda found: found[:2])
    return name_by_layers(best[2])


def _sets(value: object, path: str, level: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the tensors of each mapping that names layers, and the keys that lead there."""
    if not isinstance(value, Mapping) or level == MOST_LEVELS:
        return
    named = {k: v for k, v in value.items() if isinstance(k, str)}
    tensors = {k: v for k, v in named.items() if isinstance(v, Tensor)}
    if any(map(LAYER.fullmatch, tensors)):
        yield path, tensors
    for key, part in named.items():
        yield from _sets(part, f"{path}.{key}".lower(), level + 1)


def name_by_layers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name weights as the projects' models do, `model.<layer>.<name>`.

    The prefix before the layer's number that occurs most often (`module.`, `model.model.`,
    `_orig_mod.`, none) is replaced; other names stay.
    """
    plain = {key.replace(COMPILED, ""): tensor for key, tensor in tensors.items()}
    matches = {key: found for key in plain if (found := LAYER.fullmatch(key)) is not None}
    prefixes = Counter(found[1] for found in matches.values())
    usual = prefixes.most_common(1)[0][0] if prefixes else ""
    return {
        f"model.{matches[key][2]}" if key in matches and matches[key][1] == usual else key: tensor
        for key, tensor in plain.items()
    }


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: the length of a JSON header, and its brace."""
    try:
        if not path.is_file():  # a pipe would wait for a writer
            return False
        with path.open("rb") as file:
            head = file.read(9)
            length = int.from_bytes(head[:8], "little")
            return head[8:] == b"{" and 0 < length < path.stat().st_size
    except OSError:
        return False


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read a safetensors file; return its tensors and the SHA-256 of the bytes read.

    Raises:
        CheckpointError: it is damaged or too large.
    """
    try:
        if path.stat().st_size > SAFETENSORS_LIMIT:
            raise CheckpointError(f"it has more than {SAFETENSORS_LIMIT >> 30} GiB; refused")
        data = path.read_bytes()
        return parse_safetensors(data), hashlib.sha256(data).hexdigest()
    except OSError as error:
        raise CheckpointError(f"it cannot be opened: {error.strerror or error}") from error
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"it is a damaged safetensors file ({error})") from error
