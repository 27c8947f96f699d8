# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can correct, and the form of foreign texts in their messages."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import reprlib
import sys
from typing import Any
from typing import Optional
from typing import Sequence

MESSAGE_LIMIT = 4000  # characters of a whole message
# What the loader of libraries, Python, C++ and Paddle's reader say when memory is too small.
MEMORY_TEXTS = (
    *("failed to map segment", "cannot allocate memory", "Cannot allocate memory"),
    *("can't start new thread", "Resource temporarily unavailable", "Blocking queue is killed"),
)


class UserError(Exception):
    """Wrong input: an error that the user can correct, not a fault of the program.

    The message says what is wrong, where, and what to do. Scripts print the message alone,
    without a traceback. It is one line of printable characters, whatever texts it quotes.
    """

    def __init__(self, message: str):
        super().__init__(printable(message, MESSAGE_LIMIT))


def show(message: str) -> None:
    """Prints an error without a traceback, in a single write."""
    with contextlib.suppress(OSError):  # The terminal may be gone, or the disk full.
        print(f"Error: {printable(message, MESSAGE_LIMIT)}", file=sys.stderr, flush=True)


def fail(message: str, status: int = 2) -> None:
    """Prints an error without a traceback, and exits with `status`."""
    show(message)
    sys.exit(status)


def require(condition: bool, message: str) -> None:
    """Raises `UserError(message)` unless a condition holds."""
    if not condition:
        raise UserError(message)


def explain(error: BaseException) -> Optional[str]:
    """The message for an error that the user can correct; None for a fault of the program."""
    if isinstance(error, UserError):
        return str(error)
    is_system = isinstance(error, (OSError, ImportError, RuntimeError, SystemError))
    if not (
        isinstance(error, MemoryError)
        or getattr(error, "errno", None) == errno.ENOMEM
        or (is_system and any(text in str(error) for text in MEMORY_TEXTS))
    ):
        return None
    # Paddle writes its kind of error, or a whole C++ traceback, before what it has to say.
    text = re.sub(r"(?s)^.*ResourceExhausted(Error:|\))", "", str(error)).strip()
    reason = f" ({printable(text.splitlines()[0])})" if text else ""
    return (
        f"there is not enough memory{reason}. Choose smaller batches (TRAIN.batch_size, "
        "EVAL.batch_size) or networks, or allow more memory (ulimit -v). What was saved is "
        "intact: TRAIN.resume continues a training."
    )


def printable(text: Any, limit: int = 200) -> str:
    """Returns the form in which a message quotes a text that comes from outside.

    Such texts are names of files and of archives' members, keys, and messages of libraries.
    Line breaks, escape sequences, invisible characters and bytes that are not UTF-8 become
    backslash escapes. The middle of a long text is left out. The result of a result is the same.

    Args:
        text: The text, or bytes, or any other value or exception, such as an `OSError`.
        limit: Largest number of characters of the result, at least 10.
    """
    text = _to_text(text, limit).strip()
    head, tail = limit - 3 - (limit - 3) // 3, (limit - 3) // 3
    for change in (lambda text: text, _escape):  # the escapes are longer than what they stand for
        text = change(text)
        if len(text) > limit:
            text = f"{text[:head]}...{text[-tail:]}"
    return text


def list_some(names: Sequence[str], limit: int, count: Optional[int] = None) -> str:
    """Lists the first names, and says how many more there are.

    Args:
        names: At least the first `limit` names.
        limit: Largest number of names to list.
        count: Number of all names; by default, of those given.
    """
    more = (len(names) if count is None else count) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def _to_text(value: Any, limit: int) -> str:
    """Returns a value as a text, without work that the value's nesting decides on."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        text = bytes(value[: 4 * limit]).decode("utf-8", "backslashreplace")
        return f"{text}..." if len(value) > 4 * limit else text
    try:
        if isinstance(value, BaseException):
            is_nested = any(isinstance(part, (tuple, list, dict, set)) for part in value.args)
            return type(value).__name__ if is_nested else str(value) or type(value).__name__
        return str(value) if isinstance(value, os.PathLike) else reprlib.repr(value)
    except Exception:  # such as a whole number with very many digits
        return f"a value of the type {type(value).__name__}"


def _escape(text: str) -> str:
    return "".join(
        part if part.isprintable() else part.encode("unicode_escape").decode() for part in text
    )
