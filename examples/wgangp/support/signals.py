# SPDX-License-Identifier: Apache-2.0
"""SIGINT, SIGTERM and SIGHUP (of a terminal that is closed).

This module imports little, so that signals are handled from the first milliseconds on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator
    from typing import List
    from typing import Tuple


def end_at_once_on_signals() -> None:
    """Makes signals end the process with one line, before anything is written.

    No exception is raised, since modules that are being imported may catch it.
    """
    _handle(lambda number, _: _end_at_once(number))


def end_on_signals() -> None:
    """Makes signals end the process with one line and no traceback.

    The first signal ends the process by SystemExit, so that files are closed and locks are
    released. A second one ends it at once with the same status, whatever catches SystemExit.
    Paddle sets handlers of its own while it is imported: call this again afterwards.
    """

    def end(number, _):
        for other in _handled():
            signal.signal(other, lambda *_: os._exit(128 + number))
        _print_end()
        sys.exit(128 + number)

    _handle(end)


def end_on_broken_pipe() -> None:
    """Ends the process silently when nobody reads what it prints, as after `| head`.

    A training does not end then: its files are what counts.
    """
    if hasattr(signal, "SIGPIPE"):  # not on Windows
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def hold_sigterm() -> None:
    """Holds SIGTERM back until `end_on_signals` or `stop_signals` handles it.

    While Paddle is imported, a handler of its own would print a dump of C++.
    """
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def ignore_signals() -> None:
    """Ignores signals, so that the process ends with the status that it has."""
    for number in _handled():
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def stop_signals() -> Iterator[List[int]]:
    """Collects signals in a list, so that a loop can end well.

    A second SIGINT (Ctrl-C) ends at once, by KeyboardInterrupt. A second SIGTERM does not:
    Paddle's launcher sends three within a second.
    """
    import logging

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

    former = {number: signal.getsignal(number) for number in _handled()}
    _handle(receive)
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _handled() -> Tuple[int, ...]:
    """The signals that are handled. `nohup` makes a process ignore SIGHUP, and that stays so."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)  # not on Windows
    if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
        numbers.append(hang_up)
    return tuple(numbers)


def _handle(handler) -> None:
    """Sets the handler of all signals, and delivers a SIGTERM that was held back."""
    for number in _handled():
        signal.signal(number, handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _end_at_once(number: int) -> None:
    _print_end()
    os._exit(128 + number)


def _print_end() -> None:
    # The signal may have interrupted a print, so this does not use Python's streams.
    with contextlib.suppress(OSError):  # The terminal may be gone.
        os.write(2, b"Error: interrupted.\n")
