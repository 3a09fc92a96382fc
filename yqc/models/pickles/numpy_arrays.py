"""Rebuild numpy arrays and scalars of a pickle from arguments that were checked first.

numpy pickles an array as `_reconstruct(ndarray, (0,), b"b")` and a state (version, shape, dtype,
is_fortran, bytes), with protocol 5 as `_frombuffer(bytes, dtype, shape, order)`, and a scalar as
`scalar(dtype, bytes)`; a dtype is `dtype("f8", False, True)` and a state with its byte order.
"""

import math
import re

import numpy as np
import numpy.typing as npt

from yqc.models.pickles.values import Allowance, Inert, MalformedError, Named

DTYPE = "numpy.dtype"
MAX_DIMS, MAX_SIDE, MAX_WIDTH = 32, 1 << 31, 1 << 16

_CODE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16|[SU]([1-9]\d{0,4})", re.ASCII)
_BLANK = np.dtype("V1")
"""The dtype of an array whose state has not come yet; `_CODE` admits no such dtype."""

AnyArray = npt.NDArray[np.generic]


def blank(args: tuple[object, ...], _: Allowance) -> object:
    """Rebuild `_reconstruct(ndarray, (0,), b"b")`: an empty array that `set_state` fills."""
    match args:
        case (Named(path="numpy.ndarray"), tuple(), bytes() | str()):
            return np.empty(0, _BLANK)
    raise MalformedError("it holds a numpy array of an unknown kind")


def set_state(array: AnyArray, state: object, allowance: Allowance) -> None:
    """Fill an array that `blank` made, in place, so that every reference to it sees the numbers."""
    match state:
        case (int(), tuple(shape), dtype, bool(fortran), raw) if array.dtype == _BLANK:
            kind, data = _dtype(dtype), _bytes(raw, allowance)
            checked = (1, _shape(shape, kind, data), kind, fortran, data)
            array.__setstate__(checked)  # type: ignore[arg-type] # numpy wants bool, its stub np.bool
        case _:
            raise MalformedError("it holds a numpy array with a state that numpy never writes")


def from_buffer(args: tuple[object, ...], allowance: Allowance) -> object:
    """Rebuild the array of `_frombuffer(bytes, dtype, shape, order)`."""
    match args:
        case (raw, dtype, tuple(shape), "C" | "F" as order):
            kind, data = _dtype(dtype), _bytes(raw, allowance)
            sides = _shape(shape, kind, data)
            filled = np.ndarray(sides, kind, bytearray(data), order=order) if data else None
            return np.empty(sides, kind) if filled is None else filled
    raise MalformedError("it holds a numpy array of an unknown kind")


def scalar(args: tuple[object, ...], allowance: Allowance) -> object:
    """Rebuild `scalar(dtype, bytes)` as a Python number; datetime64 and the like as `Inert`."""
    match args:
        case (Inert(class_path=path) as dtype, bytes() | str() as raw) if path == DTYPE:
            try:
                kind = _dtype(dtype)
            except MalformedError:
                return Inert("numpy.scalar", args)
            data = _bytes(raw, allowance)
            _shape((), kind, data)
            return np.frombuffer(data, kind)[0].item()
    raise MalformedError("it holds a numpy scalar of an unknown kind")


def _dtype(value: object) -> np.dtype[np.generic]:
    """Return the dtype of a `numpy.dtype` object of the pickle."""
    match value:
        case Inert(class_path=path, args=(str(code), *_), state=state) if path == DTYPE:
            match state.get("__setstate__"):
                case None | (int(), "|" | "=" | "<", None, None, None, int(), int(), int()):
                    big = False
                case (int(), ">", None, None, None, int(), int(), int()):
                    big = True
                case _:
                    raise MalformedError("it holds a numpy array of records or dates")
            found = _CODE.fullmatch(code)
            if found and int(found[1] or 1) <= MAX_WIDTH:
                return np.dtype(code).newbyteorder(">" if big else "<")
            raise MalformedError(f"it holds a numpy array of the type {code[:20]!a}")
    raise MalformedError("it holds a numpy array without a type")


def _bytes(raw: object, allowance: Allowance) -> bytes:
    if isinstance(raw, str):  # Python 2 wrote its byte strings so.
        raw = raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray):
        raise MalformedError("it holds a numpy array without its bytes")
    allowance.spend("bytes", len(raw))
    return bytes(raw)


def _shape(shape: tuple[object, ...], kind: np.dtype[np.generic], data: bytes) -> tuple[int, ...]:
    sides = tuple(side for side in shape if type(side) is int and 0 <= side < MAX_SIDE)
    if len(sides) != len(shape) or len(sides) > MAX_DIMS:
        raise MalformedError("it holds a numpy array with an impossible shape")
    if math.prod(sides) * kind.itemsize != len(data):
        raise MalformedError("it holds a numpy array whose bytes do not fill its shape")
    return sides
