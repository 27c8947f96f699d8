# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 and MNIST in other wrappings: folders, archives, the binary version, idx files, npz."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from picture_folder import encode
from picture_folder import noise

import functions
from support import archives
from support import downloads
from support.errors import UserError

RNG = np.random.default_rng(0)
ROWS = {name: RNG.integers(256, size=(5, 3072), dtype="uint8") for name in ("1", "2", "test")}
NAMES = {"1": "data_batch_1", "2": "data_batch_2", "test": "test_batch"}
LABELS = np.arange(5)


def cifar_python():
    return {
        f"cifar-10-batches-py/{NAMES[key]}": pickle.dumps(
            {b"data": rows, b"labels": LABELS.tolist()}, 2
        )
        for key, rows in ROWS.items()
    }


def cifar_binary():
    return {
        f"cifar-10-batches-bin/{NAMES[key]}.bin": b"".join(
            bytes([label]) + row.tobytes() for label, row in zip(LABELS, rows)
        )
        for key, rows in ROWS.items()
    }


def idx(array):
    return struct.pack(f">4B{array.ndim}L", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


DIGITS = {
    part: RNG.integers(256, size=(n, 28, 28), dtype="uint8")
    for part, n in (("train", 6), ("t10k", 3))
}
DIGIT_LABELS = {part: (np.arange(len(x)) % 10).astype("uint8") for part, x in DIGITS.items()}


def mnist_idx(sign="-"):
    files = {f"{part}-images{sign}idx3-ubyte": idx(x) for part, x in DIGITS.items()}
    return files | {f"{part}-labels{sign}idx1-ubyte": idx(x) for part, x in DIGIT_LABELS.items()}


def mnist_npz(**options):
    buffer = io.BytesIO()
    names = {"train": "train", "t10k": "test"}
    arrays = {f"x_{names[part]}": x for part, x in DIGITS.items()}
    arrays |= {f"y_{names[part]}": x for part, x in DIGIT_LABELS.items()}
    np.savez_compressed(buffer, **(arrays | options))
    return buffer.getvalue()


def mnist_pickle():
    sets = [(DIGITS[p].reshape(-1, 784) / np.float32(256), DIGIT_LABELS[p]) for p in DIGITS]
    return pickle.dumps((sets[0], sets[1], sets[1]), 2)


# Wrappings


def as_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


def as_zip(method):
    def write(path, files):
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in files.items():
                archive.writestr(name, content)

    return write


def as_tar(mode):
    def write(path, files):
        with tarfile.open(path, mode) as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    return write


WRAPPINGS = {
    "folder": as_folder,
    "stored zip": as_zip(zipfile.ZIP_STORED),
    "zip": as_zip(zipfile.ZIP_DEFLATED),
    "zip of bzip2": as_zip(zipfile.ZIP_BZIP2),
    "zip of lzma": as_zip(zipfile.ZIP_LZMA),
    **{f"tar {mode}": as_tar(f"w:{mode}") for mode in ("", "gz", "bz2", "xz")},
}
PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def compressed(files, suffix):
    return {f"{name}{suffix}": PACKERS[suffix](content) for name, content in files.items()}


def check_cifar(path):
    data = functions.read_cifar10(os.fspath(path))
    rows = np.concatenate([ROWS["1"], ROWS["2"]]).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(data.train_images, rows)
    np.testing.assert_array_equal(data.test_images, ROWS["test"].reshape(-1, 3, 32, 32))
    assert data.train_labels.tolist() == [*LABELS, *LABELS]
    assert data.test_labels.tolist() == LABELS.tolist() and data.test_labels.dtype == np.int64


def check_mnist(path):
    data = functions.read_mnist(os.fspath(path))
    np.testing.assert_array_equal(data.train_images[:, 0], DIGITS["train"])
    np.testing.assert_array_equal(data.test_images[:, 0], DIGITS["t10k"])
    assert data.train_labels.tolist() == DIGIT_LABELS["train"].tolist()
    assert data.test_labels.tolist() == DIGIT_LABELS["t10k"].tolist()


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("files", [cifar_python, cifar_binary])
def test_cifar10_is_read_from_each_wrapping(files, wrapping, tmp_path):
    """The name of the place says nothing: only the content counts."""
    WRAPPINGS[wrapping](tmp_path / "x.dat", files())
    check_cifar(tmp_path / "x.dat")


def test_folders_are_found_from_above_and_from_within(tmp_path):
    as_folder(tmp_path / "set", cifar_python())
    check_cifar(tmp_path)
    check_cifar(tmp_path / "set" / "cifar-10-batches-py")
    hidden = tmp_path / "set" / ".ipynb_checkpoints"
    as_folder(hidden, {"data_batch_3": b"no pickle"})
    check_cifar(tmp_path)
    as_folder(tmp_path / "raw", mnist_idx())
    check_mnist(tmp_path)


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_idx_files_are_read_from_each_wrapping(wrapping, suffix, tmp_path):
    sign = "." if suffix == ".gz" else "-"
    WRAPPINGS[wrapping](tmp_path / "x", compressed(mnist_idx(sign), suffix))
    check_mnist(tmp_path / "x")


def test_copies_of_a_file_count_once(tmp_path):
    """torchvision keeps idx files next to their gzip; a known zip has each file twice."""
    files = mnist_idx()
    as_folder(tmp_path / "raw", files | compressed(files, ".gz"))
    check_mnist(tmp_path)
    as_zip(zipfile.ZIP_DEFLATED)(
        tmp_path / "x.zip",
        mnist_idx(".") | {f"{name}/{name}": content for name, content in files.items()},
    )
    check_mnist(tmp_path / "x.zip")
    other = files["train-labels-idx1-ubyte"][:-1] + b"\x09"
    as_folder(tmp_path / "other", {"train-labels-idx1-ubyte": other})
    with pytest.raises(UserError, match="two different files train-labels-idx1-ubyte: other/"):
        functions.read_mnist(str(tmp_path))
    as_folder(tmp_path / "raw", {"train-labels.idx1-ubyte": other})
    with pytest.raises(UserError, match="two different files of the same kind"):
        functions.read_mnist(str(tmp_path / "raw"))


@pytest.mark.parametrize("suffix", PACKERS)
def test_the_pickle_is_read_from_each_wrapping(suffix, tmp_path):
    content = PACKERS[suffix](mnist_pickle())
    (tmp_path / "x").write_bytes(content)
    check_mnist(tmp_path / "x")
    for wrapping in ("folder", "zip", "tar gz"):
        WRAPPINGS[wrapping](tmp_path / wrapping, {f"mnist.pkl{suffix}": content})
        check_mnist(tmp_path / wrapping)


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (28, 28, 1), (784,)])
def test_npz_of_each_shape_is_read(shape, tmp_path):
    arrays = {"x_train": DIGITS["train"].reshape(-1, *shape)}
    (tmp_path / "mnist.npz").write_bytes(mnist_npz(**arrays))
    check_mnist(tmp_path / "mnist.npz")


