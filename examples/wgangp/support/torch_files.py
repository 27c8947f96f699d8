# SPDX-License-Identifier: Apache-2.0
"""Tensors of files that `torch.save` wrote, read without PyTorch."""

from __future__ import annotations

import math
import pickle
import zipfile
from os import path as osp
from typing import Any
from typing import Dict

import numpy as np

from support.archives import DAMAGE
from support.archives import damaged
from support.archives import read_stored
from support.errors import UserError
from support.unpickling import Admitted
from support.unpickling import ArrayStandIn
from support.unpickling import as_text
from support.unpickling import unpickle


class _Storage:
    """Numbers that tensors of a PyTorch file share; or their kind, while there are none yet.

    Args:
        numbers: A flat array.
    """

    __slots__ = ("numbers",)

    def __init__(self, numbers: np.ndarray):
        self.numbers = numbers

    def __setstate__(self, state):
        raise pickle.UnpicklingError("it changes a storage")


class _TensorDict(dict):
    """An ordered dictionary; what else PyTorch hangs on it is let go."""

    def __setstate__(self, state):
        pass


def _rebuild_tensor(storage, offset, shape, strides) -> ArrayStandIn:
    numbers = (offset, *shape, *strides)
    # whole numbers of Python's own kind: others could overflow, and so pass what follows
    if not isinstance(storage, _Storage) or any(type(number) is not int for number in numbers):
        raise pickle.UnpicklingError("a tensor's place is not given by whole numbers")
    count = len(storage.numbers)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
    fits = len(shape) == len(strides) and last < count and math.prod(shape) <= count
    if not fits or min(numbers) < 0:
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    steps = [stride * storage.numbers.itemsize for stride in strides]
    part = np.lib.stride_tricks.as_strided(storage.numbers[offset:], shape, steps)
    holder = ArrayStandIn()
    holder.array = part.copy()
    return holder


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler of PyTorch's files, which admits tensors and plain containers only.

    Args:
        file: The pickle.
        storages: Bytes of each storage by its key.
        **options: Of `pickle.Unpickler`.
    """

    # how PyTorch names the numbers of a storage
    DTYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2"}
    DTYPES.update(LongStorage="<i8", IntStorage="<i4", ByteStorage="u1", BoolStorage="?")

    def __init__(self, file, storages: Dict[str, bytes], **options):
        super().__init__(file, **options)
        self.storages = storages
        # Tensors may share a storage, but not make more of it than a few times its size.
        self.left = 4 * sum(map(len, storages.values()))

    def rebuild(self, storage, offset, shape, strides, *_) -> ArrayStandIn:
        holder = _rebuild_tensor(storage, offset, shape, strides)
        self.left -= holder.array.nbytes
        if self.left < 0:
            raise pickle.UnpicklingError("its tensors are far larger than its storages")
        return holder

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return Admitted(_TensorDict)
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return Admitted(self.rebuild)
        if module == "torch" and name in self.DTYPES:
            return _Storage(np.empty(0, self.DTYPES[name]))
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid
        if as_text(kind) != "storage" or not isinstance(dtype, _Storage):
            raise pickle.UnpicklingError("it refers to something that is no storage")
        if as_text(key) not in self.storages:
            raise pickle.UnpicklingError(f"storage {as_text(key)} is absent")
        numbers = np.frombuffer(self.storages[as_text(key)], dtype.numbers.dtype)
        if len(numbers) != count:
            raise pickle.UnpicklingError(f"storage {as_text(key)} holds {len(numbers)} numbers")
        return _Storage(numbers)


def read_pth(path: str) -> Dict[str, np.ndarray]:
    """Tensors of a file that `torch.save` wrote, by name, without PyTorch.

    Args:
        path: A zip archive that holds `NAME/data.pkl` and the tensors' numbers.

    Raises:
        UserError: If it is damaged, or holds anything but tensors and plain containers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            contents = read_stored(archive, osp.getsize(path))
    except (*DAMAGE, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        raise UserError(damaged(path, error)) from None
    pickles = [name for name in contents if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError(f"{path} is no file of torch.save: it holds {len(pickles)} data.pkl.")
    folder = f"{pickles[0][: -len('data.pkl')]}data/"
    storages = {n[len(folder) :]: part for n, part in contents.items() if n.startswith(folder)}
    state = unpickle(
        contents[pickles[0]],
        path,
        lambda *arguments, **options: _TensorUnpickler(*arguments, storages, **options),
    )
    if not isinstance(state, dict) or not all(isinstance(name, (str, bytes)) for name in state):
        raise UserError(f"{path}: expected a dictionary of tensors by name.")
    return {as_text(name): value for name, value in state.items()}
