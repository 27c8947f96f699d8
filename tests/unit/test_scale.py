# SPDX-License-Identifier: Apache-2.0
"""What an iteration computes and sends, and what more GPUs give by the formula."""

import json

import common
import operations
import pytest
import scale
import scale_tables


def test_weights_and_gradients_are_counted():
    row = scale.count_row("toy:8:4", tflops=10, gigabytes=12.5)
    hidden = 2 * 8 + 8 + 2 * (8 * 8 + 8)
    weights = {"generator": hidden + 8 * 2 + 2, "critic": hidden + 8 + 1}
    assert row["weights"] == weights
    assert row["gradient_bytes"] == 4 * (5 * weights["critic"] + weights["generator"])


def test_at_the_limit_sending_takes_as_long_as_computing():
    row = {
        "gflop": 1500.0,
        "gradient_bytes": 26e6,
        "gpu_gflop_per_second": 1e4,
        "link_bytes_per_second": 12.5e9,
    }
    count = scale_tables.find_limit(row)
    computing, sending = 0.15 / count, 2 * (count - 1) / count * 26e6 / 12.5e9
    assert computing == pytest.approx(sending)
    assert scale_tables.find_speed_up(row, count) == pytest.approx(count / 2)
    eight = 0.15 / (0.15 / 8 + 2 * 7 / 8 * 26e6 / 12.5e9)
    assert scale_tables.find_speed_up(row, 8) == pytest.approx(eight)


def test_committed_figures_are_those_of_the_code():
    rows = json.loads((common.RESULTS / "scale.json").read_text())["rows"]
    assert list(rows) == list(scale.CASES)
    for case, row in rows.items():
        experiment, width, batch = case.split(":")
        work = operations.count_iteration(experiment, int(width), int(batch))
        assert row["gflop"] == pytest.approx(work)
    assert rows["toy:512:256"]["weights"] == scale.count_weights("toy", 512)
