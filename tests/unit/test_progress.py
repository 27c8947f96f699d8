# SPDX-License-Identifier: Apache-2.0
"""Log lines about the progress of slow work."""

from support import progress as progress_module
from support.progress import Progress


def test_progress_logs_a_line_when_one_is_due(monkeypatch):
    lines, seconds = [], iter([0, 10, 40, 50, 100, 101, 111, 136])
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: next(seconds))
    monkeypatch.setattr(progress_module.logger, "info", lines.append)
    progress = Progress("pictures", 100)
    for _ in range(5):
        progress.add(20)
    # 40 of 100 were done after 40 s, and 80 after 100 s.
    assert lines == ["40 of 100 pictures, 00:01:00 left", "80 of 100 pictures, 00:00:25 left"]
    # The next evaluation counts from 0 and starts a clock of its own, at 101 s.
    for _ in range(3):
        progress.add(20)
    assert lines[2:] == ["40 of 100 pictures, 00:00:52 left"]
