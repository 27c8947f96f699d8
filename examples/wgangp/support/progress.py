# SPDX-License-Identifier: Apache-2.0
"""Log lines about the progress of slow work, and where a bar replaces them."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import Iterator

from ppsci.utils import logger

SILENCE = 30  # seconds; slow work logs a line at least this often


class Progress:
    """Logs how far slow work has come, every `SILENCE` seconds.

    When `total` is reached, the count starts again from 0.

    Args:
        what: The name of what is counted, such as "pictures".
        total: How many there are.
    """

    def __init__(self, what: str, total: int):
        self.what, self.total, self.count = what, total, 0

    def add(self, count: int) -> None:
        """Adds to the count when this part of the work begins, and logs a line if one is due."""
        now = time.perf_counter()
        if self.count == 0:
            self.start = self.last_line = now
        elif now - self.last_line >= SILENCE:
            self.last_line = now
            left = (now - self.start) / self.count * (self.total - self.count)
            logger.info(
                f"{self.count} of {self.total} {self.what}, "
                f"{time.strftime('%H:%M:%S', time.gmtime(left))} left"
            )
        self.count += count
        if self.count >= self.total:
            self.count = 0


def has_bar() -> bool:
    """Whether the process shows bars: where the standard error stream is a terminal."""
    return sys.stderr.isatty()


@contextlib.contextmanager
def off_terminals() -> Iterator[None]:
    """Keeps a block's lines of the log, except warnings, off a terminal that has a bar.

    Files and pipes get them.
    """
    handlers = logging.getLogger("ppsci").handlers
    shown = [handler for handler in handlers if has_bar() and handler.stream.isatty()]
    levels = [handler.level for handler in shown]
    try:
        for handler in shown:
            handler.setLevel(logging.WARNING)
        yield
    finally:
        for handler, level in zip(shown, levels):
            handler.setLevel(level)
