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

MAX_STEPS = 10**6  # opcodes of a pickle: a few bytes each can create an object of 100 bytes


class _Dtype:
    """Replaces numpy.dtype in a pickle: types of plain numbers only, in a given byte order."""

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
    """Replaces numpy.ndarray in a pickle: NumPy's class would trust the sizes and types in it.

    `unpickle` returns the attribute `array` in its place.
    """

    def __init__(self, *_):
        self.array = np.empty(0)

    def __setstate__(self, state):
        _, shape, dtype, fortran, content = state
        self.array = _from_buffer(content, dtype, shape, "F" if fortran else "C").array


def _from_buffer(content, dtype, shape, order="C") -> ArrayStandIn:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("it holds an array without a type")
    holder = ArrayStandIn()
    holder.array = np.frombuffer(content, dtype.dtype).reshape(shape, order=as_text(order))
    return holder


def _scalar(dtype, content) -> Any:
    return _from_buffer(content, dtype, ()).array[()]


def _encode(text: str, encoding: str) -> bytes:
    if as_text(encoding) != "latin1":
        raise pickle.UnpicklingError(f"it encodes a text as {encoding}; only latin1 is allowed")
    return text.encode("latin1")


class AllowedCall:
    """A function that a pickle may call.

    The opcode BUILD, with which a pickle could set attributes of the function, is refused.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)

    def __setstate__(self, state):
        raise pickle.UnpicklingError("it sets attributes of a function that it may only call")


# The names that a pickle may use: NumPy writes arrays and scalars with them (the modules have an
# old and a new name), and Python 3 writes bytes with them in protocol 2. Each name stands for a
# function of this module, not for the function that it names.
_ALLOWED = {
    ("_codecs", "encode"): AllowedCall(_encode),
    ("__builtin__", "bytes"): AllowedCall(lambda: b""),
    ("collections", "OrderedDict"): AllowedCall(dict),
    ("numpy", "ndarray"): AllowedCall(ArrayStandIn),
    ("numpy", "dtype"): AllowedCall(_Dtype),
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = AllowedCall(ArrayStandIn)
    _ALLOWED[f"{_core}.multiarray", "scalar"] = AllowedCall(_scalar)
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = AllowedCall(_from_buffer)


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that allows NumPy arrays and plain containers only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _replace_stand_ins(value: Any, done: Dict[int, Any]) -> Any:
    """Replaces stand-ins with their arrays.

    Args:
        value: A part of the unpickled value.
        done: Results by the id of a container, so that a shared container is visited once.
    """
    if isinstance(value, ArrayStandIn):
        return value.array
    if isinstance(value, (dict, list, tuple)) and id(value) not in done:
        if isinstance(value, dict):
            result = {key: _replace_stand_ins(part, done) for key, part in value.items()}
        else:
            result = type(value)(_replace_stand_ins(part, done) for part in value)
        done[id(value)] = result
    return done.get(id(value), value)


def as_text(value: Any) -> Any:
    """Decodes bytes, since texts that Python 2 wrote are read as bytes; returns others as is."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def unpickle(content: bytes, where: str, reader: Callable = _ArrayUnpickler) -> Any:
    """Reads a pickle of arrays and plain containers, without running code in it.

    Args:
        content: The pickle.
        where: Where it is from, for messages.
        reader: The class of unpickler; it decides which names are allowed.

    Returns:
        The value; texts that Python 2 wrote are bytes.

    Raises:
        UserError: If the pickle is damaged, or names anything but arrays and containers.
    """
    try:
        _check_opcodes(content)
        file = io.BytesIO(content)
        value = _replace_stand_ins(reader(file, encoding="bytes").load(), {})
        if file.read(1):
            raise pickle.UnpicklingError("it has bytes after its end")
        return value
    except Exception as error:  # damaged pickles raise many types of errors
        raise UserError(
            f"{where} is not a pickle of arrays and plain containers ({error}). Reading stopped "
            "there: anything else is refused, since a pickle can run code."
        ) from None


def _check_opcodes(content: bytes) -> None:
    """Refuses pickles of a few bytes that would take much memory."""
    for number, (code, argument, _) in enumerate(pickletools.genops(content)):
        if number == MAX_STEPS:
            raise pickle.UnpicklingError(f"it is made in more than {MAX_STEPS} steps")
        # An unpickler allocates its memo up to the largest index.
        if code.name.endswith("PUT") and argument > len(content):
            raise pickle.UnpicklingError("it uses a memo index larger than its own size")
