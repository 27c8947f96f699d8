# SPDX-License-Identifier: Apache-2.0
"""Whole files for every reader, and generators of damaged and hostile ones; see fuzz.py."""

import dataclasses
import functools
import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Callable
from typing import Dict
from typing import Optional
from typing import Union

import inception_reference
import numpy as np
from PIL import Image

from data import image_folder
from functions import WganGpToyGenerator
from functions import read_cifar10
from functions import read_mnist
from modes.exported_files import check_export
from support import npz
from support import storage
from support import torch_files
from support import weight_files
from support import weight_notes
from support.errors import UserError
from training import checkpoints

SMALL = 1 << 24  # replaces archives.MAX_BYTES, so that files that are too large are quick to make
LARGE = 1 << 28
CHANGED = "the checksum was computed again after the change"
UNCHECKED = "the file has no checksum"


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

    def read_whole(self, path):
        """Writes the whole file to a path, and reads it."""
        Case(self.content).write(path)
        return self.read(str(path))


@dataclasses.dataclass
class Case:
    """A file to read.

    Args:
        content: Its bytes, or a function that writes it to a path.
        reason: Why what is read may differ from the whole file's content; None if it must not.
    """

    content: Union[bytes, Callable[[Path], None]]
    reason: Optional[str] = CHANGED

    def write(self, path):
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content)


# Whole files


