# SPDX-License-Identifier: Apache-2.0
"""A sample of the cases of fuzz.py."""

import fuzz


def test_readers_refuse_damaged_files_or_read_them_right():
    report = fuzz.fuzz(400, seed=1)
    assert not report.failures, report.failures[0]
    # Each reader refuses some files, and reads some whose damage is outside of the content.
    outcomes = report.outcomes
    assert {name for name, kind in outcomes if kind == "refused"} == {name for name, _ in outcomes}
    assert len({name for name, _ in outcomes}) == 6
    assert sum(count for (_, kind), count in outcomes.items() if kind == "equal") > 5
