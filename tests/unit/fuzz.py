# SPDX-License-Identifier: Apache-2.0
"""Feeds damaged and hostile files to every reader: `python tests/unit/fuzz.py --cases 3000`.

A reader may return what the whole file holds, or raise a UserError that names the file; nothing
else, within seconds and with little memory. If a file is damaged before its checksum is computed
(a changed number in a pickle that is compressed again), the arrays that are read may differ from
those of the whole file, but must have the right form.
"""

import argparse
import collections
import dataclasses
import functools
import gzip
import hashlib
import io
import json
import pickle
import resource
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
import zlib
from pathlib import Path
from typing import Callable
from typing import Dict
from typing import List

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import helpers  # noqa: F401  the import path

from support.processor import prepare

prepare()

import inception_reference
import numpy as np
import paddle

from functions import WganGpToyGenerator
from functions import read_cifar10
from functions import read_mnist
from support import archives
from support import npz
from support import torch_files
from support import weight_files
from support.errors import UserError
from training import checkpoints

SMALL = 1 << 24  # replaces archives.MAX_BYTES, so that files that are too large are quick to make
LARGE = 1 << 28
SECONDS, MEBIBYTES = 10, 100  # the limits for a case, and for the memory of all cases


@dataclasses.dataclass
class Target:
    """A reader and a whole file for it.

    Args:
        name: The name in the report.
        content: The whole file.
        read: Maps a path to arrays by name.
        inner: Parts of the file by name, from before its checksum is computed.
        pack: Makes a file of such parts.
        has_checksum: Whether the reader can find any changed bit.
    """

    name: str
    content: bytes
    read: Callable[[str], Dict[str, np.ndarray]]
    inner: Dict[str, bytes] = dataclasses.field(default_factory=dict)
    pack: Callable[[Dict[str, bytes]], bytes] = None
    has_checksum: bool = True


@dataclasses.dataclass
class Report:
    """The results of all cases.

    Args:
        outcomes: The number of cases by (target, outcome); an outcome is "equal", "other",
            "refused" or "failed".
        failures: Triples (target, case, text).
        slowest: Seconds of the slowest case.
        grown: MiB by which the memory grew.
    """

    outcomes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    failures: List[tuple] = dataclasses.field(default_factory=list)
    slowest: float = 0.0
    grown: float = 0.0


