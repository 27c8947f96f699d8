# SPDX-License-Identifier: Apache-2.0
"""Pickles of arrays and plain containers, read without running code."""

from __future__ import annotations

import io
import pickle
from typing import Any
from typing import Callable
from typing import Dict
from typing import Optional

import numpy as np

from support.errors import UserError
from support.errors import printable
from support.layouts import check_shape
from support.opcodes import Budget
from support.opcodes import check_opcodes


class _Dtype:
    """Replaces numpy.dtype in a pickle: types of plain numbers only, in a given byte order."""

    def __init__(self, code, *_):
        code = as_text(code)
        # NumPy's own reader of types takes nested lists and long texts.
        if type(code) is not str or len(code) > 16:
            raise pickle.UnpicklingError("it holds an array of something else than plain numbers")
        self.dtype = np.dtype(code)
        if self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"it holds an array of {self.dtype}")

    def __setstate__(self, state):
        _, order, subdtype, names, fields = state[:5]
        if any(part is not None for part in (subdtype, names, fields)):
            raise pickle.UnpicklingError("it holds an array of records")
        if as_text(order) not in _ORDERS:
            raise pickle.UnpicklingError("it holds an array of an unknown byte order")
        self.dtype = self.dtype.newbyteorder(as_text(order))


_ORDERS = ["<", ">", "|", "="]  # a list: what is compared with it is not hashed


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
    if type(content) not in (bytes, bytearray):
        raise pickle.UnpicklingError("it holds an array without numbers")
    holder = ArrayStandIn()
    flat = np.frombuffer(content, dtype.dtype) if content else np.empty(0, dtype.dtype)
    holder.array = flat.reshape(check_shape(shape, flat.size), order=as_text(order))
    return holder


def _scalar(dtype, content) -> Any:
    return _from_buffer(content, dtype, ()).array[()]


def _encode(text: str, encoding: str) -> bytes:
    if as_text(encoding) != "latin1":
        raise pickle.UnpicklingError(
            f"it encodes a text as {printable(as_text(encoding))}; only latin1 is allowed"
        )
    return text.encode("latin1")


def is_key(value: Any) -> bool:
    """Whether a value is quick to hash, and equal to few others of the same hash."""
    is_integer = type(value) is int and abs(value) < 1 << 32
    return is_integer or type(value) in (str, bytes)


def make_dict(items: Any = (), kind: Callable = dict) -> dict:
    """Makes a dictionary of pairs, as Python 2 pickles an OrderedDict.

    Args:
        items: The pairs, a list.
        kind: The type of dictionary.

    Raises:
        pickle.UnpicklingError: If its keys are not texts, bytes or small integers.
    """
    result = kind()
    for pair in items if type(items) in (list, tuple) else [None]:
        if type(pair) not in (list, tuple) or len(pair) != 2 or not is_key(pair[0]):
            raise pickle.UnpicklingError(
                "it has a dictionary whose keys are not texts, bytes or small integers"
            )
        result[pair[0]] = pair[1]
    return result


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
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",
    ("collections", "OrderedDict"): make_dict,
    ("numpy", "ndarray"): ArrayStandIn,
    ("numpy", "dtype"): _Dtype,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = ArrayStandIn
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _from_buffer


class FrugalUnpickler(pickle.Unpickler):
    """An unpickler whose calls can't make much more than the pickle holds.

    A call may be repeated with an argument that the pickle has once, and each makes a new object.

    Args:
        file: The pickle, a `BytesIO`.
        **options: Options of `pickle.Unpickler`.
    """

    def __init__(self, file: io.BytesIO, **options):
        super().__init__(file, **options)
        # No writer repeats an argument; twice the bytes leave room for short ones.
        self.left = 2 * len(file.getbuffer())

    def allow(self, function: Callable) -> AllowedCall:
        """A function that the pickle may call, as long as its arguments are not too long in all."""

        def call(*arguments):
            sized = (bytes, bytearray, str, list, tuple)
            self.left -= sum(len(part) for part in arguments if isinstance(part, sized))
            if self.left < 0:
                raise pickle.UnpicklingError("its calls make far more than it holds")
            return function(*arguments)

        return AllowedCall(call)


class _ArrayUnpickler(FrugalUnpickler):
    """An unpickler that allows NumPy arrays and plain containers only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return self.allow(_ALLOWED[module, name])
        raise pickle.UnpicklingError(f"it names {printable(module)}.{printable(name)}")


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


def unpickle(
    content: bytes,
    where: str,
    reader: Callable = _ArrayUnpickler,
    budget: Optional[Budget] = None,
) -> Any:
    """Reads a pickle of arrays and plain containers, without running code in it.

    Args:
        content: The pickle.
        where: Where it is from, for messages, in printable form.
        reader: The class of unpickler; it decides which names are allowed.
        budget: The opcodes that are left for the pickles of a file; None for a file of one.

    Returns:
        The value; texts that Python 2 wrote are bytes.

    Raises:
        UserError: If the pickle is damaged, or names anything but arrays and containers.
        MemoryError: If memory is too small.
    """
    try:
        check_opcodes(content, budget or Budget())
        return _replace_stand_ins(reader(io.BytesIO(content), encoding="bytes").load(), {})
    except MemoryError:
        raise
    except Exception as error:  # damaged pickles raise many types of errors
        raise UserError(
            f"{where} is not a pickle of arrays and plain containers ({printable(error)}). "
            "Reading stopped there: anything else is refused, since a pickle can run code."
        ) from None
