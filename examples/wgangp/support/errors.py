# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can put right."""

from __future__ import annotations

import sys


class UserError(Exception):
    """Something that the user can put right: wrong input, not a fault of the program.

    Its message says what was wrong, where, and what to do; scripts print it alone.
    """


def fail(message: str, status: int = 2) -> None:
    """Prints an error in one piece, without a traceback, and exits."""
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(status)


def require(holds: bool, message: str) -> None:
    """Raises `UserError(message)` unless something holds."""
    if not holds:
        raise UserError(message)
