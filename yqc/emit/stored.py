"""Weights and biases that one decoder makes, as lowerings hand them over."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from yqc.quant.weights.rice import Planes

BYTE = 8


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """A weight as codes, with what decodes them."""

    name: str
    """Of the value that the decoder makes."""
    shape: tuple[int, ...]
    bits: int
    codes: Tensor
    """uint8 [n], row by row; of a symmetric weight: integers plus 2^(bits-1)."""
    scale: Tensor
    """float16 or float32 [S], one for n / S weights each."""
    zero: Tensor | None = None
    """uint8 [S], the codes of zero; None for symmetric weights and tables."""
    table: Tensor | None = None
    """float16 [T, 2^bits], one for S / T scales each."""
    integers: bool = False
    """Whether the result is rounded to int8 and dequantized."""

    @property
    def rows(self) -> int:
        """How many scales there are, each for a row of weights."""
        return self.scale.numel()

    @property
    def row(self) -> int:
        """How many weights share a scale."""
        return self.codes.numel() // self.scale.numel()

    @property
    def channel(self) -> int:
        """How many weights an output channel has."""
        return self.codes.numel() // self.shape[0]

    @property
    def fits_int8(self) -> bool:
        """Whether its levels are integers of int8 with one scale for each output channel."""
        uniform = self.table is None and self.row == self.channel
        return uniform and (self.bits < BYTE or self.zero is None)

    @property
    def stream(self) -> tuple[int, bool, bool]:
        """What weights have in common that are stored together."""
        return self.bits, self.table is not None, self.scale.dtype == torch.float32

    @property
    def group(self) -> tuple[int, bool, int]:
        """What weights of a stream have in common that are decoded together."""
        return self.row, self.zero is None, self.channel if self.integers else 0


@dataclass(frozen=True, eq=False)
class StoredRice:
    """A weight as integers in codes of variable length."""

    name: str
    """Of the value that the decoder makes."""
    shape: tuple[int, ...]
    levels: Tensor
    """Integers [n], row by row."""
    low: int
    """The Rice parameter."""
    planes: Planes
    scale: Tensor
    """float16 []."""
    exponents: Tensor
    """uint8 [channels], 0 .. 15."""
    integers: bool = False
    """Whether the result is rounded to int8 and dequantized."""

    @property
    def rows(self) -> int:
        """How many output channels there are."""
        return self.shape[0]

    @property
    def channel(self) -> int:
        """How many weights an output channel has."""
        return self.levels.numel() // self.rows

    @property
    def fits_int8(self) -> bool:
        """Whether all integers are in -127 .. 127."""
        return int(self.levels.abs().max()) <= 127  # noqa: PLR2004  # int8

    @property
    def group(self) -> tuple[int, int, bool, bool]:
        """What weights have in common that are decoded together; large parameters come first."""
        return -self.low, self.channel, self.integers, self.integers and not self.fits_int8


@dataclass(frozen=True, eq=False)
class StoredBias:
    """A bias as integers of two bytes and one scale."""

    name: str
    steps: Tensor
    """int16 [channels]."""
    scale: Tensor
    """float32 []."""


@dataclass(kw_only=True)
class StoredValues:
    """What a file's decoder makes, by the names of the values."""

    opset: int = 18
    """What codes of fewer than 8 bits need: 18 for BitwiseAnd, 21 for UINT4."""
    weights: dict[str, StoredWeight | StoredRice] = field(default_factory=dict)
    biases: dict[str, StoredBias] = field(default_factory=dict)

    def add(self, stored: StoredWeight | StoredRice | StoredBias) -> str:
        """Take a weight or a bias; return the name of its value."""
        if isinstance(stored, StoredBias):
            self.biases[stored.name] = stored
        else:
            self.weights[stored.name] = stored
        return stored.name

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the values, all float32, by their names."""
        biases = {name: tuple(bias.steps.shape) for name, bias in self.biases.items()}
        return {name: weight.shape for name, weight in self.weights.items()} | biases
