# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM."""

from __future__ import annotations

import contextlib
import logging
import signal
from typing import Iterator
from typing import List

from support.errors import fail


def end_on_signals() -> None:
    """Makes SIGINT and SIGTERM end the process with one line and no traceback.

    Paddle sets handlers of its own while it is imported: call this again afterwards.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: fail("interrupted.", 128 + number))


@contextlib.contextmanager
def stop_signals() -> Iterator[List[int]]:
    """Collects SIGINT and SIGTERM in a list, so that a loop can end well.

    A second SIGINT (Ctrl-C) ends at once, by KeyboardInterrupt. A second SIGTERM does not:
    Paddle's launcher sends three within a second.
    """
    received: List[int] = []

    def receive(number, _):
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not received:
            logging.getLogger("ppsci").info(
                f"{signal.Signals(number).name}: this iteration is finished and saved; Ctrl-C "
                "ends at once."
            )
        received.append(number)

    former = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
