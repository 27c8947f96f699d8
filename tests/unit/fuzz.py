# SPDX-License-Identifier: Apache-2.0
"""Feeds damaged and hostile files to every reader: `python tests/unit/fuzz.py --cases 3000`.

A reader may give what the whole file holds, or raise UserError; nothing else, within seconds
and little memory. Where a mutation is made inside of a checksum (a changed number in a pickle that
is packed anew), what is read may differ, but must be of the right form.
"""

import argparse
import collections
import functools
import gzip
import hashlib
import io
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import conftest  # noqa: F401  the import path and the processor settings
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

SMALL = 1 << 24  # in the place of LARGEST, so that what is too large is cheap to make
LARGE = 1 << 28
SECONDS, MEBIBYTES = 10, 100  # that a case may take


def pack_tar(members, **options):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", **options) as archive:
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
    """A checkpoint's bytes with a checksum that is right."""
    content = content[: -npz.DIGEST]
    return content + hashlib.sha256(content).hexdigest().encode()


class Target:
    """A reader, a whole file for it, and what that holds.

    Args:
        name: For the report.
        content: The whole file.
        read: Of a path; gives arrays by name.
        inner: Parts that lie inside of a checksum, by name; `pack` makes a file of them.
        pack: See `inner`.
    """

    def __init__(self, name, content, read, inner=None, pack=None, has_checksum=True):
        self.name, self.content, self.read = name, content, read
        self.inner, self.pack, self.has_checksum = inner or {}, pack, has_checksum


def make_targets(folder):
    rng = np.random.default_rng(0)
    batches = {
        name: pickle.dumps(
            {b"data": rng.integers(256, size=(4, 3072), dtype="uint8"), b"labels": [1, 2, 3, 4]}, 2
        )
        for name in ("data_batch_1", "data_batch_2", "test_batch")
    }

    def image_set(read):
        def arrays(path):
            data = read(path)
            for images, labels in (
                (data.train_images, data.train_labels),
                (data.test_images, data.test_labels),
            ):
                assert images.dtype == np.uint8 and images.ndim == 4 and len(images) == len(labels)
                assert labels.dtype == np.int64 and 0 <= labels.min() and labels.max() < 10
            return vars(data)

        return arrays

    digits = tuple(
        (rng.integers(256, size=(n, 784)).astype("float32") / 256, np.arange(n) % 10)
        for n in (5, 2, 3)
    )
    mnist = pickle.dumps(digits, 2)

    network = WganGpToyGenerator(4)

    def weights(path):
        own = {name: value.numpy().copy() for name, value in network.state_dict().items()}
        loaded = WganGpToyGenerator(4)
        before = {name: value.numpy().copy() for name, value in loaded.state_dict().items()}
        try:
            weight_files.load_weights(loaded, path, "EVAL.x")
        except UserError:
            for name, value in loaded.state_dict().items():
                assert (value.numpy() == before[name]).all(), "loaded in part"
            raise
        state = {name: value.numpy() for name, value in loaded.state_dict().items()}
        assert state.keys() == own.keys()
        assert all(state[n].shape == own[n].shape and np.isfinite(state[n]).all() for n in own)
        return state

    weight_files.save_weights(network, str(folder / "w.pdparams"))
    ours = (folder / "w.pdparams").read_bytes()
    theirs = ours[: ours.rindex(weight_files.CHECKSUM_MARK)]

    inception_reference.write_pth(
        folder / "w.pth",
        {f"layer.{i}.weight": np.full((3, i + 1), i, "float32") for i in range(5)},
    )
    pth = (folder / "w.pth").read_bytes()
    with zipfile.ZipFile(io.BytesIO(pth)) as archive:
        pth_members = {name: archive.read(name) for name in archive.namelist()}

    contents = {
        key: kind() if isinstance(kind, type) else None
        for key, kind in checkpoints.CONTENTS.items()
    }
    arrays = {f"generator/{i}": rng.random((i + 1, 3)).astype("float32") for i in range(6)}
    arrays["contents"] = np.frombuffer(checkpoints.json.dumps(contents).encode(), "uint8")
    npz.write_npz(str(folder / "c.npz"), arrays)
    checkpoint = (folder / "c.npz").read_bytes()

    def read_checkpoint(path):
        read = checkpoints.read(path)
        return {**read.arrays, "contents": np.array(sorted(map(str, read.contents.items())))}

    return [
        Target(
            "cifar-10 archive",
            pack_tar(batches.items()),
            image_set(read_cifar10),
            batches,
            lambda parts: pack_tar(parts.items()),
        ),
        Target(
            "mnist.pkl.gz",
            gzip.compress(mnist),
            image_set(read_mnist),
            {"pickle": mnist},
            lambda parts: gzip.compress(parts["pickle"], 1),
        ),
        Target("weights of ours", ours, weights),
        Target("weights of others", theirs, weights, has_checksum=False),
        Target(
            "weights of PyTorch",
            pth,
            lambda path: torch_files.read_pth(path),
            pth_members,
            lambda parts: pack_zip(parts.items()),
        ),
        Target(
            "checkpoint",
            checkpoint,
            read_checkpoint,
            {"all": checkpoint[: -npz.DIGEST]},
            lambda parts: with_checksum(parts["all"] + b"0" * npz.DIGEST),
        ),
    ]


