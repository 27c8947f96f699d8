# SPDX-License-Identifier: Apache-2.0
"""Memory for the results of oneDNN's primitives."""

from __future__ import annotations

import contextlib
import math
import mmap
import sys
import threading
from typing import Dict
from typing import List
from typing import Sequence

import numpy as np
import paddle

SMALLEST = 16 << 20  # bytes; the C library finds smaller pieces faster
SLACK = 1.25  # A block serves tensors that are at most this factor smaller.
KEPT = 1.3  # At most this multiple of the peak is kept.
OFFSET_RANGE = 64 << 10  # bytes at the start of a block, in which its memory begins


class _Block:
    """A piece of memory as a NumPy array, which tensors borrow.

    Args:
        count: Number of float32 numbers.
        number: The number of the block. It says where in the first OFFSET_RANGE bytes the memory
            begins, on a whole cache line: blocks that all began on a page's edge would compete
            for the same places in the caches.

    Attributes:
        array: The memory.
        last_use: The number of the call that gave it out last.
    """

    def __init__(self, count: int, number: int):
        piece = mmap.mmap(-1, 4 * count + OFFSET_RANGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # The system clears a page as it is written for the first time. With 512 times as large
        # pages this takes a fraction of the time. It may refuse, which does no harm.
        with contextlib.suppress(AttributeError, OSError):
            piece.madvise(mmap.MADV_HUGEPAGE)
        self.array = np.frombuffer(piece, "float32", count, 64 * 67 * number % OFFSET_RANGE)
        self.last_use = 0

    @property
    def is_free(self) -> bool:
        # A tensor's memory refers to the array until the last tensor, view or graph that needs
        # it is gone. The two references are this object's and the function's.
        return sys.getrefcount(self.array) == 2


class Pool:
    """Memory of large tensors, which is kept and given out again.

    A C library gives large pieces back to the system as they are freed, and the system clears
    their pages each time; or it keeps them all, and small pieces make holes in them.

    Attributes:
        blocks: The blocks by their number of float32 numbers.
    """

    def __init__(self):
        self.blocks: Dict[int, List[_Block]] = {}
        self.calls = self.made = 0
        self.peak = 0  # the most numbers that were in use
        self.lock = threading.Lock()

    def empty(self, shape: Sequence[int]) -> paddle.Tensor:
        """A float32 tensor with any content, at the start of a block."""
        count = math.prod(shape)
        with self.lock:
            block = self._find(count)
            self.calls += 1
            block.last_use = self.calls
            return paddle.Tensor(
                value=block.array[:count].reshape(shape),
                place=paddle.CPUPlace(),
                persistable=False,
                zero_copy=True,
                name="",
                stop_gradient=True,
            )

    def _find(self, count: int) -> _Block:
        """A free block; the one that was used last is the most likely to lie in a cache."""
        sizes = [count, *sorted(n for n in self.blocks if count < n <= SLACK * count)]
        for size in sizes:
            free = [block for block in self.blocks.get(size, ()) if block.is_free]
            if free:
                return max(free, key=lambda block: block.last_use)
        self._make_room(count, KEPT)
        self.made += 1
        try:
            block = _Block(count, self.made)
        except OSError:  # The system has no more: perhaps with what is kept.
            self._make_room(count, 0)
            block = _Block(count, self.made)
        self.blocks.setdefault(count, []).append(block)
        return block

    def _make_room(self, count: int, kept: float) -> None:
        """Lets free blocks go, the longest unused first, until at most `kept` peaks remain."""
        total = sum(size * len(blocks) for size, blocks in self.blocks.items())
        free = [
            (block.last_use, size, block)
            for size, blocks in self.blocks.items()
            for block in blocks
            if block.is_free
        ]
        self.peak = max(self.peak, total - sum(size for _, size, _ in free) + count)
        excess = total + count - kept * self.peak
        for _, size, block in sorted(free, key=lambda entry: entry[0]):
            if excess <= 0:
                return
            self.blocks[size].remove(block)
            excess -= size


_pool = Pool()


def empty(shape: Sequence[int]) -> paddle.Tensor:
    """A float32 tensor with any content."""
    if 4 * math.prod(shape) < SMALLEST:
        return paddle.empty(shape, "float32")
    return _pool.empty(shape)


class _Scratch(threading.local):
    """Pieces of memory, of which each thread keeps its own."""

    def __init__(self):
        self.pieces: Dict[int, paddle.Tensor] = {}


_scratch = _Scratch()


def scratch(number: int, size: int) -> paddle.Tensor:
    """Memory for a copy that nobody needs after the current call.

    Args:
        number: The name of the piece: what has one name has one place.
        size: The least number of float32 numbers.
    """
    piece = _scratch.pieces.pop(number, None)
    if piece is None or piece.size < size:
        piece = None  # The smaller piece goes before the larger one is made.
        piece = empty([size])
    _scratch.pieces[number] = piece
    return piece
