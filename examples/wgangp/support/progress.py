# SPDX-License-Identifier: Apache-2.0
"""Progress of something slow, logged at intervals."""

from __future__ import annotations

import time

from ppsci.utils import logger

SILENCE = 30  # seconds after which a line is due in something slow


class Progress:
    """Tells each half minute how far something slow has come.

    Args:
        what: What is counted.
        total: How many; the count begins anew behind it.
    """

    def __init__(self, what: str, total: int):
        self.what, self.total, self.count = what, total, 0

    def add(self, count: int) -> None:
        now = time.perf_counter()
        if self.count == 0:
            self.start = self.told = now
        elif now - self.told >= SILENCE:
            self.told = now
            left = (now - self.start) / self.count * (self.total - self.count)
            logger.info(
                f"{self.count} of {self.total} {self.what}, "
                f"{time.strftime('%H:%M:%S', time.gmtime(left))} left"
            )
        self.count += count
        if self.count >= self.total:
            self.count = 0
