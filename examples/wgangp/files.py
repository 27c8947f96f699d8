# Copyright (c) 2026 The WGAN-GP example suite authors. All Rights Reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Files from outside: downloads, data archives, pickles and weights, none of which runs code."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import io
import math
import os
import pickle
import pickletools
import sys
import tarfile
import tempfile
import urllib.parse
import urllib.request
import zipfile
import zlib
from os import path as osp
from typing import Any
from typing import BinaryIO
from typing import Callable
from typing import Dict
from typing import Iterator
from typing import List
from typing import Optional
from typing import Sequence
from typing import Tuple

import numpy as np
import paddle
from paddle import nn
from ppsci.utils import logger
from tqdm import tqdm

from runtime import UserError

CACHE = "~/.paddlesci"
LARGEST = 1 << 30  # bytes of an unpacked file: MNIST's has 220 MB
SECURE = ("https://",)  # how addresses begin from which downloads are taken
# what compressed files raise where they are damaged
DAMAGE = (EOFError, zlib.error, OSError)
MOST = 10**6  # steps of a pickle: each of a few bytes can make an object of a hundred
TIMEOUT = 30  # seconds without a byte
CHECKSUM_MARK = b"#SHA-256:"  # between the pickle of our own weights and its checksum
DIGEST = 64  # bytes of a SHA-256 in hexadecimal
PARTIAL = ".partial"  # how names of files end that are not complete yet
MODEL_HINT = (
    "Were MODEL.* settings different when it was trained? They are in config.yaml beside the "
    "weights."
)


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


class _Array:
    """Stands in for numpy.ndarray in a pickle; NumPy's own would trust sizes and types in it."""

    def __init__(self, *_):
        self.array = np.empty(0)

    def __setstate__(self, state):
        _, shape, dtype, fortran, content = state
        self.array = _from_buffer(content, dtype, shape, "F" if fortran else "C").array


def _from_buffer(content, dtype, shape, order="C") -> _Array:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("it holds an array of no type")
    holder = _Array()
    holder.array = np.frombuffer(content, dtype.dtype).reshape(shape, order=as_text(order))
    return holder


def _scalar(dtype, content) -> Any:
    return _from_buffer(content, dtype, ()).array[()]


def _encode(text: str, encoding: str) -> bytes:
    if as_text(encoding) != "latin1":
        raise pickle.UnpicklingError(f"it encodes a text as {encoding}")
    return text.encode("latin1")


class _Admitted:
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
    ("_codecs", "encode"): _Admitted(_encode),
    ("__builtin__", "bytes"): _Admitted(lambda: b""),
    ("collections", "OrderedDict"): _Admitted(dict),
    ("numpy", "ndarray"): _Admitted(_Array),
    ("numpy", "dtype"): _Admitted(_Dtype),
}
for _core in ("numpy.core", "numpy._core"):
    _ADMITTED[f"{_core}.multiarray", "_reconstruct"] = _Admitted(_Array)
    _ADMITTED[f"{_core}.multiarray", "scalar"] = _Admitted(_scalar)
    _ADMITTED[f"{_core}.numeric", "_frombuffer"] = _Admitted(_from_buffer)


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that admits NumPy arrays and plain containers only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ADMITTED:
            return _ADMITTED[module, name]
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _without_stand_ins(value: Any, done: Dict[int, Any]) -> Any:
    """Replaces stand-ins by arrays; a part that is shared is visited once."""
    if isinstance(value, _Array):
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
            if number == MOST:
                raise pickle.UnpicklingError(f"it is made in more than {MOST} steps")
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


def _rebuild_tensor(storage, offset, shape, strides) -> _Array:
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
    holder = _Array()
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

    def rebuild(self, storage, offset, shape, strides, *_) -> _Array:
        holder = _rebuild_tensor(storage, offset, shape, strides)
        self.left -= holder.array.nbytes
        if self.left < 0:
            raise pickle.UnpicklingError("its tensors are far larger than its storages")
        return holder

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Admitted(_TensorDict)
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Admitted(self.rebuild)
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