def pack_tar(members, folder="cifar-10-batches-py/", **options):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", **options) as archive:
        for name, content in members:
            info = tarfile.TarInfo(f"{folder}{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def pack_zip(members, methods=(zipfile.ZIP_STORED,)):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, (name, content) in enumerate(members):
            archive.writestr(name, content, methods[number % len(methods)])
    return buffer.getvalue()


def with_checksum(content):
    """The bytes of a checkpoint with the right checksum."""
    content = content[: -npz.DIGEST_BYTES]
    return content + hashlib.sha256(content).hexdigest().encode()


def make_targets(folder):
    storage.CACHE = str(folder / "cache")
    return [
        make_cifar10_target(),
        make_mnist_target(),
        *make_array_targets(),
        *make_weight_targets(folder),
        make_pth_target(folder),
        make_checkpoint_target(folder),
        make_export_target(),
        *make_picture_targets(),
    ]


def read_arrays(read, path, dtype=np.uint8, classes=10):
    """Reads an image set, and checks the form of its arrays."""
    data = read(path)
    for images, labels in (
        (data.train_images, data.train_labels),
        (data.test_images, data.test_labels),
    ):
        assert images.dtype == dtype and images.ndim == 4 and len(images) == len(labels)
        assert labels.dtype == np.int64 and 0 <= labels.min() and labels.max() < classes
    return vars(data)


def make_cifar10_target():
    rng = np.random.default_rng(0)
    batches = {
        name: pickle.dumps(
            {b"data": rng.integers(256, size=(4, 3072), dtype="uint8"), b"labels": [1, 2, 3, 4]},
            protocol,
        )
        for name, protocol in (("data_batch_1", 2), ("data_batch_2", 4), ("test_batch", 4))
    }
    return Target(
        "cifar-10 archive",
        pack_tar(batches.items()),
        functools.partial(read_arrays, functools.partial(read_cifar10, max_bytes=SMALL)),
        batches,
        lambda parts: pack_tar(parts.items()),
    )


def make_mnist_target():
    rng = np.random.default_rng(1)
    digits = tuple(
        (rng.integers(256, size=(n, 784)).astype("float32") / 256, np.arange(n) % 10)
        for n in (5, 2, 3)
    )
    content = pickle.dumps(digits, 4)
    return Target(
        "mnist.pkl.gz",
        gzip.compress(content),
        functools.partial(read_arrays, functools.partial(read_mnist, max_bytes=SMALL)),
        {"(pickle)": content},
        lambda parts: gzip.compress(parts["(pickle)"], 1),
    )


def make_array_targets():
    """Targets of idx files, of an npz, and of CIFAR-10's binary version."""
    rng = np.random.default_rng(2)
    digits = {
        name: rng.integers(256, size=(4, 28, 28), dtype="uint8") for name in ("train", "test")
    }
    idx, npz_parts = {}, {}
    for name, images in digits.items():
        for axis, kind, array in (("x", "images", images), ("y", "labels", images[:, 0, 0] % 10)):
            header = struct.pack(f">4B{array.ndim}L", 0, 0, 8, array.ndim, *array.shape)
            idx[f"{name}-{kind}-idx{array.ndim}-ubyte"] = header + array.tobytes()
            buffer = io.BytesIO()
            np.save(buffer, array)
            npz_parts[f"{axis}_{name}.npy"] = buffer.getvalue()
    records = np.arange(6146) % 251 % 10
    batches = {f"{name}.bin": bytes(records.tolist()) for name in ("data_batch_1", "test_batch")}
    reads = [functools.partial(read, max_bytes=SMALL) for read in (read_mnist, read_cifar10)]
    mnist, cifar10 = (functools.partial(read_arrays, read) for read in reads)
    return [
        Target(name, pack(parts), read, parts, pack)
        for name, read, parts, pack in (
            ("idx files in a zip", mnist, idx, lambda parts: pack_zip(parts.items())),
            ("npz of digits", mnist, npz_parts, lambda parts: pack_zip(parts.items())),
            ("binary cifar-10", cifar10, batches, lambda parts: pack_tar(parts.items(), "bin/")),
        )
    ]


def numpy_state(network):
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def same(one, two):
    return one.keys() == two.keys() and all(
        np.asarray(one[name]).dtype == np.asarray(two[name]).dtype
        and np.array_equal(one[name], two[name])
        for name in one
    )


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
    notes = weight_notes.Notes.of({"MODEL": {"arch": "paper"}}, "8gaussians", ["cat", "dog"])
    weight_files.save_weights(WganGpToyGenerator(4), str(folder / "w.pdparams"), notes)
    ours = (folder / "w.pdparams").read_bytes()
    body = ours[: ours.rindex(weight_files.CHECKSUM_MARK)]
    theirs = body[: body.rindex(weight_notes.MARK)]

    def add_checksum(parts):
        content = parts["(pickle)"] + parts["(notes)"]
        digest = hashlib.sha256(content).hexdigest().encode()
        return content + weight_files.CHECKSUM_MARK + digest

    parts = {"(pickle)": theirs, "(notes)": body[len(theirs) :]}
    return [
        Target("weights of ours", ours, read_weights, parts, add_checksum),
        Target(
            *("weights of others", theirs, read_weights, {"(pickle)": theirs}),
            pack=lambda parts: parts["(pickle)"],
            has_checksum=False,
        ),
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
    contents = make_contents()
    arrays = {f"generator/{i}": rng.random((i + 1, 3)).astype("float32") for i in range(6)}
    arrays["contents"] = np.frombuffer(json.dumps(contents).encode(), "uint8")
    npz.write_npz(str(folder / "c.npz"), arrays)
    content = (folder / "c.npz").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return Target(
        "checkpoint",
        content,
        read_checkpoint,
        members,
        lambda parts: with_checksum(pack_zip(parts.items()) + bytes(npz.DIGEST_BYTES)),
    )


def make_contents():
    """What a checkpoint of a training at its start holds besides arrays."""
    return {
        key: kind() if isinstance(kind, type) else None
        for key, kind in checkpoints.CONTENTS.items()
    }


def make_export_target():
    """The weights of an exported program, which mode=infer checks before Paddle reads them."""
    content = np.random.default_rng(4).bytes(3000)
    checksums = {".json": hashlib.sha256(b"{}"), ".pdiparams": hashlib.sha256(content)}

    def read(path):
        weights, name = Path(f"{path}.pdiparams"), Path(path).name
        if weights.is_dir():
            weights.rmdir()
        weights.unlink(missing_ok=True)
        Path(path).rename(weights)
        Path(f"{path}.json").write_bytes(b"{}")
        lines = [f"{checksums[s].hexdigest()}  {name}{s}\n" for s in checksums]
        Path(f"{path}.sha256").write_text("".join(lines))
        check_export(path, "native")
        return {"bytes": np.frombuffer(weights.read_bytes(), "uint8")}

    parts = {"(weights)": content}
    return Target("exported weights", content, read, parts, lambda parts: parts["(weights)"])


METHODS = (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def make_picture_targets():
    rng = np.random.default_rng(3)
    pictures = {}
    for number in range(12):
        buffer = io.BytesIO()
        kind = ("PNG", "BMP", "JPEG", "GIF")[number % 4]
        pixels = rng.integers(256, size=(20, 16, 3), dtype="uint8")
        Image.fromarray(pixels).save(buffer, kind)
        pictures[f"class{number % 3}/{number}.{kind.lower()}"] = buffer.getvalue()

    def read(path):
        shutil.rmtree(storage.CACHE, ignore_errors=True)  # decoded pictures of a case before
        data = image_folder.read_pictures(
            path, False, False, max_pixels=1 << 22, max_unpacked=SMALL
        )
        return {**vars(data), "class_names": np.array(data.class_names)}

    packs = {
        "pictures in a zip": lambda parts: pack_zip(parts.items()),
        "pictures in a packed zip": lambda parts: pack_zip(parts.items(), METHODS),
        "pictures in a tar.gz": lambda parts: pack_tar(parts.items(), ""),
    }
    return [Target(name, pack(pictures), read, pictures, pack) for name, pack in packs.items()]


# Damage


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


def damaged_file(target, rng):
    content = damage(target.content, rng)
    return Case(content, None if target.has_checksum else UNCHECKED)


def damaged_part(target, rng):
    return replaced(target, rng, lambda part: damage(part, rng))


def replaced(target, rng, change):
    """The file of a target with one changed part, under the right checksum."""
    parts = dict(target.inner)
    name = list(parts)[rng.integers(len(parts))]
    # Contents below 1 KB are mostly numbers; the pickle or the JSON is what matters.
    for known in ("contents.npy", "x/data.pkl", "archive/data.pkl"):
        name = known if known in parts and rng.random() < 0.7 else name
    parts[name] = change(parts[name])
    return Case(target.pack(parts))


def exchanged_parts(target, rng):
    parts = dict(target.inner)
    names = list(parts)
    one, other = names[rng.integers(len(names))], names[rng.integers(len(names))]
    parts[one], parts[other] = parts[other], parts[one]
    return Case(target.pack(parts))


def swap_contents(target, rng, contents):
    """A hostile content as the whole file, or as a part of one with a right checksum."""
    content = contents[rng.integers(len(contents))]
    if rng.random() < 0.3:
        return Case(content)
    return replaced(target, rng, lambda part: content)


# Pickles


def opcodes(value, protocol=2):
    """The part of a pickle that creates a value."""
    return pickle.dumps(value, protocol)[2:-1]


def shared_tuples(depth=60):
    """Opcodes of a tuple of two tuples that are the same one, and so on: 2**depth to hash."""
    return b")" + b"2\x86" * depth


def shared_by_memo(depth=60):
    """The same, with the opcodes that picklers write."""
    return b")" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(depth))


EQUAL_HASH = [number * (2**61 - 1) for number in range(1, 20000)]  # all hashes are 0
CALL = b"ccollections\nOrderedDict\n"
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n%sX\x03\x00\x00\x00cpuK\x03tQ"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n("


@functools.cache
def hanging_pickles():
    """Pickles that keep a plain unpickler busy in C, most of them forever."""
    pairs = b"(" + b"".join(b"(" + opcodes(n) + b"Nl" for n in EQUAL_HASH) + b"l"
    tuples = (shared_tuples(), shared_by_memo())
    lists = [
        *(b"\x80\x02}" + key + b"Ns." for key in tuples),
        *(b"\x80\x02(" + key + b"Nd." for key in tuples),
        *(b"\x80\x02}(" + key + b"Nu." for key in tuples),
        *(b"\x80\x04\x8f(" + key + b"\x90." for key in tuples),  # a set
        *(b"\x80\x04(" + key + b"\x91." for key in tuples),  # a frozenset
        *(b"\x80\x02" + CALL + b"(((" + key + b"Nll" + b"tR." for key in tuples),
        *(b"\x80\x02(" + STORAGE % key + b"t." for key in tuples),  # the key of a storage
        *(b"\x80\x02cnumpy\ndtype\n(" + key + b"K\x00K\x01tR." for key in tuples),
        *(b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00a" + key + b"tR." for key in tuples),
        b"\x80\x02}(" + b"".join(opcodes(n) + b"N" for n in EQUAL_HASH) + b"u.",
        b"\x80\x02}" + b"".join(opcodes(n) + b"Ns" for n in EQUAL_HASH) + b".",
        b"\x80\x04\x8f(" + b"".join(opcodes(n) for n in EQUAL_HASH) + b"\x90.",
        b"\x80\x02" + CALL + b"(" + pairs + b"tR.",
        b"\x80\x02" + CALL + b"(" + b"(" + pairs[1:-1] + b"l" + b"tR.",
        b"L" + b"9" * 10**6 + b"L\n.",
        b"I" + b"9" * 100000 + b"\n.",
        b"\x80\x02\x8b" + struct.pack("<i", 10**6) + b"\x77" * 10**6 + b".",  # a long integer
        b"\x80\x02](" + b"K\x01" * 2 * 10**6 + b"e.",
        b"\x80\x02(" + b"}" * 2 * 10**6 + b"l.",
        b"\x80\x02" + b"(" * 10**6 + b".",
        b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
        b"\x80\x02]q\x00h\x00a.",  # a list that holds itself
    ]
    return lists


# Pickles that declare more than they hold, grow when they are read, or run code.
GROWING_PICKLES = [
    b"\x80\x05\x8e" + (2**40).to_bytes(8, "little") + b"x.",  # bytes of a tebibyte
    b"\x80\x04\x95" + (2**60).to_bytes(8, "little") + b"N.",  # a frame of an exbibyte
    b"\x80\x02r\xff\xff\xff\xff.",  # a memo of four thousand million places
    b"\x80\x02]r\x00\x00\x10\x00" + b"C\xff" * 60 + b".",
    b"(" * 100000 + b".",
    b"]" + b"]a" * 50000 + b".",
    b"\x80\x02cnumpy\nndarray\n(K\x00K\x00t.",
]
RUNNING_PICKLES = [
    b"cos\nsystem\n(S'exit 1'\ntR.",
    b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
    b"(S'exit 1'\nios\nsystem\n.",  # INST
    b"(cos\nsystem\nS'exit 1'\no.",  # OBJ
    b"\x80\x02csubprocess\nPopen\nX\x04\x00\x00\x00true\x85\x81.",  # NEWOBJ
    b"\x80\x04csubprocess\nPopen\n)}\x92.",
    b"\x80\x02\x82\x01.",  # EXT1
    b"Pname\n.",  # PERSID
    b"\x80\x05\x97.",  # a buffer from elsewhere
    b"\x80\x02ccollections\nOrderedDict\nN}X\x0c\x00\x00\x00__defaults__Ns\x86b.",
    b"\x80\x02cnumpy\ndtype\nN}X\x08\x00\x00\x00functioncos\nsystem\ns\x86b.",
]


def array_pickle(shape, dtype="f4", content=b"\0" * 16, order=b"<"):
    """A pickle of an array whose parts need not fit."""
    kind = b"cnumpy\ndtype\n(" + opcodes(dtype) + b"K\x00K\x01tR(K\x03" + opcodes(order.decode())
    kind += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return (
        b"\x80\x02}X\x04\x00\x00\x00datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
        b"(K\x00tU\x01btR(K\x01" + opcodes(shape) + kind + b"\x89"
        b"C" + bytes([len(content)]) + content + b"tbs."
    )


def tensor_pickle(offset, shape, strides, count=3):
    """A pickle of a tensor whose parts need not fit; its storage is the key 0."""
    storage = STORAGE % b"X\x01\x00\x00\x000"
    parts = opcodes(offset) + opcodes(shape) + opcodes(strides)
    return b"\x80\x02}X\x01\x00\x00\x00a" + TENSOR + storage + parts + b"\x89NtRs."


WIDE = [(1,) * rank for rank in (33, 64, 100, 1000, 100000)]
HUGE = [(2**62, 4), (-1, 4), (0, 2**62, 2**62), (2**70,), (4.0,), ("4",), ((4,),), (None,), (True,)]


@functools.cache
def crafted_arrays():
    """Pickles of arrays and tensors whose ranks, sizes and strides are beyond all bounds."""
    cases = [array_pickle(shape) for shape in (*WIDE, *HUGE, 4, "4", {}, [[4]])]
    codes = ("O", "V4", "f4,f4", "(1000000000,)f4", "S1000000000", "M8[s]", "x" * 10**6, "c8", "f2")
    cases += [array_pickle((4,), code) for code in codes]
    cases += [array_pickle((4,), order=b"?"), array_pickle((4,), content=b"")]
    for shape in (*WIDE, *HUGE):
        cases += [tensor_pickle(0, shape, (0,) * len(shape)), tensor_pickle(0, shape, (1,))]
    for strides in ((2**62,), (-1,), (2**70,), (None,), ((1,),), {}):
        cases.append(tensor_pickle(0, (1,), strides))
    cases += [tensor_pickle(offset, (1,), (1,)) for offset in (2**62, -1, 2**70, None, (0,), 3)]
    return cases


def other_pickle(rng):
    """A pickle of other types, shapes and sizes than any reader expects."""
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
        {(1, 2): 3},
        {frozenset([1]), 2},
    ][rng.integers(11)]
    return pickle.dumps(value, int(rng.integers(6)))


def other_contents(target, rng):
    return swap_contents(target, rng, [other_pickle(rng)])


def growing_pickles(target, rng):
    return swap_contents(target, rng, GROWING_PICKLES)


def running_pickles(target, rng):
    return swap_contents(target, rng, RUNNING_PICKLES)


def slow_pickles(target, rng):
    return swap_contents(target, rng, hanging_pickles())


def unbounded_arrays(target, rng):
    return swap_contents(target, rng, [*crafted_arrays(), *crafted_npy()])


@functools.cache
def crafted_npy():
    """Arrays in .npy format with headers that declare what no array may be."""
    headers = [
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape!r}, }}" for shape in WIDE
    ]
    headers += [
        f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
        for descr, shape in (
            *(("<f4", shape) for shape in HUGE),
            *((code, (1,)) for code in ("O", "|S99999999", "V4", [("a", "O")], "f4,f4", "<M8[s]")),
        )
    ]
    headers += ["(" * 9000, "-" * 9000 + "1", "{" + "'a': 1, " * 1000 + "}", "[" * 90 + "]" * 90]
    contents = []
    for header in headers:
        text = header.encode()[:60000] + b"\n"
        contents.append(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(4))
    return contents


