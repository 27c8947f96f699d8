# SPDX-License-Identifier: Apache-2.0
"""The memory of large results: when it is given out again, and how much of it is kept."""

import math

import numpy as np
import paddle
import pytest

from kernels import availability
from kernels import elementwise
from kernels import memory


@pytest.fixture
def pool(monkeypatch):
    """An empty pool that serves tensors of all sizes."""
    monkeypatch.setattr(memory, "SMALLEST", 0)
    monkeypatch.setattr(memory, "_pool", memory.Pool())
    return memory._pool


def sizes(pool):
    return {size: len(blocks) for size, blocks in pool.blocks.items() if blocks}


def test_a_tensor_has_the_memory_of_its_block(pool):
    tensor = memory.empty([2, 3, 4])
    assert tensor.shape == [2, 3, 4] and tensor.dtype == paddle.float32 and tensor.stop_gradient
    tensor[:] = 7.0
    np.testing.assert_array_equal(pool.blocks[24][0].array, np.full(24, 7.0))
    assert tensor.data_ptr() % 64 == 0


def test_memory_is_given_out_again_once_nothing_needs_it(pool):
    tensor = memory.empty([4, 6])
    place = tensor.data_ptr()
    view = tensor.reshape([24])
    del tensor
    assert memory.empty([24]).data_ptr() != place  # the view is left
    x = paddle.ones([24])
    x.stop_gradient = False
    total = (x * view).sum()
    del view
    assert not any(block.is_free for block in pool.blocks[24] if block.last_use == 1)
    total.backward()  # The graph needed it.
    del total
    assert all(block.is_free for block in pool.blocks[24])
    places = {memory.empty([24]).data_ptr() for _ in range(5)}
    assert len(places) == 1  # the one that was used last
    assert sizes(pool) == {24: 2}


def test_a_block_serves_tensors_that_are_a_little_smaller(pool, monkeypatch):
    monkeypatch.setattr(memory, "KEPT", 10)
    for count, made in ((100, 1), (80, 1), (79, 2), (101, 3)):
        memory.empty([count])
        assert sum(sizes(pool).values()) == made


def test_the_longest_unused_blocks_go(pool, monkeypatch):
    monkeypatch.setattr(memory, "KEPT", 1.5)
    for count in (100, 200, 400):  # one after another: at most 400 are in use
        memory.empty([count])
    assert sizes(pool) == {200: 1, 400: 1}
    kept = [memory.empty([count]) for count in (200, 400)]
    assert pool.peak == 400  # No block was made since then.
    more = memory.empty([1000])
    assert pool.peak == 1600 and sizes(pool) == {200: 1, 400: 1, 1000: 1}
    del kept, more
    memory.empty([3000])
    assert sizes(pool) == {400: 1, 1000: 1, 3000: 1} and pool.peak == 3000


def test_free_blocks_go_if_the_system_has_no_more_memory(pool, monkeypatch):
    used = memory.empty([100])
    memory.empty([50])
    assert sizes(pool) == {100: 1, 50: 1}
    make_block, refusals = memory._Block, [OSError(12, "Cannot allocate memory")]

    def refuse_once(*arguments):
        if refusals:
            raise refusals.pop()
        return make_block(*arguments)

    monkeypatch.setattr(memory, "_Block", refuse_once)
    memory.empty([60])
    assert sizes(pool) == {100: 1, 60: 1}
    refusals += [OSError(12, "Cannot allocate memory")] * 2
    with pytest.raises(OSError, match="Cannot allocate memory"):
        memory.empty([1000])
    del used


def test_blocks_begin_at_different_places_of_a_page(pool):
    kept = [memory.empty([16]) for _ in range(9)]
    assert len({tensor.data_ptr() % 4096 for tensor in kept}) == 9
    assert all(tensor.data_ptr() % 64 == 0 for tensor in kept)


def test_small_tensors_are_paddles_own(pool, monkeypatch):
    monkeypatch.setattr(memory, "SMALLEST", 400)
    memory.empty([99])
    assert not pool.blocks
    memory.empty([100])
    assert sizes(pool) == {100: 1}


def test_scratch_memory_is_used_again_and_grows(pool):
    piece = memory.scratch(-1, 10)
    assert memory.scratch(-1, 8).data_ptr() == piece.data_ptr()
    assert memory.scratch(-1, 1000).size == 1000
    assert memory.scratch(-2, 8).data_ptr() != memory.scratch(-1, 8).data_ptr()


@pytest.mark.skipif(not availability.is_available(), reason="oneDNN does not serve here")
@pytest.mark.parametrize("shape", [[3], [1 << 20], [5, 7, 2, 3]])
def test_results_in_blocks_are_whole(pool, shape):
    x = paddle.randn(shape)
    for _ in range(2):  # in a new block, and in a used one
        np.testing.assert_array_equal(elementwise.relu(x, 0.0).numpy(), x.clip(0).numpy())
    assert sizes(pool) == {math.prod(shape): 1}
