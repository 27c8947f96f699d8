# SPDX-License-Identifier: Apache-2.0
"""A sample of the cases of fuzz.py."""

import fuzz


def test_readers_refuse_or_read_right():
    outcomes, failures, _, _ = fuzz.fuzz(400, seed=1)
    assert not failures, failures[0]
    # of each reader, some are refused; and of those whose damage lies beside, some are read
    assert {name for name, kind in outcomes if kind == "refused"} == {n for n, _ in outcomes}
    assert sum(count for (_, kind), count in outcomes.items() if kind == "equal") > 5
