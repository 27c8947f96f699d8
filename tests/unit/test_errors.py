# SPDX-License-Identifier: Apache-2.0
"""Messages quote foreign texts in one printable, shortened line."""

import os
import pathlib

import pytest

from support import errors
from support.errors import UserError
from support.errors import printable


def shared_tuples():
    value = ()
    for _ in range(200):
        value = (value, value)
    return value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name.png", "name.png"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred", r"\x1b[31mred"),
        (os.fsdecode(b"\xff.png"), r"\udcff.png"),
        (b"\xff\n", r"\xff"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("图片", "图片"),
        (pathlib.Path("/a\nb"), r"/a\nb"),
        (EOFError(), "EOFError"),
        (OSError(2, "No such file"), "[Errno 2] No such file"),
        (ValueError("\n two\nlines \n"), r"two\nlines"),
        (KeyError(shared_tuples()), "KeyError"),
        pytest.param(10**5000, "a value of the type int", id="digits"),
        (None, "None"),
        (7, "7"),
    ],
)
def test_printable_makes_one_line_of_any_text(text, expected):
    found = printable(text)
    assert found.isprintable() and len(found) <= 200
    assert found == expected
    assert printable(found) == found


@pytest.mark.parametrize(
    ("count", "expected"), [(None, "a, b and 1 more"), (9, "a, b and 7 more"), (2, "a, b")]
)
def test_list_some_says_how_many_it_leaves_out(count, expected):
    assert errors.list_some(["a", "b", "c"], 2, count) == expected
    assert errors.list_some([], 2) == ""


def test_printable_of_nested_values_takes_no_time():
    assert len(printable(shared_tuples())) <= 200
    assert len(printable(bytes(10**8))) <= 200


@pytest.mark.parametrize("text", ["x", "\x00", b"\xff", "é\n"])
@pytest.mark.parametrize("limit", [10, 200, 4000])
def test_printable_leaves_out_the_middle_of_a_long_text(text, limit):
    found = printable(text * 10**6, limit)
    assert found.isprintable() and limit // 2 < len(found) <= limit and "..." in found
    assert printable(f"begin {'x' * 1000} end").startswith("begin x")
    assert printable(f"begin {'x' * 1000} end").endswith("x end")


def test_an_error_and_the_line_that_ends_a_program_are_printable(capsys):
    message = str(UserError("no file a\nb\x1b[31m" + "x" * 10**6))
    assert message.isprintable() and len(message) == errors.MESSAGE_LIMIT
    with pytest.raises(SystemExit) as end:
        errors.fail("two\nlines\udcff", 3)
    assert end.value.code == 3
    assert capsys.readouterr().err == "Error: two\\nlines\\udcff\n"
