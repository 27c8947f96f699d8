# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole, and their checksums."""

import hashlib
import stat

import pytest

from support import storage
from support.errors import UserError


def test_replacing_writes_a_file_that_others_may_read(tmp_path):
    path = tmp_path / "folder" / "file"
    with storage.replacing(str(path)) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_replacing_keeps_the_old_file_after_an_error(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), storage.replacing(str(path)) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_remove_partial_removes_what_a_killed_process_left(tmp_path):
    writing = storage.replacing(str(tmp_path / "file"))
    writing.__enter__()  # the process is killed here
    others = {"other", "a download of the user.partial", "tmp.partial"}
    for name in others:
        (tmp_path / name).write_bytes(b"")
    assert len(list(tmp_path.iterdir())) == 4
    storage.remove_partial(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == others
    storage.remove_partial(str(tmp_path / "absent"))


def test_sha256_is_that_of_the_content(tmp_path):
    content = bytes(range(256)) * 10000  # more than one block
    (tmp_path / "file").write_bytes(content)
    assert storage.sha256(str(tmp_path / "file")) == hashlib.sha256(content).hexdigest()


def test_remove_partial_leaves_folders_and_removes_links(tmp_path):
    (tmp_path / "tmp1234abcd.partial").mkdir()
    (tmp_path / "tmp_234abcd.partial").symlink_to(tmp_path / "tmp1234abcd.partial")
    storage.remove_partial(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["tmp1234abcd.partial"]


def test_check_writable_creates_the_folder_or_says_why_not(tmp_path):
    storage.check_writable(str(tmp_path / "a" / "b"), "hint")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"file/b can't be written to \(.*\)\. Name another\."):
        storage.check_writable(str(tmp_path / "file" / "b"), "Name another.")
