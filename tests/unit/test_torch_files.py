# SPDX-License-Identifier: Apache-2.0
"""Files of `torch.save`, read without PyTorch: tensors only, and inside of their storages."""

import pickle
import zipfile

import fuzz_cases
import inception_reference
import numpy as np
import pytest

from support import torch_files
from support.errors import UserError

NUMBERS = np.arange(12, dtype="<f4")
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def opcodes(value):
    """The part of a pickle that creates a value."""
    return pickle.dumps(value, 2)[len(b"\x80\x02") : -len(b".")]


def storage(count, key="0", kind="Float"):
    """The part of a pickle that refers to a storage."""
    head = opcodes("storage") + f"ctorch\n{kind}Storage\n".encode()
    return b"(" + head + opcodes(key) + opcodes("cpu") + opcodes(count) + b"tQ"


def tensor(offset, shape, strides, count=12, **options):
    """The part of a pickle that creates a tensor."""
    place = opcodes(offset) + opcodes(shape) + opcodes(strides)
    return REBUILD + b"(" + storage(count, **options) + place + opcodes(False) + b"NtR"


def read(path, *parts, storages=None):
    """Reads a file that holds values of some names "0", "1", ..., each created by a part."""
    items = b"".join(opcodes(str(number)) + part + b"s" for number, part in enumerate(parts))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}" + items + b".")
        for key, content in (storages or {"0": NUMBERS.tobytes()}).items():
            archive.writestr(f"x/data/{key}", content)
    return torch_files.read_pth(str(path))


def test_read_pth_reads_what_the_reference_writes(tmp_path):
    state = {"a": np.full((3, 2), 1.5, "float32"), "b": np.array(7, "int64")}
    inception_reference.write_pth(tmp_path / "w.pth", state)
    found = torch_files.read_pth(str(tmp_path / "w.pth"))
    assert list(found) == ["a", "b"]
    for name, value in state.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_read_pth_reads_tensors_of_any_layout(tmp_path):
    transposed = tensor(0, (3, 4), (1, 3))
    single, empty = tensor(7, (), ()), tensor(0, (0, 4), (4, 1))
    found = read(tmp_path / "w.pth", transposed, single, empty)
    np.testing.assert_array_equal(found["0"], NUMBERS.reshape(4, 3).T)
    assert found["1"] == 7 and found["1"].shape == ()
    assert found["2"].shape == (0, 4)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *(("Float", "<f4"), ("Double", "<f8"), ("Half", "<f2")),
        *(("Long", "<i8"), ("Int", "<i4"), ("Byte", "u1"), ("Bool", "?")),
    ],
)
def test_read_pth_reads_every_type(tmp_path, kind, dtype):
    numbers = np.array([1, 0, 1], dtype)
    part = tensor(0, (3,), (1,), 3, kind=kind)
    found = read(tmp_path / "w.pth", part, storages={"0": numbers.tobytes()})["0"]
    assert found.dtype == numbers.dtype
    np.testing.assert_array_equal(found, numbers)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (1,)),
        (2, (3,), (1,)),
        (0, (2, 2), (3, 1)),
        (-1, (2,), (1,)),
        (3, (2,), (-1,)),
        (0, (10**12,), (0,)),
        (0, (2, 2), (1,)),
        (0, (5,), (2**62,)),
        (0, (True,), (1,)),
        (0, (2.0,), (1,)),
        (0, (None,), (1,)),
    ],
)
def test_read_pth_refuses_tensors_beyond_their_storage(tmp_path, offset, shape, strides):
    with pytest.raises(
        UserError, match="beyond its storage|else than whole numbers|below 0 or far too large"
    ):
        read(
            tmp_path / "w.pth",
            tensor(offset, shape, strides, 4),
            storages={"0": NUMBERS[:4].tobytes()},
        )


@pytest.mark.parametrize("rank", [33, 64, 100, 2000])
def test_read_pth_refuses_tensors_of_too_many_dimensions(tmp_path, rank):
    """NumPy's as_strided does not check the rank, and writes beyond its memory."""
    with pytest.raises(UserError, match="dimensions, more than 32"):
        read(tmp_path / "w.pth", tensor(0, (1,) * rank, (1,) * rank))
    found = read(tmp_path / "w.pth", tensor(3, (1,) * 31 + (2,), (7,) * 31 + (4,)))["0"]
    assert found.shape == (1,) * 31 + (2,) and found.ravel().tolist() == [3, 7]