def _stored(archive: zipfile.ZipFile, size: int) -> Dict[str, bytes]:
    """The members of an archive of `size` bytes, none of them compressed."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise zipfile.BadZipFile("it is compressed, as neither PyTorch nor NumPy does it")
    if sum(member.file_size for member in members) > size:
        raise zipfile.BadZipFile("its parts are larger than the whole")
    return {member.filename: archive.read(member) for member in members}


def read_pth(path: str) -> Dict[str, np.ndarray]:
    """Tensors of a file that `torch.save` wrote, by name, without PyTorch.

    Args:
        path: A zip archive that holds `NAME/data.pkl` and the tensors' numbers.

    Raises:
        UserError: If it is damaged, or holds anything but tensors and plain containers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            contents = _stored(archive, osp.getsize(path))
    except (*DAMAGE, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        raise UserError(_damaged(path, error)) from None
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


def write_npz(path: str, arrays: Dict[str, np.ndarray]) -> None:
    """Writes NumPy's `.npz` format, so that it ends in the SHA-256 of all before it.

    It takes its place when it is complete, whatever happens on the way.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = b"0" * DIGEST  # which NumPy and unzip pass over
    content = buffer.getvalue()[:-DIGEST]
    with replacing(path) as file:
        file.write(content + hashlib.sha256(content).hexdigest().encode())


def read_npz(path: str) -> Dict[str, np.ndarray]:
    """Reads what `write_npz` wrote; nothing in it is executed.

    Args:
        path: The file.

    Raises:
        UserError: If it is damaged, or holds anything but arrays of numbers.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
        if hashlib.sha256(content[:-DIGEST]).hexdigest().encode() != content[-DIGEST:]:
            raise ValueError("its checksum does not match its content")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = _stored(archive, len(content))
        return {name[: -len(".npy")]: _read_npy(part) for name, part in members.items()}
    except Exception as error:  # NumPy and zipfile raise almost anything for what is damaged
        raise UserError(f"{path} is not intact ({error}).") from None


def _read_npy(content: bytes) -> np.ndarray:
    """A `.npy` file of numbers, whose size is what its head says."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array is of another version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds an array of {dtype}")
    start = file.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError("an array is not as large as it says")
    flat = np.frombuffer(content, dtype, offset=start)
    return flat.reshape(shape, order="F" if fortran else "C")


def read_tar(path: str, prefixes: Sequence[str]) -> List[Tuple[str, bytes]]:
    """Contents of a tar's members whose base names start with one of some prefixes.

    Nothing is written to disk. Sorted by name.

    Args:
        path: The archive, compressed by gzip or not.
        prefixes: Of the members to read.

    Raises:
        UserError: If the archive is damaged.
    """
    # All of it first: the checksum of a compressed archive comes behind its last member, where
    # tarfile does not look; and what it then reads can't be larger than this.
    content, found = read_gzip(path), {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                if not osp.basename(member.name).startswith(tuple(prefixes)):
                    continue
                if not member.isfile() or member.size > len(content):
                    raise tarfile.TarError(f"{member.name} is no file, or larger than the archive")
                if member.name in found:
                    raise tarfile.TarError(f"it holds {member.name} twice")
                found[member.name] = archive.extractfile(member).read()
    except (*DAMAGE, tarfile.TarError, ValueError, OverflowError) as error:
        raise UserError(_damaged(path, error)) from None
    return sorted(found.items())


def read_gzip(path: str) -> bytes:
    """Content of a file, unpacked if it is compressed by gzip.

    Raises:
        UserError: If the file is damaged.
    """
    try:
        with open(path, "rb") as file:
            is_packed = file.read(2) == b"\x1f\x8b"
        with (gzip.open if is_packed else open)(path, "rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise OSError("it unpacks to more than 1 GiB")
        return content
    except DAMAGE as error:
        raise UserError(_damaged(path, error)) from None


def as_rows(rows: np.ndarray, length: int) -> np.ndarray:
    """Rows [N, length] as they are; raises ValueError for any other shape."""
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != length:
        raise ValueError(f"expected rows of {length} numbers")
    return rows


def as_labels(labels) -> np.ndarray:
    """Whole numbers, a list or an array, as int64; raises ValueError for other numbers."""
    if not isinstance(labels, np.ndarray) and not (
        isinstance(labels, list) and all(isinstance(label, (int, np.integer)) for label in labels)
    ):
        raise ValueError("labels are no list of whole numbers")
    labels = np.asarray(labels)
    if labels.size and labels.dtype.kind not in "iu":
        raise ValueError("labels are no whole numbers")
    return labels.astype("int64")


def check_images(images: np.ndarray, labels: np.ndarray, classes: int, where: str) -> None:
    """Refuses pictures that are not uint8, or labels that do not fit them.

    Raises:
        UserError: Says what is wrong and where.
    """
    if images.dtype != np.uint8:
        raise UserError(f"{where}: pictures are {images.dtype}, expected uint8.")
    if not len(images):
        raise UserError(f"{where}: there are no pictures inside.")
    if labels.shape != (len(images),):
        raise UserError(f"{where}: {len(images)} pictures, but labels of shape {labels.shape}.")
    if not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(
            f"{where}: labels from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}."
        )


def _damaged(path: str, error: Exception) -> str:
    reason = str(error).split("\n")[0].rstrip(":")
    return (
        f"{path} can't be read ({reason}). If it was downloaded, it may be incomplete: "
        "remove it, and it is downloaded anew."
    )


def fetch(
    path: str,
    addresses: Sequence[str],
    checksum: str,
    other_ways: str,
    setting: str = "DATA.data_path",
) -> str:
    """A file that is published: the one at `path`, downloaded to there where it is absent.

    A file that is there is taken as it is, so that own data in the same layout serves too.

    Args:
        path: Where the file is, or is to be; `~` is the home folder.
        addresses: Where it can be had, tried in turn.
        checksum: MD5 or SHA-256 of a download.
        other_ways: What a user without a network can do, for the message.
        setting: The configuration key that names the path, for messages.

    Returns:
        The path, absolute.

    Raises:
        UserError: If it is neither there nor to be had; names file, address and ways out.
    """
    path = osp.abspath(osp.expanduser(path))
    if osp.isfile(path):
        return path
    if osp.isdir(path):
        raise UserError(f"{setting}={path} is a folder; name the file in it.")
    ways = (
        f"Download it elsewhere and put it at {path}, or name its place by "
        f"{setting}=PATH. Without it: {other_ways}"
    )
    in_cache = path.startswith(osp.join(osp.expanduser(CACHE), ""))
    if not osp.isdir(osp.dirname(path)) and not in_cache:
        raise UserError(
            f"{setting}={path}: neither this file nor its folder is there; is it a slip? "
            f"In a folder that exists, it would be downloaded from {addresses[0]}. {ways}"
        )
    reasons = []
    for address in addresses:
        logger.info(f"{path} is absent: downloading {address}")
        try:
            download(address, path, checksum)
            return path
        except OSError as error:
            reasons.append(f"{address} ({error})")
    raise UserError(
        f"{path} is absent and could not be downloaded from {'; '.join(reasons)}. {ways}"
    )


def _require_secure(address: str) -> None:
    if not address.startswith(SECURE):
        raise OSError(f"{address} is not an address by https, and only those are taken")


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, response, code, message, headers, address):
        _require_secure(address)
        return super().redirect_request(request, response, code, message, headers, address)


def download(address: str, path: str, checksum: Optional[str] = None) -> None:
    """Downloads to a temporary file beside `path`, checks it, then renames it.

    Whatever interrupts it, `path` is either absent or whole.

    Args:
        address: A URL.
        path: Where the file is to be.
        checksum: Its MD5 or SHA-256 in hexadecimal, if known.

    Raises:
        OSError: If it can't be had, or is not what the checksum says.
    """
    kind = "md5" if checksum is not None and len(checksum) == 32 else "sha256"
    digest = hashlib.new(kind)
    _require_secure(address)
    opener = urllib.request.build_opener(_SecureRedirects)
    try:
        with (
            replacing(path) as file,
            opener.open(address, timeout=TIMEOUT) as response,
            tqdm(
                total=int(response.headers.get("Content-Length") or 0) or None,
                unit="B",
                unit_scale=True,
                desc=osp.basename(path),
                mininterval=0.5 if sys.stderr.isatty() else 10,
            ) as bar,
        ):
            expected = response.headers.get("Content-Length")
            for block in iter(lambda: response.read(1 << 16), b""):
                file.write(block)
                digest.update(block)
                bar.update(len(block))
                if bar.n > LARGEST:
                    raise OSError("it is larger than 1 GiB")
            if expected is not None and bar.n != int(expected):
                raise OSError(f"the connection broke after {bar.n} of {expected} bytes")
            if checksum is not None and digest.hexdigest() != checksum:
                raise OSError(f"its {kind.upper()} is {digest.hexdigest()}, expected {checksum}")
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(str(error)) from None


def remove_partial(folder: str) -> None:
    """Removes what `replacing` left in a folder when it was killed."""
    for name in os.listdir(folder) if osp.isdir(folder) else []:
        if name.endswith(PARTIAL):
            os.remove(osp.join(folder, name))


@contextlib.contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when it is complete, and never before.

    Args:
        path: Where the file is to be; its folder is made if need be.
    """
    os.makedirs(osp.dirname(path), exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=osp.dirname(path), suffix=PARTIAL)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o644)  # mkstemp's is for its owner alone
        os.replace(partial, path)
    finally:
        if osp.exists(partial):
            os.remove(partial)


