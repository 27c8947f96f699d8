# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM."""

from __future__ import annotations

import signal

from support.errors import fail


def end_on_signals() -> None:
    """Makes SIGINT and SIGTERM end the process with a line, and no traceback of ours or Paddle's.

    To be called again once Paddle, which sets handlers of its own, is imported.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: fail("interrupted.", 128 + number))
