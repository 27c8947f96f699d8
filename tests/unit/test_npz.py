# SPDX-License-Identifier: Apache-2.0
"""The `.npz` files of checkpoints: a checksum, and arrays of numbers only."""

import hashlib
import zipfile

import fuzz_cases
import numpy as np
import pytest

from support import archives
from support import npz
from support.errors import UserError

ARRAYS = {
    "a/b": np.arange(6, dtype="float32").reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "flag": np.array(True),
    "empty": np.zeros((0, 4), "uint8"),
}


def test_read_npz_returns_what_write_npz_wrote(tmp_path):
    path = str(tmp_path / "folder" / "c.npz")
    npz.write_npz(path, ARRAYS)
    found = npz.read_npz(path)
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_write_npz_writes_the_format_of_numpy_with_a_checksum(tmp_path):
    path = tmp_path / "c.npz"
    npz.write_npz(str(path), ARRAYS)
    with np.load(path) as found:
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name], array)
    content = path.read_bytes()
    assert content[-64:].decode() == hashlib.sha256(content[:-64]).hexdigest()


@pytest.mark.parametrize("place", [0, 50, -65, -1])
def test_read_npz_finds_a_changed_bit(tmp_path, place):
    path = tmp_path / "c.npz"
    npz.write_npz(str(path), ARRAYS)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="c.npz is not intact .its checksum"):
        npz.read_npz(str(path))


def test_read_npz_refuses_arrays_of_anything_but_numbers(tmp_path):
    path = str(tmp_path / "c.npz")
    for array in (np.array([{}]), np.array(["text"]), np.zeros(2, "M8[s]"), np.zeros(2, "c8")):
        npz.write_npz(path, {"a": array})
        with pytest.raises(UserError, match="is not intact .it holds an array of"):
            npz.read_npz(path)


def test_read_npz_refuses_compressed_and_absent_files(tmp_path):
    path = tmp_path / "c.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"N.")
        archive.comment = b"0" * 64
    content = path.read_bytes()[:-64]
    with pytest.raises(UserError, match="is not intact .its checksum"):
        npz.read_npz(str(path))
    path.write_bytes(content + hashlib.sha256(content).hexdigest().encode())
    with pytest.raises(UserError, match="is not intact .it is compressed"):
        npz.read_npz(str(path))
    with pytest.raises(UserError, match="is not intact .*No such file"):
        npz.read_npz(str(tmp_path / "absent.npz"))


@pytest.mark.parametrize("number", range(len(fuzz_cases.crafted_npy())))
def test_read_npz_refuses_arrays_of_impossible_heads(tmp_path, number):
    path = tmp_path / "c.npz"
    content = fuzz_cases.pack_zip([("a.npy", fuzz_cases.crafted_npy()[number])])
    path.write_bytes(fuzz_cases.with_checksum(content + bytes(64)))
    with pytest.raises(UserError, match="c.npz is not intact .*(array|number|dimensions)"):
        npz.read_npz(str(path))


@pytest.mark.parametrize(
    ("number", "message"),
    [*enumerate(("twice", "overlaps", "more than", "disagree", "is damaged", "differ"), 6)],
)
def test_read_npz_refuses_crafted_archives_with_a_right_checksum(tmp_path, number, message):
    (tmp_path / "c.npz").write_bytes(fuzz_cases.crafted_zips()[number])
    with pytest.raises(UserError, match=f"c.npz is not intact .*{message}"):
        npz.read_npz(str(tmp_path / "c.npz"))


def test_files_beyond_the_limit_are_neither_read_nor_written(tmp_path, monkeypatch):
    path = tmp_path / "c.npz"
    with open(path, "wb") as file:
        file.truncate(6 * 10**9)
    with pytest.raises(UserError, match="is not intact .it is larger than 4 GiB"):
        npz.read_npz(str(path))
    npz.write_npz(str(path), ARRAYS)
    size = path.stat().st_size
    monkeypatch.setattr(archives, "MAX_BYTES", size // npz.PARTS + 1)
    npz.write_npz(str(path), ARRAYS)
    assert npz.read_npz(str(path)).keys() == ARRAYS.keys()
    monkeypatch.setattr(archives, "MAX_BYTES", size // npz.PARTS - 1)
    with pytest.raises(UserError, match="c.npz would be larger than .*Make the networks smaller"):
        npz.write_npz(str(path), ARRAYS)
    with pytest.raises(UserError, match="is not intact .it is larger than"):
        npz.read_npz(str(path))


def test_little_memory_is_not_taken_for_damage(tmp_path, monkeypatch):
    npz.write_npz(str(tmp_path / "c.npz"), ARRAYS)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(archives, "read_uncompressed_zip", fail)
    with pytest.raises(MemoryError):
        npz.read_npz(str(tmp_path / "c.npz"))
