# SPDX-License-Identifier: Apache-2.0
"""Checks the opcodes of a pickle before it is read.

Python's unpickler runs in C: a signal does not interrupt it, and a few bytes keep it busy
forever, for example with the hash of nested tuples that share their parts. This scan walks the
opcodes without making an object. It knows of each entry of the unpickler's stack and memo only
whether it may be the key of a dictionary, and refuses everything that other files than those of
data and weights would contain. The format: https://peps.python.org/pep-3154/ and pickletools.
"""

from __future__ import annotations

import pickle
from typing import Callable
from typing import Dict
from typing import List

MAX_STEPS = 10**6  # opcodes of a pickle: a few bytes each can create an object of 100 bytes
MAX_DEPTH = 100  # marks that are open at the same time
MAX_LINE = 1000  # bytes of a number or a name that a line of text holds
KEY_LINE = 10  # characters of an integer that may be a key

# What the scan knows of an object.
OTHER, KEY, MAKES_KEY = 0, 1, 2
# Functions whose results are bytes: Python 3 writes bytes with them in protocol 2.
BYTES_FUNCTIONS = (("_codecs", "encode"), ("__builtin__", "bytes"))

# Opcodes that push an object, by the bytes of their argument: a number, or the size of a count
# that precedes the argument's own bytes.
FIXED = {
    **{b"J": (4, KEY), b"K": (1, KEY), b"M": (2, KEY), b"G": (8, OTHER), b"N": (0, OTHER)},
    **{b"\x88": (0, OTHER), b"\x89": (0, OTHER)},  # True, False
    **{b")": (0, OTHER), b"]": (0, OTHER), b"}": (0, OTHER)},  # empty containers
}
COUNTED = {
    **{b"U": (1, KEY), b"T": (4, KEY)},  # texts of Python 2
    **{b"C": (1, KEY), b"B": (4, KEY), b"\x8e": (8, KEY)},  # bytes
    **{b"\x8c": (1, KEY), b"X": (4, KEY), b"\x8d": (8, KEY)},  # texts
    **{b"\x96": (8, OTHER), b"\x8a": (1, OTHER)},  # a bytearray, an integer
}
FRAME, PROTOCOL, STOP = b"\x95", b"\x80", b"."


class Budget:
    """The opcodes that one file may have, in one pickle or several.

    Args:
        steps: Their number.

    Attributes:
        left: The number that is left.
    """

    def __init__(self, steps: int = MAX_STEPS):
        self.steps = self.left = steps


def check_opcodes(content: bytes, budget: Budget) -> None:
    """Refuses pickles that could keep the unpickler busy, or take much more memory than bytes.

    Keys of dictionaries may be texts, bytes and integers of 32 bits.

    Args:
        content: The pickle.
        budget: The opcodes that are left; this pickle's are taken from it.

    Raises:
        pickle.UnpicklingError: Says what is refused.
    """
    _Scan(content).run(budget)


class _Scan:
    """One walk over the opcodes of a pickle.

    Args:
        content: The pickle.

    Attributes:
        place: Where the next opcode begins.
        stack: What is known of each object on the unpickler's stack.
        marks: Heights of the stack at the marks that are open.
        memo: What is known of the objects in the unpickler's memo.
    """

    def __init__(self, content: bytes):
        self.content, self.place = content, 0
        self.stack: List[int] = []
        self.marks: List[int] = []
        self.memo: Dict[int, int] = {}

    def run(self, budget: Budget) -> None:
        for _ in range(budget.left):
            budget.left -= 1
            code = self.content[self.place : self.place + 1]
            self.place += 1
            if code == STOP:
                break
            if code in FIXED:
                size, kind = FIXED[code]
                self.skip(size)
                self.stack.append(kind)
            elif code in COUNTED:
                size, kind = COUNTED[code]
                self.skip(self.read_number(size))
                self.stack.append(kind)
            else:
                actions = _ACTIONS.get(code)
                if actions is None:
                    raise pickle.UnpicklingError(
                        f"it has the opcode {code!r}" if code else "it is incomplete"
                    )
                actions(self)
        else:
            raise pickle.UnpicklingError(f"it is made in more than {budget.steps} steps")
        self.pop(1)
        if self.place != len(self.content):
            raise pickle.UnpicklingError("it has bytes after its end")

    def skip(self, size: int) -> None:
        self.place += size
        if self.place > len(self.content):
            raise pickle.UnpicklingError("it is incomplete")

    def read_number(self, size: int) -> int:
        start = self.place
        self.skip(size)
        return int.from_bytes(self.content[start : self.place], "little")

    def read_line(self, limit: int = MAX_LINE) -> bytes:
        end = self.content.find(b"\n", self.place, self.place + limit)
        if end < 0:
            raise pickle.UnpicklingError("it has a line that is incomplete or too long")
        line, self.place = self.content[self.place : end], end + 1
        return line

    def pop(self, count: int) -> List[int]:
        """Removes objects from the stack, down to the last mark at most."""
        if len(self.stack) - count < (self.marks[-1] if self.marks else 0):
            raise pickle.UnpicklingError("it takes objects that are not there")
        kinds = self.stack[-count:]
        del self.stack[-count:]
        return kinds

    def pop_mark(self) -> List[int]:
        """Removes the last mark, and the objects above it."""
        if not self.marks:
            raise pickle.UnpicklingError("it takes a mark that is not there")
        height = self.marks.pop()
        kinds = self.stack[height:]
        del self.stack[height:]
        return kinds

    def need(self, count: int) -> None:
        """Requires that objects are on the stack."""
        self.stack += self.pop(count)

    def check_keys(self, kinds: List[int]) -> None:
        """Requires that pairs of a key and a value have keys that are quick to hash."""
        if len(kinds) % 2 or any(kind != KEY for kind in kinds[::2]):
            raise pickle.UnpicklingError(
                "it has a dictionary whose keys are not texts, bytes or small integers"
            )

    def remember(self, index: int) -> None:
        # An unpickler allocates its memo up to the largest index.
        if index > min(len(self.content), MAX_STEPS):
            raise pickle.UnpicklingError("it uses a memo index larger than its own size")
        self.need(1)
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise pickle.UnpicklingError("it uses a memo index that is not set")
        self.stack.append(self.memo[index])


