"""Rounded layers in a compile's cache, so that an interrupted compile goes on where it was."""

from typing import Any, Protocol

from torch import Tensor, fx

from yqc.quant.weights.rounded import RoundedLayer
from yqc.quant.weights.scheme import Scheme


class TensorCache(Protocol):
    """Keeps tensors and plain values under names; the folder cache of a compile is one."""

    def load(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return the entry of a name, or None."""
        ...

    def save(self, name: str, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Write an entry."""
        ...


class LayerStore:
    """Keeps rounded layers in a cache; the key hashes the graph, the plan and the settings."""

    def __init__(self, cache: TensorCache, key: str) -> None:
        self.cache, self.key = cache, key

    def load(self, node: fx.Node, scheme: Scheme, shape: tuple[int, ...]) -> RoundedLayer | None:
        """Return a layer that was rounded before the interruption, or None."""
        kept = self.cache.load(f"rounded-{self.key}-{node.name}")
        return None if kept is None else RoundedLayer.from_parts(*kept, scheme, shape)

    def save(self, node: fx.Node, layer: RoundedLayer) -> None:
        """Write a rounded layer."""
        self.cache.save(f"rounded-{self.key}-{node.name}", *layer.to_parts())