def test_cifar10_in_npz_has_channels_last(tmp_path):
    rows = np.concatenate([ROWS["1"], ROWS["2"]]).reshape(-1, 3, 32, 32)
    np.savez(
        tmp_path / "c.npz",
        x_train=rows.transpose(0, 2, 3, 1),
        y_train=np.concatenate([LABELS, LABELS])[:, None],
        x_test=ROWS["test"].reshape(-1, 3, 32, 32),
        y_test=LABELS[:, None],
    )
    check_cifar(tmp_path / "c.npz")


def test_of_60000_digits_those_of_the_pickle_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr(functions, "MNIST_COUNT", 6)
    monkeypatch.setattr(functions, "MNIST_USED", 5)
    as_folder(tmp_path / "idx", mnist_idx())
    (tmp_path / "x.npz").write_bytes(mnist_npz())
    for path in (tmp_path / "idx", tmp_path / "x.npz"):
        data = functions.read_mnist(str(path))
        np.testing.assert_array_equal(data.train_images[:, 0], DIGITS["train"][:5])
        assert data.train_labels.tolist() == DIGIT_LABELS["train"][:5].tolist()
        assert len(data.test_images) == 3


# What is damaged, or something else


DAMAGED = {
    "short": ({"train-images-idx3-ubyte": idx(DIGITS["train"])[:-1]}, "the size of an array"),
    "long": ({"train-images-idx3-ubyte": idx(DIGITS["train"]) + b"x"}, "the size of an array"),
    "header": ({"train-images-idx3-ubyte": b"\0\0\x08\x03\0\0"}, "ends within its header"),
    "float": ({"train-images-idx3-ubyte": b"\0\0\x0d\x03" + bytes(99)}, "not unsigned bytes"),
    "web page": ({"train-images-idx3-ubyte": b"<html>404</html>"}, "not an idx file"),
    "swapped": ({"train-images-idx3-ubyte": idx(DIGIT_LABELS["train"])}, "pictures have the shape"),
    "size": ({"train-images-idx3-ubyte": idx(DIGITS["train"][:, :27])}, "expected 28x28x1"),
    "labels": ({"train-labels-idx1-ubyte": idx(DIGIT_LABELS["t10k"])}, "6 pictures, but labels"),
    "letters": ({"train-labels-idx1-ubyte": idx(DIGIT_LABELS["train"] + 9)}, "expected 0 to 9"),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_damaged_idx_files_are_refused(how, tmp_path):
    files, reason = DAMAGED[how]
    as_folder(tmp_path, mnist_idx() | files)
    with pytest.raises(UserError, match=reason) as error:
        functions.read_mnist(str(tmp_path))
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", mnist_idx())
def test_each_idx_file_is_needed(name, tmp_path):
    files = mnist_idx()
    del files[name]
    as_folder(tmp_path, files)
    kind, part = ("images" if "images" in name else "labels"), name.split("-")[0]
    part = {"t10k": "test"}.get(part, part)
    with pytest.raises(UserError, match=f"but no {kind} of the {part} set"):
        functions.read_mnist(str(tmp_path))


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"x_train": DIGITS["train"] / 255}, "pictures are float64, expected uint8"),
        ({"y_train": DIGIT_LABELS["train"] / 2}, "labels are not whole numbers"),
        ({"x_train": np.array([{}])}, "something else than plain numbers|array of"),
        ({"x_train": DIGITS["train"][0]}, "pictures have the shape"),
        ({"x_train": np.uint8(3)}, "pictures have the shape|no size"),
    ],
)
def test_npz_of_other_arrays_is_refused(arrays, reason, tmp_path):
    (tmp_path / "x.npz").write_bytes(mnist_npz(**arrays))
    with pytest.raises(UserError, match=reason) as error:
        functions.read_mnist(str(tmp_path / "x.npz"))
    assert str(tmp_path / "x.npz") in str(error.value)


