# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can correct."""

from __future__ import annotations

import sys


class UserError(Exception):
    """Wrong input: an error that the user can correct, not a fault of the program.

    The message says what is wrong, where, and what to do. Scripts print the message alone,
    without a traceback.
    """


def fail(message: str, status: int = 2) -> None:
    """Prints an error without a traceback, in a single write, and exits with `status`."""
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(status)


def require(condition: bool, message: str) -> None:
    """Raises `UserError(message)` unless a condition holds."""
    if not condition:
        raise UserError(message)
