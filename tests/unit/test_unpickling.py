# SPDX-License-Identifier: Apache-2.0
"""Pickles that share, grow, or try to change the functions that they may call."""

import pickle
import subprocess
import sys
from pathlib import Path

import fuzz_cases
import numpy as np
import pytest

from support import opcodes
from support import unpickling
from support.errors import UserError
from support.unpickling import unpickle


def test_unpickle_visits_shared_parts_once():
    shared = []
    for _ in range(60):
        shared = [shared, shared]
    content = pickle.dumps(shared)
    assert len(content) < 1000
    assert len(unpickle(content, "here")) == 2


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy.core.numeric", "_frombuffer"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "dtype"),
        ("collections", "OrderedDict"),
    ],
)
def test_unpickle_refuses_to_set_attributes_of_functions(module, name):
    # A global, then BUILD with attributes to set.
    attributes = pickle.dumps({"__defaults__": None}, 2)[2:-1]
    content = b"\x80\x02" + f"c{module}\n{name}\n".encode() + b"N" + attributes + b"\x86b."
    with pytest.raises(UserError, match="here is not a pickle of arrays .*it sets attributes"):
        unpickle(content, "here")
    array = np.asfortranarray(np.arange(6).reshape(2, 3))  # arrays are read as before
    for protocol in (2, 5):
        np.testing.assert_array_equal(unpickle(pickle.dumps(array, protocol), "here"), array)


def test_unpickle_refuses_bytes_after_the_end():
    with pytest.raises(UserError, match="it has bytes after its end"):
        unpickle(pickle.dumps([1]) + b"x", "here")


def test_unpickle_limits_steps_and_memo():
    content = b"\x80\x02]" + b"]a" * 10 + b"."
    steps = 2 + 20 + 1  # PROTO, EMPTY_LIST, ten pairs, STOP
    assert unpickle(content, "here", budget=opcodes.Budget(steps)) == [[]] * 10
    with pytest.raises(UserError, match="it is made in more than 22 steps"):
        unpickle(content, "here", budget=opcodes.Budget(steps - 1))
    shared = opcodes.Budget(2 * steps - 1)  # of two pickles of one file
    assert unpickle(content, "here", budget=shared) == [[]] * 10
    with pytest.raises(UserError, match="it is made in more than 45 steps"):
        unpickle(content, "here", budget=shared)
    with pytest.raises(UserError, match="memo index larger than its own size"):
        unpickle(b"\x80\x02Nr" + (10**9).to_bytes(4, "little") + b".", "here")


def test_unpickle_encodes_bytes_of_protocol_2():
    value = {"a": b"\x00\xff", "b": b""}
    found = unpickle(pickle.dumps(value, 2), "here")
    assert {unpickling.as_text(key): part for key, part in found.items()} == value
    content = pickle.dumps(b"\xff", 2).replace(b"latin1", b"cp1252")
    with pytest.raises(UserError, match="encodes a text as cp1252"):
        unpickle(content, "here")


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value


@pytest.mark.parametrize("times", [1, 100])
@pytest.mark.parametrize(
    ("function", "argument"),
    [
        (b"_codecs\nencode\n", text(b"a" * 10**4) + text(b"latin1") + b"\x86"),
        (b"collections\nOrderedDict\n", b"](" + b"K\x00K\x00\x86" * 10**4 + b"e\x85"),
    ],
)
def test_calls_make_no_more_than_the_pickle_holds(function, argument, times):
    """A pickle may call a function again and again with an argument that it holds once."""
    content = b"\x80\x02(c" + function + b"q\x00" + argument + b"q\x01"
    content += b"h\x00h\x01R" * times + b"t."
    if times == 1:
        assert len(unpickle(content, "here")) == 3
        return
    with pytest.raises(UserError, match="its calls make far more than it holds"):
        unpickle(content, "here")


def test_as_text_decodes_bytes_only():
    assert unpickling.as_text(b"name") == unpickling.as_text("name") == "name"
    assert unpickling.as_text(5) == 5