def test_read_pth_refuses_an_empty_tensor_of_huge_sizes(tmp_path):
    with pytest.raises(UserError, match="an empty array has a size that is far too large"):
        read(tmp_path / "w.pth", tensor(0, (0, 2**39, 2**39), (1, 1, 1)))
    for shape in ((0, 50), (50, 0)):  # as PyTorch writes them, with a storage of nothing
        part = tensor(0, shape, (max(shape[1], 1), 1), 0)
        found = read(tmp_path / "w.pth", part, storages={"0": b""})["0"]
        assert found.shape == shape and found.dtype == "<f4"


def test_read_pth_refuses_a_storage_whose_key_is_slow_to_hash(tmp_path):
    part = b"(" + fuzz_cases.STORAGE % fuzz_cases.shared_by_memo() + b"t"
    with pytest.raises(UserError, match="not a storage"):
        read(tmp_path / "w.pth", part)


def test_read_pth_refuses_files_that_are_too_large(tmp_path):
    with open(tmp_path / "w.pth", "wb") as file:
        file.truncate(6 * 10**9)
    with pytest.raises(UserError, match="w.pth can't be read .it is larger than 1 GiB"):
        torch_files.read_pth(str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((np.int64(5),), (np.int64(2**62),)), ((np.array(5),), (np.array(2**62),))],
)
def test_read_pth_refuses_sizes_that_could_overflow(tmp_path, shape, strides):
    with pytest.raises(UserError, match="it names numpy"):
        read(tmp_path / "w.pth", tensor(0, shape, strides))


def test_read_pth_limits_what_tensors_make_of_a_shared_storage(tmp_path):
    whole = tensor(0, (12,), (1,))
    assert len(read(tmp_path / "w.pth", *[whole] * 4)) == 4
    with pytest.raises(UserError, match="far larger than its storages"):
        read(tmp_path / "w.pth", *[whole] * 5)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (tensor(0, (1,), (1,), key="1"), "storage 1, which is absent"),
        (tensor(0, (1,), (1,), 13), "storage 0 holds 12 numbers, not 13"),
        (opcodes("text") + b"Q", "not a pickle"),
        (storage(12).replace(b"storage", b"STORAGE", 1), "not a storage"),
        # BUILD sets attributes: of a function, and of a storage
        (REBUILD + b"N" + opcodes({"__defaults__": None}) + b"\x86b", "sets attributes of a func"),
        (storage(12) + b"N" + opcodes({"numbers": None}) + b"\x86b", "sets attributes of a stor"),
        (b"cbuiltins\neval\n", "it names builtins.eval"),
    ],
)
def test_read_pth_refuses_other_pickles(tmp_path, part, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path / "w.pth", part)


def test_read_pth_refuses_compressed_archives(tmp_path):
    """A compressed member can unpack to anything, whatever size it declares."""
    path = tmp_path / "w.pth"
    content = write_zip(path, {"x/data.pkl": b"N."}, zipfile.ZIP_BZIP2)
    check_refused(path, content, "it is compressed")


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path.read_bytes()


def check_refused(path, content, message):
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        torch_files.read_pth(str(path))
    assert str(path) in str(error.value) and r"\n" not in str(error.value)


def test_read_pth_refuses_damaged_archives(tmp_path):
    path = tmp_path / "w.pth"
    inception_reference.write_pth(path, {"a": np.arange(1000, dtype="float32")})
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not a zip archive"):
        check_refused(path, damaged, "can't be read .*copy it again")
    place = content.index(np.arange(1000, dtype="float32").tobytes()) + 2000
    flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    check_refused(path, flipped, "can't be read .*CRC")


def test_read_pth_refuses_archives_of_another_kind(tmp_path):
    path = tmp_path / "w.pth"
    check_refused(path, write_zip(path, {"readme.txt": b"hello"}), "it holds 0 data.pkl")
    two = {"x/data.pkl": b"N.", "y/data.pkl": b"N."}
    check_refused(path, write_zip(path, two), "it holds 2 data.pkl")
    for value in ({1: 2}, [1]):
        content = write_zip(path, {"x/data.pkl": pickle.dumps(value, 2)})
        check_refused(path, content, "expected a dictionary of tensors")


class Evil:
    def __reduce__(self):
        return print, ("this must never be seen",)


def test_read_pth_does_not_run_code(tmp_path, capfd):
    path = tmp_path / "w.pth"
    content = write_zip(path, {"x/data.pkl": pickle.dumps({"fc.weight": Evil()}, 2)})
    check_refused(path, content, "names .*print")
    assert "never be seen" not in "".join(capfd.readouterr())
