# SPDX-License-Identifier: Apache-2.0
"""Pickles that share, grow, or try to change the functions that they may call."""

import pickle

import numpy as np
import pytest

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


def test_unpickle_limits_steps_and_memo(monkeypatch):
    content = b"\x80\x02]" + b"]a" * 10 + b"."
    steps = 2 + 20 + 1  # PROTO, EMPTY_LIST, ten pairs, STOP
    monkeypatch.setattr(unpickling, "MAX_STEPS", steps)
    assert unpickle(content, "here") == [[]] * 10
    monkeypatch.setattr(unpickling, "MAX_STEPS", steps - 1)
    with pytest.raises(UserError, match="it is made in more than 22 steps"):
        unpickle(content, "here")
    with pytest.raises(UserError, match="memo index larger than its own size"):
        unpickle(b"\x80\x02Nr" + (10**9).to_bytes(4, "little") + b".", "here")


def test_unpickle_encodes_bytes_of_protocol_2():
    value = {"a": b"\x00\xff", "b": b""}
    found = unpickle(pickle.dumps(value, 2), "here")
    assert {unpickling.as_text(key): part for key, part in found.items()} == value
    content = pickle.dumps(b"\xff", 2).replace(b"latin1", b"cp1252")
    with pytest.raises(UserError, match="encodes a text as cp1252"):
        unpickle(content, "here")


def test_as_text_decodes_bytes_only():
    assert unpickling.as_text(b"name") == unpickling.as_text("name") == "name"
    assert unpickling.as_text(5) == 5