# Archives


def pack_gzip(name=b"", content=b""):
    """A gzip file whose header names a file."""
    header = b"\x1f\x8b\x08" + (b"\x08" if name else b"\0") + bytes(4) + b"\0\x03"
    pack = zlib.compressobj(wbits=-15)
    body = pack.compress(content) + pack.flush()
    tail = struct.pack("<II", zlib.crc32(content), len(content))
    return header + (name + b"\0" if name else b"") + body + tail


def tar_header(name, size, kind=b"0"):
    """The header of a tar's member, whatever its size and kind."""
    header = bytearray(512)
    header[: len(name)] = name
    header[124:136] = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    header[156:157] = kind
    header[257:263] = b"ustar\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@functools.cache
def crafted_tars():
    """Tars with headers that take memory or time, or hide members."""
    batch = b"cifar-10-batches-py/data_batch_1"
    digits = b"1" * (1 << 20)
    pax = tar_header(b"x", len(digits), b"x") + digits
    chain = (tar_header(b"x", 12, b"x") + b"12 path=abc\n".ljust(512, b"\0")) * 5000
    longer = (tar_header(b"x", 512, b"L") + b"n".ljust(512, b"\0")) * 5000
    sparse = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n34 GNU.sparse.realsize=9999999999\n"
    tars = [
        pax + tar_header(batch, 0),
        chain + tar_header(batch, 0),
        longer + tar_header(batch, 0),
        tar_header(b"x", 8**10, b"L"),
        tar_header(b"x", len(sparse), b"x") + sparse.ljust(512, b"\0") + tar_header(batch, 0),
        tar_header(batch, 2**33, b"S") + bytes(512),
        *(tar_header(batch, size) for size in (2**33, SMALL + 1, 2**62, 2**80)),
        tar_header(batch, 0, b"2") + tar_header(batch, 0, b"1"),
        (tar_header(batch, 512) + bytes(512)) * 2,
        b"".join(tar_header(b"data_batch_%d" % n, 2**22) + bytes(2**22) for n in range(4, 12)),
        tar_header(b"a", 0) * 20000,
    ]
    return [*(gzip.compress(tar + bytes(1024), 1) for tar in tars), *(tar for tar in tars[:8])]


