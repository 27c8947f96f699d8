# SPDX-License-Identifier: Apache-2.0
"""Pickles of arrays and plain containers, read without running code."""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any
from typing import Callable
from typing import Dict

import numpy as np

from support.errors import UserError

MAX_STEPS = 10**6  # steps of a pickle: each of a few bytes can make an object of a hundred


class _Dtype:
    """Stands in for numpy.dtype in a pickle: plain numbers only, in a given byte order."""

    def __init__(self, code, *_):
        self.dtype = np.dtype(as_text(code))
        if self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"it holds an array of {self.dtype}")

    def __setstate__(self, state):
        _, order, subdtype, names, fields = state[:5]
        if any(part is not None for part in (subdtype, names, fields)):
            raise pickle.UnpicklingError("it holds an array of records")
        self.dtype = self.dtype.newbyteorder(as_text(order))


class ArrayStandIn:
    """Stands in for numpy.ndarray in a pickle; NumPy's own would trust sizes and types in it."""

    def __init__(self, *_):
        self.array = np.empty(0)

    def __setstate__(self, state):
        _, shape, dtype, fortran, content = state
        self.array = _from_buffer(content, dtype, shape, "F" if fortran else "C").array


def _from_buffer(content, dtype, shape, order="C") -> ArrayStandIn:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("it holds an array of no type")
    holder = ArrayStandIn()
    holder.array = np.frombuffer(content, dtype.dtype).reshape(shape, order=as_text(order))
    return holder


def _scalar(dtype, content) -> Any:
    return _from_buffer(content, dtype, ()).array[()]


def _encode(text: str, encoding: str) -> bytes:
    if as_text(encoding) != "latin1":
        raise pickle.UnpicklingError(f"it encodes a text as {encoding}")
    return text.encode("latin1")


class Admitted:
    """A function that a pickle may call; BUILD, by which it would set attributes, is refused."""

    __slots__ = ("function",)

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)

    def __setstate__(self, state):
        raise pickle.UnpicklingError("it sets attributes of what it may only call")


# What a pickle may name: how NumPy writes arrays and scalars (by its old and its new module
# names), and how Python 3 writes bytes in protocol 2. Each is ours, not the one named.
_ADMITTED = {
    ("_codecs", "encode"): Admitted(_encode),
    ("__builtin__", "bytes"): Admitted(lambda: b""),
    ("collections", "OrderedDict"): Admitted(dict),
    ("numpy", "ndarray"): Admitted(ArrayStandIn),
    ("numpy", "dtype"): Admitted(_Dtype),
}
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = Admitted(ArrayStandIn)
    _ADMITTED[f"{_core}.multiarray", "scalar"] = Admitted(_scalar)
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = Admitted(_from_buffer)


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that admits NumPy arrays and plain containers only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ADMITTED:
            return _ADMITTED[module, name]
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _without_stand_ins(value: Any, done: Dict[int, Any]) -> Any:
    """Replaces stand-ins by arrays; a part that is shared is visited once."""
    if isinstance(value, ArrayStandIn):
        return value.array
    if isinstance(value, (dict, list, tuple)) and id(value) not in done:
        if isinstance(value, dict):
            result = {key: _without_stand_ins(part, done) for key, part in value.items()}
        else:
            result = type(value)(_without_stand_ins(part, done) for part in value)
        done[id(value)] = result
    return done.get(id(value), value)


def as_text(value: Any) -> Any:
    """A text, also where Python 2 wrote it, which reads as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def unpickle(content: bytes, where: str, reader: Callable = _ArrayUnpickler) -> Any:
    """Reads a pickle of arrays and plain containers; texts of Python 2 become bytes.

    Args:
        content: The pickle.
        where: Where it comes from, for messages.
        reader: The unpickler, which decides what is admitted.

    Raises:
        UserError: If it is damaged, or names anything but arrays and containers.
    """
    try:
        # a number of a memo's place takes memory for all places before it
        for number, (code, argument, _) in enumerate(pickletools.genops(content)):
            if number == MAX_STEPS:
                raise pickle.UnpicklingError(f"it is made in more than {MAX_STEPS} steps")
            if code.name.endswith("PUT") and argument > len(content):
                raise pickle.UnpicklingError("it counts more parts than it has bytes")
        file = io.BytesIO(content)
        value = _without_stand_ins(reader(file, encoding="bytes").load(), {})
        if file.read(1):
            raise pickle.UnpicklingError("it goes on behind its end")
        return value
    except Exception as error:  # damaged pickles raise almost anything
        raise UserError(
            f"{where} is not a pickle of arrays and plain containers ({error}). It was not "
            "read any further: nothing else is admitted, since a pickle can run code."
        ) from None