def _read_index(scan: _Scan) -> int:
    line = scan.read_line(20)
    if not line.isdigit():
        raise pickle.UnpicklingError("it has a memo index that is not a number")
    return int(line)


def _protocol(scan: _Scan) -> None:
    if scan.read_number(1) > pickle.HIGHEST_PROTOCOL:
        raise pickle.UnpicklingError("it has a protocol of a later Python")


def _frame(scan: _Scan) -> None:
    size = scan.read_number(8)
    if scan.place + size > len(scan.content):
        raise pickle.UnpicklingError("it is incomplete")


def _mark(scan: _Scan) -> None:
    if len(scan.marks) == MAX_DEPTH:
        raise pickle.UnpicklingError(f"it has more than {MAX_DEPTH} marks at the same time")
    scan.marks.append(len(scan.stack))


def _integer_line(scan: _Scan) -> None:
    line = scan.read_line(300)
    is_truth = line in (b"00", b"01")  # False and True in protocols 0 and 1
    scan.stack.append(KEY if len(line) <= KEY_LINE and not is_truth else OTHER)


def _long_line(scan: _Scan) -> None:
    scan.read_line(300)
    scan.stack.append(OTHER)


def _text_line(scan: _Scan) -> None:
    scan.read_line(len(scan.content))
    scan.stack.append(KEY)


def _global(scan: _Scan) -> None:
    name = tuple(scan.read_line().decode("latin1") for _ in range(2))
    scan.stack.append(MAKES_KEY if name in BYTES_FUNCTIONS else OTHER)


def _stack_global(scan: _Scan) -> None:
    scan.pop(2)
    scan.stack.append(OTHER)


def _tuple_of(count: int) -> Callable[[_Scan], None]:
    def make(scan: _Scan) -> None:
        scan.pop(count)
        scan.stack.append(OTHER)

    return make


def _sequence(scan: _Scan) -> None:
    scan.pop_mark()
    scan.stack.append(OTHER)


def _dictionary(scan: _Scan) -> None:
    scan.check_keys(scan.pop_mark())
    scan.stack.append(OTHER)


def _append(scan: _Scan) -> None:
    scan.pop(1)
    scan.need(1)


def _appends(scan: _Scan) -> None:
    scan.pop_mark()
    scan.need(1)


def _set_item(scan: _Scan) -> None:
    scan.check_keys(scan.pop(2))
    scan.need(1)


def _set_items(scan: _Scan) -> None:
    scan.check_keys(scan.pop_mark())
    scan.need(1)


def _reduce(scan: _Scan) -> None:
    function, _ = scan.pop(2)
    scan.stack.append(KEY if function == MAKES_KEY else OTHER)


def _persistent(scan: _Scan) -> None:
    scan.pop(1)
    scan.stack.append(OTHER)


_ACTIONS = {
    PROTOCOL: _protocol,
    FRAME: _frame,
    b"(": _mark,
    b"I": _integer_line,
    b"L": _long_line,
    b"F": _long_line,
    b"S": _text_line,
    b"V": _text_line,
    b"c": _global,
    b"\x93": _stack_global,
    b"t": _sequence,
    b"\x85": _tuple_of(1),
    b"\x86": _tuple_of(2),
    b"\x87": _tuple_of(3),
    b"l": _sequence,
    b"d": _dictionary,
    b"a": _append,
    b"e": _appends,
    b"s": _set_item,
    b"u": _set_items,
    b"R": _reduce,
    b"b": _append,  # BUILD takes a state, and leaves the object
    b"Q": _persistent,
    b"p": lambda scan: scan.remember(_read_index(scan)),
    b"q": lambda scan: scan.remember(scan.read_number(1)),
    b"r": lambda scan: scan.remember(scan.read_number(4)),
    b"\x94": lambda scan: scan.remember(len(scan.memo)),
    b"g": lambda scan: scan.recall(_read_index(scan)),
    b"h": lambda scan: scan.recall(scan.read_number(1)),
    b"j": lambda scan: scan.recall(scan.read_number(4)),
}