def test_a_binary_batch_of_another_size_is_refused(tmp_path):
    files = cifar_binary()
    as_folder(tmp_path, files | {"cifar-10-batches-bin/data_batch_2.bin": bytes(3074)})
    with pytest.raises(UserError, match="data_batch_2.bin: expected a label and 3,072 bytes"):
        functions.read_cifar10(str(tmp_path))
    as_folder(tmp_path, files | cifar_python())
    with pytest.raises(UserError, match="both the Python and the binary version"):
        functions.read_cifar10(str(tmp_path))


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_what_is_unpacked_has_a_limit(wrapping, tmp_path):
    WRAPPINGS[wrapping](tmp_path / "x", {"train-images-idx3-ubyte.gz": gzip.compress(bytes(10**6))})
    with pytest.raises(UserError, match="more than|larger than|too much"):
        functions.read_mnist(str(tmp_path / "x"), 10**5)
    WRAPPINGS[wrapping](tmp_path / "y", {"train-images-idx3-ubyte": bytes(10**6)})
    with pytest.raises(UserError, match="more than|larger than|too much"):
        functions.read_mnist(str(tmp_path / "y"), 10**5)


@pytest.mark.parametrize("wrapping", [w for w in WRAPPINGS if w != "folder"])
def test_damaged_wrappings_are_refused(wrapping, tmp_path):
    path = tmp_path / "x"
    WRAPPINGS[wrapping](path, cifar_python())
    content = path.read_bytes()
    # The end of a tar without compression is empty.
    for kept in (len(content) // 3, len(content) - (30 if wrapping != "tar " else 10000)):
        path.write_bytes(content[:kept])
        with pytest.raises(UserError, match="copy it again|not CIFAR-10"):
            functions.read_cifar10(str(path))
    changed = bytearray(content)
    changed[len(content) // 2] ^= 0x55
    path.write_bytes(changed)
    if wrapping != "tar ":  # has no checksum of contents
        with pytest.raises(UserError, match="copy it again"):
            functions.read_cifar10(str(path))


def test_parts_of_bzip2_and_xz_are_read_and_limited(tmp_path, monkeypatch):
    for pack in (bz2.compress, lzma.compress, gzip.compress):
        (tmp_path / "x").write_bytes(pack(b"one ") + pack(b"two") + bytes(8))
        assert archives.read_unpacked(str(tmp_path / "x")) == b"one two"
        (tmp_path / "x").write_bytes(pack(bytes(10**7)))
        assert archives.read_unpacked(str(tmp_path / "x")) == bytes(10**7)
        (tmp_path / "x").write_bytes(pack(b"") * 20)
        with monkeypatch.context() as patch:
            patch.setattr(archives, "MAX_PARTS", 19)
            with pytest.raises(UserError, match="more than 19 compressed parts"):
                archives.read_unpacked(str(tmp_path / "x"))
    huge = bytearray(lzma.compress(b"x"))
    huge[16] = 37  # the size of the dictionary, 1.5 GiB; the header of a block ends in a checksum
    header = huge[12 : 12 + 4 * huge[12]]
    huge[12 + len(header) : 16 + len(header)] = struct.pack("<L", zlib.crc32(header))
    (tmp_path / "x").write_bytes(huge)
    with pytest.raises(UserError, match="[Mm]emory usage limit"):
        archives.read_unpacked(str(tmp_path / "x"))


PICTURE = encode(noise(28, 28))
OTHERS = {
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file; convert"),
    "MATLAB": (b"MATLAB 5.0 MAT-file, Platform: x" + bytes(99), "a MATLAB file"),
    "Parquet": (b"PAR1" + bytes(99) + b"PAR1", "a Parquet table"),
    "Arrow": (b"ARROW1\0\0" + bytes(99), "an Arrow table"),
    "CSV": (b"label,a,b\n5,0,0\n0,0,1\n", "a table of text"),
    "compressed CSV": (gzip.compress(b"5,0,0\n0,0,1\n"), "a table of text"),
    "npy": (b"\x93NUMPY\1\0" + bytes(99), "a single NumPy array; put all four"),
    "idx": (idx(DIGITS["train"]), "a single idx file; for MNIST, name the folder"),
    "compressed idx": (gzip.compress(idx(DIGITS["train"])), "a single idx file; for MNIST, name"),
    "PNG": (PICTURE, "a single picture; wgangp_image64.py reads"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "a 7z archive; unpack it first"),
    "RAR": (b"Rar!\x1a\x07\0" + bytes(99), "a RAR archive; unpack it first"),
    "Zstandard": (b"\x28\xb5\x2f\xfd" + bytes(99), "compressed with Zstandard; unpack"),
    "twice": (gzip.compress(gzip.compress(b"x")), "compressed twice; unpack it first"),
    "LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "a pointer of Git LFS; `git lfs pull`",
    ),
    "HTML": (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page; it may be the error"),
    "JSON": (b'{"error": 404}', "a JSON file"),
    "SQLite": (b"SQLite format 3\0" + bytes(99), "an SQLite database"),
    "empty": (b"", "an empty file; download"),
    "empty gzip": (gzip.compress(b""), "an empty file; download"),
    "unknown": (bytes(range(7, 207)), "of a format that is not known here"),
}


@pytest.mark.parametrize("read", [functions.read_cifar10, functions.read_mnist])
@pytest.mark.parametrize("how", OTHERS)
def test_another_format_is_named_by_its_content(how, read, tmp_path):
    content, text = OTHERS[how]
    path = tmp_path / "mnist.pkl.gz"  # The suffix doesn't matter.
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read(str(path))
    assert f"{path} is not " in str(error.value) and f": it is {text}" in str(error.value)
    assert "npz with x_train" in str(error.value)


HUNDRED = {f"cifar-100-python/{name}": b"" for name in ("train", "test", "meta", "file.txt~")}
SETS = {
    "pictures": ({f"train/{n}.png": PICTURE for n in range(9)}, "and wgangp_image64.py reads"),
    "CIFAR-100": (HUNDRED, "it may be CIFAR-100, which is not read"),
    "archive": ({"data.tar.gz": b"x"}, "name the file in it: data.tar.gz"),
    "other": ({"a.parquet": b"PAR1"}, "with a.parquet; convert it"),
    "other npz": ({"a.npy": b"", "b.npy": b""}, "(a folder|an npz|a tar) with a.npy, b.npy; con"),
    "nothing": ({}, "name another place|can't be listed"),
}


@pytest.mark.parametrize("wrapping", ["folder", "zip", "tar gz"])
@pytest.mark.parametrize("how", SETS)
def test_another_set_is_named_by_its_members(how, wrapping, tmp_path):
    files, text = SETS[how]
    path = tmp_path / "x"
    if wrapping == "folder":
        path.mkdir()
    WRAPPINGS[wrapping](path, files)
    for read in (functions.read_cifar10, functions.read_mnist):
        with pytest.raises(UserError, match=text):
            read(str(path))


def test_the_sets_are_told_apart(tmp_path):
    as_folder(tmp_path / "m", mnist_idx())
    as_folder(tmp_path / "c", cifar_binary())
    (tmp_path / "m.npz").write_bytes(mnist_npz())
    with pytest.raises(UserError, match="wgangp_cifar10.py reads that"):
        functions.read_mnist(str(tmp_path / "c"))
    for path in ("m", "m.npz"):
        with pytest.raises(UserError, match="pictures have the shape 28x28, expected 32x32x3"):
            functions.read_cifar10(str(tmp_path / path))


def test_what_is_no_file_is_not_replaced(tmp_path):
    """A download would take the place of a pipe or of a broken link."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("pipe", "link"):
        with pytest.raises(UserError, match="a link to nothing, or not a regular file"):
            downloads.fetch(str(tmp_path / name), ["https://127.0.0.1:9/x"], "0" * 32, "none.")
    assert downloads.fetch(str(tmp_path), [], "", "none.", folder=True) == str(tmp_path)
    os.mkfifo(tmp_path / "data_batch_1")
    with pytest.raises(UserError, match="not a regular file"):
        functions.read_cifar10(str(tmp_path))