def save_weights(network: nn.Layer, path: str) -> None:
    """Writes a network's weights and buffers as `.pdparams`, completely or not at all.

    A checksum goes behind the pickle, where `paddle.load` does not look.
    """
    buffer = io.BytesIO()
    paddle.save(network.state_dict(), buffer)
    content = buffer.getvalue()
    with replacing(path) as file:
        file.write(content + CHECKSUM_MARK + hashlib.sha256(content).hexdigest().encode())


def load_weights(network: nn.Layer, source: str, setting: str, role: Optional[str] = None) -> None:
    """Loads a network's `.pdparams`, all of it or nothing.

    Of a checkpoint the moving average is loaded where there is one; beside a generator's
    `.pdparams`, it is only pointed at.

    Args:
        network: The network to load into.
        source: A path or a URL, with or without the suffix; or a checkpoint's path.
        setting: The configuration key that named it, for messages.
        role: Which of a checkpoint's networks it is, such as "generator".

    Raises:
        UserError: If the file is absent, damaged, or of another network; the message lists
            missing, unexpected and misshapen names, and nothing is loaded.
    """
    path = weights_path(source, setting)
    where = f"{setting}: {path}"
    if _is_url(source):
        where += f" (kept from {source}; remove it, and it is downloaded anew)"
    if path.endswith(".npz"):
        start = f"{role}/"
        arrays = read_npz(path)
        # what such a training evaluates, where it keeps one
        if role == "generator" and any(name.startswith("average/") for name in arrays):
            start = "average/"
            logger.info(f"{where}: the moving average of the generator is taken.")
        state = {n[len(start) :]: array for n, array in arrays.items() if n.startswith(start)}
    else:
        state = _read_pdparams(path, where)
        average = osp.join(osp.dirname(path), "model_average_generator.pdparams")
        if osp.basename(path) == "model_generator.pdparams" and osp.isfile(average):
            logger.info(f"{where}: {average} is the moving average that its training evaluated.")
    network.set_state_dict(fitting(network, state, where))


