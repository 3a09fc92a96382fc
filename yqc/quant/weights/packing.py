"""Pack codes of 1 to 8 bits into bytes without padding between them, and unpack them.

A code of `bits` bits is split into *planes* of 8, 4, 2 and 1 bits, the highest first:

    bits      8    7      6    5    4    3    2    1
    planes    8    4 2 1  4 2  4 1  4    2 1  2    1

A plane of b bits holds 8 / b values a byte. A plane of 4 bits is ordered as ONNX orders INT4: value
2i in the low half of byte i, value 2i + 1 in the high half. Planes of 2 and 1 bits are planes of 4
bits whose values were folded: with n values padded to a multiple of 4 / b, the value at i lies in
the low bits of nibble i, the next ones at i + n', i + 2n', ..., where n' is the number of nibbles.
So an ONNX graph unpacks them with Floor and Concat alone (`yqc.emit.packed`), and 4-bit codes
are byte for byte what an INT4 or UINT4 initialiser stores.
"""

import torch
from torch import Tensor

PLANES = {8: (8,), 7: (4, 2, 1), 6: (4, 2), 5: (4, 1), 4: (4,), 3: (2, 1), 2: (2,), 1: (1,)}
"""Widths of the planes of a code, by its number of bits, the highest bits first."""


def plane_bytes(count: int, width: int) -> int:
    """Return the bytes of a plane of `count` values of `width` bits."""
    return (nibbles(count, width) + 1) // 2 if width < 8 else count  # noqa: PLR2004  # a byte


def nibbles(count: int, width: int) -> int:
    """Return the number of four-bit values that hold `count` values of 4, 2 or 1 bits."""
    per = 4 // width
    return (count + per - 1) // per


def packed_bytes(count: int, bits: int) -> int:
    """Return the bytes of `count` codes of `bits` bits."""
    return sum(plane_bytes(count, width) for width in PLANES[bits])


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack integers in 0 .. 2^bits - 1, of any shape: uint8 [packed_bytes(codes.numel(), bits)].

    Raises:
        ValueError: a code does not fit, or `bits` is not 1 to 8.
    """
    if bits not in PLANES:
        raise ValueError(f"codes have 1 to 8 bits, not {bits}")
    flat = codes.reshape(-1).to(torch.int16)
    if flat.numel() and (int(flat.min()) < 0 or int(flat.max()) >= 1 << bits):
        raise ValueError(f"codes of {bits} bits lie in 0..{(1 << bits) - 1}")
    parts, left = [], bits
    for width in PLANES[bits]:
        left -= width
        parts.append(_pack_plane((flat >> left) & ((1 << width) - 1), width))
    return torch.cat(parts)


def unpack(packed: Tensor, count: int, bits: int) -> Tensor:
    """Undo `pack`: uint8 [count].

    Raises:
        ValueError: the number of bytes is not the one that `count` codes take.
    """
    codes = torch.zeros(count, dtype=torch.uint8, device=packed.device)
    for part, width in zip(planes(packed, count, bits), PLANES[bits], strict=True):
        values = part if width == 8 else _unfold(_halves(part, nibbles(count, width)), count, width)  # noqa: PLR2004
        codes = (codes << width) | values
    return codes


def planes(packed: Tensor, count: int, bits: int) -> list[Tensor]:
    """Split packed codes into the bytes of each plane, in the order of `PLANES[bits]`.

    Raises:
        ValueError: the number of bytes is not the one that `count` codes take.
    """
    if packed.numel() != packed_bytes(count, bits):
        raise ValueError(
            f"{count} codes of {bits} bits take {packed_bytes(count, bits)} bytes, "
            f"not {packed.numel()}"
        )
    sizes = [plane_bytes(count, width) for width in PLANES[bits]]
    return list(torch.split(packed, sizes))


def plane_nibbles(part: Tensor, count: int, width: int) -> Tensor:
    """Return the four-bit values of a plane of 4, 2 or 1 bits: uint8 [nibbles(count, width)]."""
    return _halves(part, nibbles(count, width))


def signed(codes: Tensor, bits: int) -> Tensor:
    """Return codes, uint8, as two's complement numbers of `bits` bits: int8."""
    half = 1 << (bits - 1)
    return ((codes.to(torch.int16) ^ half) - half).to(torch.int8)


def unsigned(values: Tensor, bits: int) -> Tensor:
    """Undo `signed`: integers in -2^(bits-1) .. 2^(bits-1) - 1 as codes, uint8."""
    return (values.to(torch.int16) & ((1 << bits) - 1)).to(torch.uint8)


def _pack_plane(values: Tensor, width: int) -> Tensor:
    if width == 8:  # noqa: PLR2004
        return values.to(torch.uint8)
    per, length = 4 // width, nibbles(values.numel(), width)
    padded = torch.nn.functional.pad(values, (0, per * length - values.numel())).view(per, length)
    shifts = torch.arange(per, dtype=torch.int16, device=values.device).view(-1, 1) * width
    folded = (padded << shifts).sum(0, dtype=torch.int16)
    folded = torch.nn.functional.pad(folded, (0, length % 2))
    return (folded[0::2] | (folded[1::2] << 4)).to(torch.uint8)


def _halves(part: Tensor, count: int) -> Tensor:
    return torch.stack([part & 0xF, part >> 4], 1).view(-1)[:count]


def _unfold(values: Tensor, count: int, width: int) -> Tensor:
    if width == 4:  # noqa: PLR2004
        return values
    mask = (1 << width) - 1
    return torch.cat([(values >> shift) & mask for shift in range(0, 4, width)])[:count]
