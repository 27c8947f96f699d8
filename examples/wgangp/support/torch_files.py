# SPDX-License-Identifier: Apache-2.0
"""Tensors in files that `torch.save` wrote, read without PyTorch."""

from __future__ import annotations

import math
import os
import pickle
import zipfile
from typing import Any
from typing import Dict

import numpy as np

from support import archives
from support.archives import DAMAGE_ERRORS
from support.archives import damage_message
from support.archives import format_limit
from support.archives import open_regular
from support.archives import read_uncompressed_zip
from support.errors import UserError
from support.errors import printable
from support.layouts import check_numbers
from support.layouts import check_shape
from support.unpickling import AllowedCall
from support.unpickling import ArrayStandIn
from support.unpickling import FrugalUnpickler
from support.unpickling import as_text
from support.unpickling import make_dict
from support.unpickling import unpickle

MAX_SHARED = 1 << 30  # bytes that tensors of shared storages may take in addition to the file
# The types of numbers, by the names of PyTorch's storages.
DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class _Storage:
    """A flat array of numbers that tensors of a PyTorch file share.

    A storage that a pickle names by its type alone is empty.

    Args:
        numbers: The flat array.
    """

    __slots__ = ("numbers",)

    def __init__(self, numbers: np.ndarray):
        self.numbers = numbers

    def __setstate__(self, state):
        raise pickle.UnpicklingError("it sets attributes of a storage")


class _TensorDict(dict):
    """An ordered dictionary; the attributes that PyTorch sets on it are dropped."""

    def __setstate__(self, state):
        pass


def _rebuild_tensor(storage, offset, shape, strides) -> ArrayStandIn:
    """Copies the numbers of a tensor, if all of them are inside of its storage."""
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor has no storage")
    (offset,) = check_numbers([offset], "offset")
    shape, strides = check_numbers(shape, "shape"), check_numbers(strides, "strides")
    count = len(storage.numbers)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
    holder = ArrayStandIn()
    if 0 in shape and len(shape) == len(strides):
        holder.array = np.empty(check_shape(shape, 0), storage.numbers.dtype)
        return holder
    if len(shape) != len(strides) or last >= count or math.prod(shape) > count:
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    # The stride of a single row is never used, and may be any number.
    steps = [
        stride * storage.numbers.itemsize if size > 1 else 0 for size, stride in zip(shape, strides)
    ]
    part = np.lib.stride_tricks.as_strided(storage.numbers[offset:], shape, steps)
    holder.array = part.copy()
    return holder


class _TensorUnpickler(FrugalUnpickler):
    """An unpickler for PyTorch's files that allows tensors and plain containers only.

    Args:
        file: The pickle.
        storages: The bytes of each storage, by key.
        **options: Options of `pickle.Unpickler`.
    """

    def __init__(self, file, storages: Dict[str, bytes], **options):
        super().__init__(file, **options)
        self.storages = storages
        # Tensors may share a storage. The limit on their total size keeps memory small.
        whole = sum(map(len, storages.values()))
        self.bytes_left = min(4 * whole, whole + MAX_SHARED)

    def rebuild(self, storage, offset, shape, strides, *_) -> ArrayStandIn:
        holder = _rebuild_tensor(storage, offset, shape, strides)
        self.bytes_left -= holder.array.nbytes
        if self.bytes_left < 0:
            raise pickle.UnpicklingError("its tensors are far larger than its storages")
        return holder

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return self.allow(lambda items=(): make_dict(items, _TensorDict))
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return AllowedCall(self.rebuild)
        if module == "torch" and name in DTYPES:
            return _Storage(np.empty(0, DTYPES[name]))
        raise pickle.UnpicklingError(f"it names {printable(module)}.{printable(name)}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid
        key = as_text(key)
        if as_text(kind) != "storage" or not isinstance(dtype, _Storage) or type(key) is not str:
            raise pickle.UnpicklingError("it refers to something that is not a storage")
        name = printable(key)
        if key not in self.storages:
            raise pickle.UnpicklingError(f"it refers to storage {name}, which is absent")
        content = self.storages[key]
        numbers = np.frombuffer(content, dtype.numbers.dtype) if content else dtype.numbers
        if len(numbers) != count:
            raise pickle.UnpicklingError(
                f"storage {name} holds {len(numbers)} numbers, not {printable(count)}"
            )
        return _Storage(numbers)


def read_pth(path: str) -> Dict[str, np.ndarray]:
    """Reads the tensors of a file that `torch.save` wrote.

    Args:
        path: A zip archive that holds `NAME/data.pkl` and the numbers of the tensors.

    Returns:
        Arrays by the names of the tensors.

    Raises:
        UserError: If the file is damaged, or contains anything but tensors and plain containers.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > archives.MAX_BYTES:
                raise ValueError(f"it is larger than {format_limit(archives.MAX_BYTES)}")
            contents = read_uncompressed_zip(file, size)
    except (*DAMAGE_ERRORS, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        raise UserError(damage_message(path, error)) from None
    where = printable(path)
    pickles = [name for name in contents if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError(
            f"{where} is not a file of torch.save: it holds {len(pickles)} data.pkl, expected 1."
        )
    folder = f"{pickles[0][: -len('data.pkl')]}data/"
    storages = {
        name[len(folder) :]: part for name, part in contents.items() if name.startswith(folder)
    }
    state = unpickle(
        contents[pickles[0]],
        where,
        lambda *arguments, **options: _TensorUnpickler(*arguments, storages, **options),
    )
    if not isinstance(state, dict) or not all(isinstance(name, (str, bytes)) for name in state):
        raise UserError(f"{where}: expected a dictionary of tensors by name.")
    return {as_text(name): value for name, value in state.items()}