KEYS = "keys are not texts, bytes or small integers"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({(1, 2): 3}, KEYS),
        ({None: 1}, KEYS),
        ({1.5: 1}, KEYS),
        ({True: 1}, KEYS),
        ({2**61 - 1: 1}, KEYS),
        ({np.int64(1): 1}, KEYS),
        ({1, 2}, "opcode|names"),
        (frozenset([1]), "opcode|names"),
        (Path("x"), "names|opcode"),
    ],
)
@pytest.mark.parametrize("protocol", range(6))
def test_unpickle_refuses_what_could_be_slow_to_hash(value, message, protocol):
    with pytest.raises(UserError, match=f"here is not a pickle .*({message})"):
        unpickle(pickle.dumps(value, protocol), "here")


@pytest.mark.parametrize("protocol", range(6))
def test_unpickle_reads_keys_of_every_protocol(protocol):
    keys = ["text", "\u56fe", b"bytes", b"\xff", b"", 0, -1, 255, 65536, 2**31 - 1, ""]
    # In protocol 2 and below, Python 3 writes texts as such, and bytes by a call.
    value = {key: [number] for number, key in enumerate(keys)}
    assert unpickle(pickle.dumps(value, protocol), "here") == value
    shared = {"a": value, "b": value}
    assert unpickle(pickle.dumps(shared, protocol), "here") == shared


def test_unpickle_reads_what_python_2_wrote():
    """Texts of Python 2, and an OrderedDict as a list of pairs."""
    content = b"ccollections\nOrderedDict\np0\n((lp1\n(lp2\nS'a'\np3\naI1\naatp4\nRp5\n."
    assert unpickle(content, "here") == {b"a": 1}
    assert unpickle(b"(dp0\nS'data'\np1\n(lp2\nI1\naI01\nas.", "here") == {b"data": [1, True]}


def test_slow_pickles_are_refused_before_they_are_read():
    """A child reads them, since a plain unpickler would not come back from most of them."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.path.insert(0, sys.argv[2])\n"
        "import helpers, fuzz_cases\n"
        "from support.unpickling import unpickle\n"
        "from support.errors import UserError\n"
        "for content in fuzz_cases.hanging_pickles():\n"
        "    try: unpickle(content, 'here')\n"
        "    except UserError: print('refused')\n"
        "    else: print('read', content[:100])\n"
    )
    unit = Path(fuzz_cases.__file__).parent
    arguments = [sys.executable, "-c", code, str(unit), str(unit.parent)]
    found = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=True)
    lines = [line for line in found.stdout.splitlines() if line.startswith(("refused", "read"))]
    assert lines == ["refused"] * len(fuzz_cases.hanging_pickles())


@pytest.mark.parametrize("number", range(len(fuzz_cases.RUNNING_PICKLES)))
def test_pickles_that_run_code_are_refused(number):
    with pytest.raises(UserError, match="here is not a pickle"):
        unpickle(fuzz_cases.RUNNING_PICKLES[number], "here")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        *(((1,) * rank, "dimensions, more than 32") for rank in (33, 100, 5000)),
        ((-1,), "below 0"),
        ((2**70,), "far too large"),
        ((5,), "size of an array"),
        ((4.0,), "whole numbers"),
        (4, "not a list"),
    ],
)
def test_unpickle_checks_shapes_before_it_makes_an_array(shape, message):
    with pytest.raises(UserError, match=f"here is not a pickle .*{message}"):
        unpickle(fuzz_cases.array_pickle(shape), "here")
    with pytest.raises(UserError, match="an empty array has a size"):
        unpickle(fuzz_cases.array_pickle((0, 2**40, 2**40), content=b""), "here")
    found = unpickle(fuzz_cases.array_pickle((2, 1, 2)), "here")["data"]
    assert found.shape == (2, 1, 2) and found.dtype == "<f4"


@pytest.mark.parametrize("code", ["O", "V4", "f4,f4", "(9,)f4", "S99", "M8[s]", "x" * 10**6, "c8"])
def test_unpickle_refuses_types_other_than_numbers(code):
    with pytest.raises(UserError, match="here is not a pickle .*it holds an array of"):
        unpickle(fuzz_cases.array_pickle((4,), code), "here")


def test_little_memory_is_not_taken_for_damage(monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(unpickling, "check_opcodes", fail)
    with pytest.raises(MemoryError):
        unpickle(pickle.dumps([1]), "here")