def _read_pdparams(path: str, where: str) -> Dict[str, Any]:
    if osp.getsize(path) > LARGEST:
        raise UserError(f"{where} is larger than 1 GiB: it was not read.")
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"{where} can't be read ({error}).") from None
    body, mark, checksum = content.rpartition(CHECKSUM_MARK)
    if mark and len(checksum) == DIGEST:  # weights of others have none
        content = body
        if hashlib.sha256(content).hexdigest().encode() != checksum:
            raise UserError(f"{where} is damaged: its checksum does not match its content.")
    state = unpickle(content, where)
    if not isinstance(state, dict):
        raise UserError(
            f"{where}: expected a dictionary of arrays, found a {type(state).__name__}."
        )
    if not all(isinstance(name, (str, bytes)) for name in state):
        raise UserError(f"{where}: expected a dictionary of arrays by name.")
    state = {as_text(name): value for name, value in state.items()}
    # paddle.save adds a table of its internal names
    state.pop("StructuredToParameterName@@", None)
    return state


def fitting(network: nn.Layer, state: Dict[str, Any], where: str) -> Dict[str, np.ndarray]:
    """Arrays for all of a network's weights and buffers, in its own precision.

    Args:
        network: The network.
        state: The arrays offered, by name.
        where: Where they come from, for the message.

    Raises:
        UserError: If they do not fit; lists missing, unexpected and misshapen names.
    """
    own = network.state_dict()
    with np.errstate(over="ignore"):  # a number too large becomes infinite, and is refused
        state = {
            name: value.astype(own[name].numpy().dtype)
            if name in own and isinstance(value, np.ndarray) and value.dtype.kind == "f"
            else value
            for name, value in state.items()
        }
    # the level that only names of the published networks have (published.py)
    are_published = [
        any(name.startswith(("generator.", "discriminator.")) for name in names)
        for names in (state, own)
    ]
    hint = {
        (True, False): "PaddleScience publishes weights of such names: MODEL.arch=published "
        "builds their networks.",
        (False, True): "MODEL.arch=paper builds the networks that this suite trains.",
    }.get(tuple(are_published), MODEL_HINT)
    check_fit(own, state, type(network).__name__, where, hint)
    return state


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def weights_path(source: str, setting: str) -> str:
    """The local file of a path or URL, with or without its suffix; a URL's is cached.

    Raises:
        UserError: If it is not there, or can't be downloaded.
    """
    if _is_url(source):
        parts = urllib.parse.urlsplit(source)
        if not parts.path.endswith(".pdparams"):
            parts = parts._replace(path=f"{parts.path}.pdparams")
        address = urllib.parse.urlunsplit(parts)
        # Files of different addresses often share a name.
        key = hashlib.sha256(address.encode()).hexdigest()[:12]
        path = osp.expanduser(f"{CACHE}/weights/wgangp/{key}_{osp.basename(parts.path)}")
        if not osp.exists(path):
            logger.info(f"Downloading {address}")
            try:
                download(address, path)
            except OSError as error:
                raise UserError(
                    f"{setting}: {address} could not be downloaded ({error}). Download it "
                    f"elsewhere and name its path, or put it at {path}."
                ) from None
        return path
    path = osp.abspath(osp.expanduser(source))
    path = path if path.endswith((".pdparams", ".npz")) else f"{path}.pdparams"
    if not osp.isfile(path):
        raise UserError(
            f"{setting}: there is no file {path}. A finished training leaves "
            "model_generator.pdparams and model_discriminator.pdparams in its output folder, and "
            "with TRAIN.ema.use_ema model_average_generator.pdparams."
        )
    return path