@functools.cache
def crafted_zips():
    """Zips whose members overlap, repeat, disagree with their headers, or are very many."""
    once = pack_zip([("x/data.pkl", b"N."), ("x/data/0", bytes(100)), ("contents.npy", b"{}")])
    place = once.index(b"PK\x01\x02")
    end = once.index(b"PK\x05\x06")
    directory, files = once[place:end], once[:place]

    def build(directory, files=files):
        count = directory.count(b"PK\x01\x02")
        tail = struct.pack(
            *("<4s4H2LH", b"PK\x05\x06", 0, 0, count % 65536, count % 65536),
            *(len(directory), len(files), 0),
        )
        return files + directory + tail

    first = directory[: directory.index(b"PK\x01\x02", 4)]
    many = [first.replace(b"x/data.pkl", b"x%09d" % number) for number in range(3000)]
    lying = bytearray(files)
    lying[22:26] = struct.pack("<L", 10**6)  # the size in the header of the first member
    far = bytearray(directory)
    far[42:46] = struct.pack("<L", 10**6)
    zips = [
        build(first * 2),  # twice the same
        build(b"".join(many)),  # all of them share their bytes
        build(first * 150000),
        build(directory, bytes(lying)),
        build(bytes(far)),
        build(directory.replace(b"x/data.pkl", b"x/data.pk\n")),
    ]
    return [*zips, *(with_checksum(content + bytes(64)) for content in zips)]


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
    header = gzip.compress(tar_header(b"cifar-10-batches-py/data_batch_1", LARGE))
    contents = [zeros, small + zeros, zipped.getvalue(), header + zeros]
    contents += [pack_gzip(b"n" * (1 << 22)), pack_gzip() * 200000]
    for rows in (2**31, 2**62):
        array, form = io.BytesIO(), {"descr": "<f4", "fortran_order": False, "shape": (rows, 4)}
        np.lib.format.write_array_header_1_0(array, form)
        contents.append(with_checksum(pack_zip([("contents.npy", array.getvalue())]) + bytes(64)))
    return contents