def pack_tar(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members:
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def pack_zip(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def with_checksum(content):
    """The bytes of a checkpoint with the right checksum."""
    content = content[: -npz.DIGEST_BYTES]
    return content + hashlib.sha256(content).hexdigest().encode()


def make_targets(folder):
    return [
        make_cifar10_target(),
        make_mnist_target(),
        *make_weight_targets(folder),
        make_pth_target(folder),
        make_checkpoint_target(folder),
    ]


def read_arrays(read, path):
    """Reads an image set, and checks the form of its arrays."""
    data = read(path)
    for images, labels in (
        (data.train_images, data.train_labels),
        (data.test_images, data.test_labels),
    ):
        assert images.dtype == np.uint8 and images.ndim == 4 and len(images) == len(labels)
        assert labels.dtype == np.int64 and 0 <= labels.min() and labels.max() < 10
    return vars(data)


def make_cifar10_target():
    rng = np.random.default_rng(0)
    batches = {
        name: pickle.dumps(
            {b"data": rng.integers(256, size=(4, 3072), dtype="uint8"), b"labels": [1, 2, 3, 4]}, 2
        )
        for name in ("data_batch_1", "data_batch_2", "test_batch")
    }
    return Target(
        "cifar-10 archive",
        pack_tar(batches.items()),
        functools.partial(read_arrays, read_cifar10),
        batches,
        lambda parts: pack_tar(parts.items()),
    )


def make_mnist_target():
    rng = np.random.default_rng(1)
    digits = tuple(
        (rng.integers(256, size=(n, 784)).astype("float32") / 256, np.arange(n) % 10)
        for n in (5, 2, 3)
    )
    content = pickle.dumps(digits, 2)
    return Target(
        "mnist.pkl.gz",
        gzip.compress(content),
        functools.partial(read_arrays, read_mnist),
        {"pickle": content},
        lambda parts: gzip.compress(parts["pickle"], 1),
    )


def numpy_state(network):
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def read_weights(path):
    """Loads weights into a network; if they are refused, the network must not change."""
    network = WganGpToyGenerator(4)
    before = numpy_state(network)
    try:
        weight_files.load_weights(network, path, "EVAL.x")
    except UserError:
        assert same(numpy_state(network), before), "loaded in part"
        raise
    state = numpy_state(network)
    assert state.keys() == before.keys()
    assert all(
        state[name].shape == before[name].shape and np.isfinite(state[name]).all()
        for name in before
    )
    return state


def make_weight_targets(folder):
    weight_files.save_weights(WganGpToyGenerator(4), str(folder / "w.pdparams"))
    ours = (folder / "w.pdparams").read_bytes()
    theirs = ours[: ours.rindex(weight_files.CHECKSUM_MARK)]
    return [
        Target("weights of ours", ours, read_weights),
        Target("weights of others", theirs, read_weights, has_checksum=False),
    ]


def make_pth_target(folder):
    inception_reference.write_pth(
        folder / "w.pth",
        {f"layer.{i}.weight": np.full((3, i + 1), i, "float32") for i in range(5)},
    )
    content = (folder / "w.pth").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return Target(
        "weights of PyTorch",
        content,
        torch_files.read_pth,
        members,
        lambda parts: pack_zip(parts.items()),
    )


def read_checkpoint(path):
    checkpoint = checkpoints.read(path)
    contents = sorted(map(str, checkpoint.contents.items()))
    return {**checkpoint.arrays, "contents": np.array(contents)}


def make_checkpoint_target(folder):
    rng = np.random.default_rng(2)
    contents = {
        key: kind() if isinstance(kind, type) else None
        for key, kind in checkpoints.CONTENTS.items()
    }
    arrays = {f"generator/{i}": rng.random((i + 1, 3)).astype("float32") for i in range(6)}
    arrays["contents"] = np.frombuffer(json.dumps(contents).encode(), "uint8")
    npz.write_npz(str(folder / "c.npz"), arrays)
    content = (folder / "c.npz").read_bytes()
    return Target(
        "checkpoint",
        content,
        read_checkpoint,
        {"all": content[: -npz.DIGEST_BYTES]},
        lambda parts: with_checksum(parts["all"] + b"0" * npz.DIGEST_BYTES),
    )


def damage(content, rng):
    """Damages bytes in one of the ways that disks, networks and people do."""
    data = bytearray(content)
    way = rng.integers(8)
    if not data or way == 0:
        return b""
    place, other = (int(number) for number in rng.integers(len(data), size=2))
    length = int(rng.integers(1, 64))
    if way in (1, 2, 3):  # changed bits are the most frequent damage
        for _ in range(rng.integers(1, 9)):
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    elif way == 4:
        del data[place:]
    elif way == 5:
        data[place : place + length] = bytes(length)
    elif way == 6:
        one, two = data[place : place + length], data[other : other + length]
        data[place : place + length], data[other : other + length] = two, one
    else:
        data[place:place] = rng.bytes(length)
    return bytes(data)


# Pickles that declare more than they hold, grow when they are read, or run code.
HOSTILE_PICKLES = [
    b"\x80\x05\x8e" + (2**40).to_bytes(8, "little") + b"x.",  # bytes of a tebibyte
    b"\x80\x04\x95" + (2**60).to_bytes(8, "little") + b"N.",  # a frame of an exbibyte
    b"\x80\x02r\xff\xff\xff\xff.",  # a memo of four thousand million places
    b"\x80\x02cnumpy\nndarray\n(K\x00K\x00t.",
    b"cos\nsystem\n(S'exit 1'\ntR.",
    b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x0b__import__1\x85R.",
    b"(" * 100000 + b".",
    b"]" + b"]a" * 50000 + b".",
    b"I" + b"9" * 100000 + b"\n.",
]


def other_contents(rng):
    """Pickles of other types, shapes and sizes than any reader expects, and hostile ones."""
    arrays = [
        np.zeros((2, 3072), kind)
        for kind in ("f4", "f8", "i2", "u8", "?", "c8", "S3", "U2", "M8[s]", "O")
    ]
    arrays += [np.zeros(shape, "u1") for shape in ((), (0,), (0, 3072), (2, 3071), (2, 32, 32, 3))]
    array = arrays[rng.choice(len(arrays))]
    value = [
        {b"data": array, b"labels": [1, 2]},
        {b"data": np.zeros((2, 3072), "u1"), b"labels": array},
        {b"data": np.zeros((2, 3072), "u1"), b"labels": [1, None]},
        ((array, [1, 2]),) * 3,
        {"layers.0.weight": array},
        [[[]]] * 5,
        None,
        2**5000,
        {"a": float("nan")},
    ][rng.integers(9)]
    if rng.random() < 0.7:
        return pickle.dumps(value)
    return HOSTILE_PICKLES[rng.integers(len(HOSTILE_PICKLES))]


@functools.cache
def huge_files():
    """Files that declare, or unpack to, more than a machine has."""
    pack = zlib.compressobj(wbits=31)  # gzip; in parts, since this test measures memory
    zeros = b"".join([*(pack.compress(bytes(1 << 20)) for _ in range(LARGE >> 20)), pack.flush()])
    small = pack_tar([("data_batch_1", b""), ("test_batch", b"")])
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"N.")
        with archive.open("x/data/0", "w") as member:
            for _ in range(LARGE >> 20):
                member.write(bytes(1 << 20))
    info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
    info.size = LARGE
    bomb = gzip.compress(info.tobuf(tarfile.GNU_FORMAT)) + zeros  # two gzip files in one
    contents = [zeros, small + zeros, zipped.getvalue(), bomb]
    for size in (2**33, SMALL + 1, 2**62):
        info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        info.size = size
        header = info.tobuf(tarfile.GNU_FORMAT)
        contents += [gzip.compress(header), header + bytes(2048)]
    for rows in (2**31, 2**62):
        array, form = io.BytesIO(), {"descr": "<f4", "fortran_order": False, "shape": (rows, 4)}
        np.lib.format.write_array_header_1_0(array, form)
        contents.append(with_checksum(pack_zip([("contents.npy", array.getvalue())]) + bytes(64)))
    return contents


def make_case(target, rng):
    """A damaged file, and whether its arrays may differ from those of the whole file."""
    way = rng.random()
    if way < 0.5 or not target.inner:
        if way > 0.45:
            return huge_files()[rng.integers(len(huge_files()))], True
        if way > 0.4:
            return other_contents(rng), True
        return damage(target.content, rng), not target.has_checksum
    parts = dict(target.inner)
    name = list(parts)[rng.integers(len(parts))]
    if way < 0.6:
        parts[name] = other_contents(rng)
    elif way < 0.7:  # two parts are exchanged
        other = list(parts)[rng.integers(len(parts))]
        parts[name], parts[other] = parts[other], parts[name]
    else:
        parts[name] = damage(parts[name], rng)
    return target.pack(parts), True


def same(one, two):
    return one.keys() == two.keys() and all(
        np.asarray(one[name]).dtype == np.asarray(two[name]).dtype
        and np.array_equal(one[name], two[name])
        for name in one
    )


def out_of_time(*_):
    raise TimeoutError(f"it took more than {SECONDS} s")


def run_case(target, path, expected, may_differ):
    """Reads a damaged file; returns the outcome, and the text of a failure or None."""
    signal.alarm(SECONDS)
    try:
        found = target.read(str(path))
        if same(found, expected):
            return "equal", None
        return "other", None if may_differ else "a wrong result without an error"
    except UserError as error:
        return "refused", None if str(path) in str(error) else f"does not name the file: {error}"
    except BaseException:
        return "failed", traceback.format_exc()
    finally:
        signal.alarm(0)


def run_cases(cases, seed, folder, report):
    targets = make_targets(folder)
    path = folder / "case.pdparams"
    expected = {}
    for target in targets:
        path.write_bytes(target.content)
        expected[target.name] = target.read(str(path))
    huge_files()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(cases):
        target = targets[number % len(targets)]
        content, may_differ = make_case(target, np.random.default_rng((seed, number)))
        path.write_bytes(content)
        start = time.perf_counter()
        outcome, failure = run_case(target, path, expected[target.name], may_differ)
        seconds = time.perf_counter() - start
        report.slowest = max(report.slowest, seconds)
        if seconds > SECONDS:  # a reader may have caught the TimeoutError
            failure = f"it took {seconds:.0f} s"
        report.outcomes[target.name, outcome] += 1
        if failure:
            report.failures.append((target.name, number, failure))
    report.grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if report.grown > MEBIBYTES:
        report.failures.append(("all", cases, f"memory grew by {report.grown:.0f} MiB"))


def fuzz(cases, seed=0):
    """Runs cases over all readers in turn, and returns a `Report`."""
    report = Report()
    limit, archives.MAX_BYTES = archives.MAX_BYTES, SMALL
    handler = signal.signal(signal.SIGALRM, out_of_time)
    try:
        with np.errstate(all="ignore"), tempfile.TemporaryDirectory() as folder:
            run_cases(cases, seed, Path(folder), report)
    finally:
        archives.MAX_BYTES = limit
        signal.signal(signal.SIGALRM, handler)
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    paddle.set_device("cpu")
    report = fuzz(arguments.cases, arguments.seed)
    for name, number, text in report.failures[:20]:
        print(f"--- {name}, case {number}\n{text}")
    for (name, outcome), count in sorted(report.outcomes.items()):
        print(f"{name:20} {outcome:8} {count:6}")
    print(
        f"slowest {report.slowest:.2f} s, memory grew by {report.grown:.0f} MiB, "
        f"{len(report.failures)} failures"
    )
    sys.exit(bool(report.failures))


if __name__ == "__main__":
    main()
