"""Compute weights that `torch.nn.utils` stores in parts, as its hooks compute them at inference.

    prune           weight_orig * weight_mask
    weight_norm     g * v / |v|, the norm over the axes that g does not have (Salimans, Kingma 2016)
    spectral_norm   W / (u^T W v), W as a matrix, u and v as stored (Miyato et al. 2018)

The parts stand under the names of the hooks (`weight_g`, `weight_v`) or of the parametrizations
(`parametrizations.weight.original0`, `.original1`).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

HOOKS = ("torch.nn.utils.prune.", "torch.nn.utils.weight_norm.", "torch.nn.utils.spectral_norm.")
"""Where the classes of the hooks live that compute a weight before each forward."""


def apply_mask(weight: Tensor, mask: Tensor) -> Tensor:
    """Apply a mask of pruning."""
    return weight * mask


def scale_directions(g: Tensor, v: Tensor) -> Tensor:
    """Scale the directions `v` to the lengths `g`."""
    over = [d for d in range(v.ndim) if g.ndim != v.ndim or g.shape[d] == 1]
    length: Tensor = torch.linalg.vector_norm(v, dim=over, keepdim=True)
    return v * (g / length)


def divide_by_norm(weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Divide a weight by its largest singular value, which `u` and `v` stand for."""
    axis = next((d for d in (0, 1) if weight.shape[d : d + 1] == u.shape), 0)
    rows = weight.movedim(axis, 0).flatten(1)
    return weight / torch.dot(u, torch.mv(rows, v))


FORMS: tuple[tuple[tuple[str, ...], Callable[..., Tensor]], ...] = (
    (("{base}_orig", "{base}_mask"), apply_mask),
    (("{base}_g", "{base}_v"), scale_directions),
    (("{base}_orig", "{base}_u", "{base}_v"), divide_by_norm),
    (("{new}.original0", "{new}.original1"), scale_directions),
    (("{new}.original", "{new}.0._u", "{new}.0._v"), divide_by_norm),
)
"""Names of the parts, `new` being `parametrizations.<name>`, and what computes the weight."""


def join_parts(
    tensors: Mapping[str, Tensor], wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, Tensor]:
    """Replace the parts of weights by the weights.

    Args:
        tensors: by name, such as `model.0.conv.weight_g`; floats of one dtype.
        wanted: whether a name, such as `model.0.conv.weight`, may be that of a weight in parts;
            one that is there already is never replaced.

    Returns:
        The tensors, those that are no parts as they are. Parts whose shapes do not fit stay.
    """
    found = dict(tensors)
    for base in dict.fromkeys(filter(None, map(_base, tensors))):
        owner, _, name = base.rpartition(".")
        new = f"{owner}.parametrizations.{name}".removeprefix(".")
        for names, compute in FORMS:
            parts = [part.format(base=base, new=new) for part in names]
            if base in found or not wanted(base) or not all(part in found for part in parts):
                continue
            try:
                found[base] = compute(*(found[part] for part in parts))
            except RuntimeError:
                continue
            for part in parts:
                del found[part]
    return found


def _base(name: str) -> str | None:
    """Return the name of the weight whose first part this is, or None."""
    owner, middle, rest = name.rpartition("parametrizations.")
    if middle and rest.count(".") == 1 and rest.endswith((".original", ".original0")):
        return owner + rest.partition(".")[0]
    for ending in ("_orig", "_g"):
        if name.endswith(ending):
            return name.removesuffix(ending)
    return None