def sparse_file(rng):
    """A file of 6 GB that takes no place on a disk, with the beginning and end of a whole one."""

    def write(path):
        with open(path, "wb") as file:
            file.write((b"PK\x03\x04", b"\x1f\x8b", b"\x80\x02", b"")[rng.integers(4)])
            file.truncate(6 * 10**9)
            file.seek(0, os.SEEK_END)
            file.write(b"0" * 64)

    return write


def oversized(target, rng):
    if rng.random() < 0.2:
        return Case(sparse_file(rng))
    return Case(huge_files()[rng.integers(len(huge_files()))])


def hostile_archives(target, rng):
    contents = [*crafted_tars(), *crafted_zips()]
    return Case(contents[rng.integers(len(contents))])


def pipes_and_folders(target, rng):
    make = (
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path),
    )
    return Case(make[rng.integers(3)])


# Names and checkpoints

NAMES = ["a\nb", "\x1b[31mred", "\u202egnp.exe", "x" * 10**6, "\u2028", "a\x00b", "\x07" * 500]


def foreign_names(target, rng):
    """Names with line breaks, escape sequences or a million characters, which messages quote."""
    return swap_contents(target, rng, name_files(NAMES[rng.integers(len(NAMES))]))


@functools.cache
def name_files(name):
    """Files of several kinds that contain a name."""
    key = pickle.dumps({name: 1, "layers.0.weight": name}, 2)
    return [
        key,
        b"\x80\x02c" + name.replace("\n", " ").encode()[:900] + b"\nname\n.",
        b"\x80\x04" + opcodes(name) + opcodes(name) + b"\x93.",
        pack_tar([(f"data_batch_{name}", b"x")], format=tarfile.PAX_FORMAT),
        pack_tar([("data_batch_1\udcff\x1b[1m", b"x")], format=tarfile.GNU_FORMAT),
        pack_zip([(f"x/{name[:60000]}.png", b"x"), ("x/data.pkl", key), ("y/data.pkl", key)]),
        with_checksum(pack_zip([(f"{name[:60000]}.npy", b"x")]) + bytes(64)),
    ]


