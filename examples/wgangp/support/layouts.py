# SPDX-License-Identifier: Apache-2.0
"""Bounds on the rank, sizes and strides of arrays from outside, checked before an array is made."""

from __future__ import annotations

import math
from typing import Any
from typing import Tuple

MAX_RANK = 32  # NumPy's own limit before 2.0; its as_strided does not check it
MAX_SIZE = 1 << 40  # numbers, of a size, a stride or an offset


def check_numbers(numbers: Any, what: str) -> Tuple[int, ...]:
    """Returns a shape or strides as a tuple, if they are few whole numbers within bounds.

    Args:
        numbers: The numbers, of any type.
        what: What they are, for the message.

    Raises:
        ValueError: For anything else.
    """
    if type(numbers) not in (tuple, list):
        raise ValueError(f"the {what} of an array is not a list")
    if len(numbers) > MAX_RANK:
        raise ValueError(f"an array has {len(numbers)} dimensions, more than {MAX_RANK}")
    # Only Python's own type: other whole numbers could overflow.
    if any(type(number) is not int for number in numbers):
        raise ValueError(f"the {what} of an array holds something else than whole numbers")
    if any(not 0 <= number <= MAX_SIZE for number in numbers):
        raise ValueError(f"a number in the {what} of an array is below 0 or far too large")
    return tuple(numbers)


def check_shape(shape: Any, count: int) -> Tuple[int, ...]:
    """Returns the shape of an array as a tuple, if it is right for an amount of data.

    Args:
        shape: The shape, of any type.
        count: Number of numbers that the data hold.

    Raises:
        ValueError: For a shape of another number of numbers, or of no valid form.
    """
    sizes = check_numbers(shape, "shape")
    if math.prod(sizes) != count:
        raise ValueError("the size of an array is not the size that its header says")
    if math.prod(max(size, 1) for size in sizes) > MAX_SIZE:
        raise ValueError("an empty array has a size that is far too large")
    return sizes
