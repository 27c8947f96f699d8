# SPDX-License-Identifier: Apache-2.0
"""Memory for the results of oneDNN's primitives."""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import threading
from typing import Callable
from typing import Dict
from typing import Optional
from typing import Sequence

import paddle

from support.processor import LARGEST_KEPT

HUGE_PAGE = 2 << 20  # bytes


@functools.cache
def _find_madvise() -> Optional[Callable]:
    """The system's function, or None where there are no huge pages to ask for."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    function = getattr(ctypes.CDLL(None), "madvise", None)
    if function is not None:
        function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function


def empty(shape: Sequence[int]) -> paddle.Tensor:
    """A float32 tensor with any content.

    The system gives pieces of LARGEST_KEPT bytes and more page by page, as they are written for
    the first time. With 512 times as large pages this takes a fraction of the time.
    """
    tensor = paddle.empty(shape, "float32")
    size = 4 * math.prod(shape)  # Paddle takes microseconds to say it.
    if size >= LARGEST_KEPT and _find_madvise() is not None:
        start = -(-tensor.data_ptr() // HUGE_PAGE) * HUGE_PAGE
        length = (tensor.data_ptr() + size - start) // HUGE_PAGE * HUGE_PAGE
        _find_madvise()(start, length, mmap.MADV_HUGEPAGE)  # only advice: a refusal does no harm
    return tensor


class _Scratch(threading.local):
    """Pieces of memory, of which each thread keeps its own."""

    def __init__(self):
        self.pieces: Dict[int, paddle.Tensor] = {}


_scratch = _Scratch()


def scratch(number: int, size: int) -> paddle.Tensor:
    """Memory for a copy that nobody needs after the current call.

    It is kept, and given out again, so that the system does not clear it again.

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