def hostile_contents(target, rng):
    """A checkpoint whose JSON holds what no training writes; other readers get the text."""
    contents = make_contents()
    values = [float("nan"), 1e308, -1, 10**30, 10**5000, None, "x\n" * 10**5, [[]], {"a": 1}, True]
    key = list(contents)[rng.integers(len(contents))]
    contents[key] = values[rng.integers(len(values))]
    with_digits = contents[key] == 10**5000
    contents[key] = 0 if with_digits else contents[key]
    text = json.dumps(contents).encode()
    if with_digits:  # json refuses to write such a number
        text = text.replace(b'"%s": 0' % key.encode(), b'"%s": %s' % (key.encode(), b"9" * 5000))
    text = (text, b"[" * 100000, text[:50], b"\xff\xfe", b"null")[max(0, rng.integers(12) - 7)]
    array = io.BytesIO()
    np.save(array, np.frombuffer(text, "uint8"))
    parts = dict(target.inner)
    if "contents.npy" not in parts:
        return replaced(target, rng, lambda part: text)
    parts["contents.npy"] = array.getvalue()
    return Case(target.pack(parts))


@functools.cache
def make_png(width, height):
    """A black picture of one bit a pixel; in parts, since it may be large."""
    pack, row = zlib.compressobj(1), bytes(1 + min(width // 8 + 1, 10**4))
    data = b"".join(pack.compress(row) for _ in range(min(height, 20000))) + pack.flush()
    header = struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in chunks
    )


def hostile_pictures(target, rng):
    """Contents that make Pillow start a program, or that take far more memory than bytes."""
    contents = [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
        *(make_png(*shape) for shape in ((20000, 20000), (1, 10**6), (10**6, 1), (2**31 - 1, 1))),
        b"\xd7\xcd\xc6\x9a" + bytes(100),  # WMF
        b"RIFF\xff\xff\xff\xffWEBPVP8X" + bytes(100),
        b"GIF89a\xff\xff\xff\xff\x00\x00\x00" + bytes(50),
        b"BM" + bytes(12) + struct.pack("<Iii2HI", 40, 2**31 - 1, 1, 1, 32, 0) + bytes(50),
    ]
    return swap_contents(target, rng, contents)


# Generators and their shares of all cases.
GENERATORS = {
    damaged_file: 8,
    damaged_part: 5,
    exchanged_parts: 1,
    other_contents: 2,
    growing_pickles: 1,
    running_pickles: 2,
    slow_pickles: 3,
    unbounded_arrays: 4,
    oversized: 2,
    hostile_archives: 3,
    pipes_and_folders: 1,
    foreign_names: 2,
    hostile_contents: 1,
    hostile_pictures: 1,
}


def make_case(target, rng):
    """Makes a file for a target; returns the generator's name and the case."""
    shares = np.array(list(GENERATORS.values()))
    generator = list(GENERATORS)[rng.choice(len(shares), p=shares / shares.sum())]
    return generator.__name__, generator(target, rng)
