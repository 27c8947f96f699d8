# SPDX-License-Identifier: Apache-2.0
"""Log lines about the progress of slow work, and where a bar replaces them."""

import io
import logging

import pytest

from support import progress as progress_module
from support.progress import Progress
from support.progress import off_terminals


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


class Stream(io.StringIO):
    def __init__(self, is_terminal):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


@pytest.mark.parametrize("has_bar", [True, False])
def test_what_a_bar_shows_goes_to_files_and_pipes_only(has_bar, monkeypatch):
    log = logging.getLogger("ppsci")
    streams = {is_terminal: Stream(is_terminal) for is_terminal in (True, False)}
    monkeypatch.setattr(log, "handlers", [logging.StreamHandler(s) for s in streams.values()])
    log.setLevel(logging.INFO)
    monkeypatch.setattr(progress_module.sys, "stderr", Stream(has_bar))
    with off_terminals():
        log.info("a line")
        log.warning("a warning")
    log.info("another")
    assert streams[False].getvalue() == "a line\na warning\nanother\n"
    seen = "a warning\nanother\n"
    assert streams[True].getvalue() == (seen if has_bar else f"a line\n{seen}")
