# SPDX-License-Identifier: Apache-2.0
"""Inputs of a run, drawn when they are read: noise, labels, and real samples in random order."""

from __future__ import annotations

import functools
from typing import Callable
from typing import Dict
from typing import Optional
from typing import Sequence

import numpy as np

# Each stream of random numbers is seeded by the run's seed and a number of its own.
REAL, CRITIC_NOISE, ALPHA, GENERATOR_NOISE, LABELS, GRID, EVALUATION, INFERENCE = range(8)
TEST_ROWS = 8  # the choice of test pictures


class Stream:
    """An array-like whose rows are drawn when they are read, for `NamedArrayDataset`.

    A batch depends on the seed and on its own positions only, never on earlier reads. So a run
    draws the same numbers whichever thread or process reads, and can start at any batch.

    Args:
        length: Number of rows that an epoch reads.
        seed: Numbers that set this stream apart from others.
        draw: Takes a random generator and positions [N]; returns N rows.

    Attributes:
        failure: The exception that `draw` raised; None if there was none since the last `seek`.
    """

    def __init__(
        self,
        length: int,
        seed: Sequence[int],
        draw: Callable[[np.random.Generator, np.ndarray], np.ndarray],
    ):
        self.length = length
        self.seed = tuple(seed)
        self.draw = draw
        self.start = self.attempt = 0
        self.failure: Optional[Exception] = None

    def seek(self, start: int, attempt: int = 0) -> None:
        """Makes `start` the first position.

        Args:
            start: The position.
            attempt: Another attempt draws other numbers at the same positions.
        """
        self.start, self.attempt, self.failure = start, attempt, None

    def __deepcopy__(self, memo: Dict) -> Stream:
        # ppsci copies a dataset's configuration. `seek` must reach the stream that is read.
        return self

    def __len__(self) -> int:
        return self.length

    # --8<-- [start:read_rows]
    def __getitem__(self, positions: Sequence[int]) -> np.ndarray:
        positions = self.start + np.asarray(positions)
        try:
            rng = np.random.default_rng((*self.seed, int(positions.flat[0]), self.attempt))
            return self.draw(rng, positions)
        except Exception as error:
            # Paddle reads in a thread. Any exception but StopIteration would leave the training
            # waiting forever, so the training raises `failure` itself.
            self.failure = error
            raise StopIteration from None

    # --8<-- [end:read_rows]


class Shuffle:
    """Maps positions in an endless sequence of passes through a set to its rows.

    Each pass has every row once, in a new order.

    Args:
        size: Number of rows of the set.
        seed: Numbers that set this order apart from others.
    """

    def __init__(self, size: int, seed: Sequence[int]):
        self.size = size
        self.seed = tuple(seed)
        # A batch spans two passes at most, unless the set is smaller than a batch.
        self.order = functools.lru_cache(maxsize=2)(self._draw_order)

    def _draw_order(self, number: int) -> np.ndarray:
        return np.random.default_rng((*self.seed, number)).permutation(self.size)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        passes, offsets = np.divmod(positions, self.size)
        rows = np.empty_like(positions)
        for number in np.unique(passes):
            here = passes == number
            rows[here] = self.order(int(number))[offsets[here]]
        return rows


def normal_stream(length: int, seed: Sequence[int], dim: int) -> Stream:
    """Standard normal noise, float32 [length, dim]."""
    return Stream(
        length,
        seed,
        lambda rng, positions: rng.standard_normal((len(positions), dim), "float32"),
    )


def uniform_stream(length: int, seed: Sequence[int]) -> Stream:
    """One number in [0, 1) per sample, float32 [length]: the penalty's alpha."""
    return Stream(length, seed, lambda rng, positions: rng.random(len(positions), "float32"))


def draw_labels(
    rng: np.random.Generator, count: int, num_classes: int, shares: Optional[np.ndarray] = None
) -> np.ndarray:
    """Draws labels, int64 [count].

    Args:
        rng: The random generator.
        count: Number of labels.
        num_classes: Number of classes.
        shares: How likely each class is, [num_classes]; None for equal shares.
    """
    if shares is None:
        return rng.integers(num_classes, size=count)
    return rng.choice(num_classes, size=count, p=shares)


def label_stream(
    length: int, seed: Sequence[int], num_classes: int, shares: Optional[np.ndarray] = None
) -> Stream:
    """Labels, int64 [length], uniform or by the shares of the classes; see `draw_labels`."""
    return Stream(
        length, seed, lambda rng, positions: draw_labels(rng, len(positions), num_classes, shares)
    )


def shuffled_images(
    images: np.ndarray,
    labels: np.ndarray,
    prepare: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    length: int,
    seed: Sequence[int],
) -> Dict[str, Stream]:
    """Real pictures and their labels, in a new random order in each pass through the set.

    Args:
        images: uint8 pictures, [N, C, H, W].
        labels: Their labels, int64 [N].
        prepare: Takes uint8 pictures and a random generator; returns the critic's input.
        length: Number of rows that an epoch reads.
        seed: Numbers that set this order apart from others.

    Returns:
        Streams by input key, "real" and "labels".
    """
    # A number of its own sets the order apart from what `prepare` draws.
    order = Shuffle(len(images), (*seed, len(images), 1))
    return {
        "real": Stream(length, seed, lambda rng, at: prepare(images[order(at)], rng)),
        "labels": Stream(length, seed, lambda rng, at: labels[order(at)]),
    }