def check_fit(
    own: Dict[str, Any], state: Dict[str, Any], network: str, where: str, hint: str = ""
) -> None:
    """Refuses arrays that are not exactly those of a network.

    Args:
        own: What the network has, by name: anything with a shape.
        state: The arrays offered, by name.
        network: Its name, for the message.
        where: Where the arrays come from, for the message.
        hint: What to do, for the message.

    Raises:
        UserError: Lists missing, unexpected and misshapen names.
    """

    def numbers(name):
        value = state.get(name)
        return isinstance(value, np.ndarray) and value.dtype.kind == "f"

    both = [name for name in own if name in state]
    fits = [n for n in both if numbers(n) and list(state[n].shape) == list(own[n].shape)]
    problems = {
        "missing": [name for name in own if name not in state],
        "unexpected": [str(name) for name in state if name not in own],
        "not arrays of floating-point numbers": [name for name in both if not numbers(name)],
        "misshapen": [
            f"{name} {list(state[name].shape)} where {list(own[name].shape)} is expected"
            for name in both
            if numbers(name) and name not in fits
        ],
        "not finite": [name for name in fits if not np.isfinite(state[name]).all()],
    }
    found = [f"{kind}: {_some(names)}" for kind, names in problems.items() if names]
    if found:
        raise UserError(
            f"{where} does not fit {network}, and was not loaded. {'; '.join(found)}. {hint}"
        )


def _some(names: List[str], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def sha256(path: str) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