def damage(content, rng):
    """Damages bytes in one of the ways that disks, networks and people do."""
    data = bytearray(content)
    way = rng.integers(8)
    if not data or way == 0:
        return b""
    place, other = (int(number) for number in rng.integers(len(data), size=2))
    length = int(rng.integers(1, 64))
    if way in (1, 2, 3):  # the most frequent, so the most often
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


def other_contents(rng):
    """Pickles of other types, shapes and sizes than any reader expects, and some that lie."""
    numbers = [
        np.zeros((2, 3072), kind)
        for kind in ("f4", "f8", "i2", "u8", "?", "c8", "S3", "U2", "M8[s]", "O")
    ]
    shapes = [np.zeros(shape, "u1") for shape in ((), (0,), (0, 3072), (2, 3071), (2, 32, 32, 3))]
    array = rng.choice(len(numbers + shapes))
    value = [
        {b"data": (numbers + shapes)[array], b"labels": [1, 2]},
        {b"data": np.zeros((2, 3072), "u1"), b"labels": (numbers + shapes)[array]},
        {b"data": np.zeros((2, 3072), "u1"), b"labels": [1, None]},
        (((numbers + shapes)[array], [1, 2]),) * 3,
        {"layers.0.weight": (numbers + shapes)[array]},
        [[[]]] * 5,
        None,
        2**5000,
        {"a": float("nan")},
    ][rng.integers(9)]
    lies = [
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
    return pickle.dumps(value) if rng.random() < 0.7 else lies[rng.integers(len(lies))]


@functools.cache
def huge_files():
    """Files that declare, or unpack to, more than a machine has."""
    pack = zlib.compressobj(wbits=31)  # gzip; in parts, or it would take the memory that it tests
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
    bomb = gzip.compress(info.tobuf(tarfile.GNU_FORMAT)) + zeros  # one gzip file behind another
    files_ = [zeros, small + zeros, zipped.getvalue(), bomb]
    for size in (2**33, SMALL + 1, 2**62):
        info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        info.size = size
        header = info.tobuf(tarfile.GNU_FORMAT)
        files_ += [gzip.compress(header), header + bytes(2048)]
    for rows in (2**31, 2**62):
        array, form = io.BytesIO(), {"descr": "<f4", "fortran_order": False, "shape": (rows, 4)}
        np.lib.format.write_array_header_1_0(array, form)
        files_.append(with_checksum(pack_zip([("contents.npy", array.getvalue())]) + bytes(64)))
    return files_


def make_case(target, rng):
    """A damaged file, and whether what it holds may differ from the whole one's."""
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
    elif way < 0.7:  # two change places
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


def fuzz(cases, seed=0):
    """Runs cases in turn over all readers; gives what came of them, and a list of failures."""
    former, archives.LARGEST = archives.LARGEST, SMALL
    outcomes, failures, slowest = collections.Counter(), [], 0.0
    handler = signal.signal(signal.SIGALRM, out_of_time)
    np.seterr(all="ignore")
    try:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
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
                rng = np.random.default_rng((seed, number))
                content, may_differ = make_case(target, rng)
                path.write_bytes(content)
                start = time.perf_counter()
                signal.alarm(SECONDS)
                try:
                    found = target.read(str(path))
                    kind = "equal" if same(found, expected[target.name]) else "other"
                    if kind == "other" and not may_differ:
                        failures.append((target.name, number, "a wrong result, silently"))
                except UserError as error:
                    kind = "refused"
                    if str(path) not in str(error):
                        failures.append((target.name, number, f"names no file: {error}"))
                except BaseException:
                    kind = "failed"
                    failures.append((target.name, number, traceback.format_exc()))
                finally:
                    signal.alarm(0)
                slowest = max(slowest, time.perf_counter() - start)
                outcomes[target.name, kind] += 1
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            if grown > MEBIBYTES:
                failures.append(("all", cases, f"memory grew by {grown:.0f} MiB"))
    finally:
        archives.LARGEST = former
        signal.signal(signal.SIGALRM, handler)
    return outcomes, failures, slowest, grown


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    paddle.set_device("cpu")
    outcomes, failures, slowest, grown = fuzz(arguments.cases, arguments.seed)
    for name, number, text in failures[:20]:
        print(f"--- {name}, case {number}\n{text}")
    for (name, kind), count in sorted(outcomes.items()):
        print(f"{name:20} {kind:8} {count:6}")
    print(f"slowest {slowest:.2f} s, memory grew by {grown:.0f} MiB, {len(failures)} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
