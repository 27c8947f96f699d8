# SPDX-License-Identifier: Apache-2.0
"""Nearest neighbours of features or pictures, and figures of a generator that rest on them.

Distances are computed block by block, so that memory does not grow with the square of the number
of samples.
"""

from __future__ import annotations

from typing import Dict
from typing import Iterator
from typing import Tuple

import numpy as np

# The ks of the papers: precision and recall take the 3rd neighbour, density and coverage the 5th.
PRECISION_K, DENSITY_K = 3, 5
ROWS, COLUMNS = 1000, 4000  # the size of a block


def squared_distances(
    left: np.ndarray, right: np.ndarray
) -> Iterator[Tuple[slice, slice, np.ndarray]]:
    """Yields squared Euclidean distances of all rows of `left` to all rows of `right`, in blocks.

    They are computed by matrix products in float32. The error is about 1e-6 of the rows' squared
    distances from the data's centre.

    Args:
        left: [N, D] of any numbers.
        right: [M, D].

    Yields:
        The block's rows of `left`, its rows of `right`, and their distances, float32.
    """
    centre = right[:COLUMNS].mean(0, dtype="float64").astype("float32")
    for top in range(0, len(left), ROWS):
        rows = slice(top, top + ROWS)
        x = left[rows].astype("float32") - centre
        for start in range(0, len(right), COLUMNS):
            columns = slice(start, start + COLUMNS)
            y = right[columns].astype("float32") - centre
            squared = x @ (-2 * y.T)
            squared += (x * x).sum(1)[:, None]
            squared += (y * y).sum(1)
            yield rows, columns, squared.clip(0, out=squared)


def squared_radii(features: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Squared distances of features [N, D] to their 3rd and their 5th neighbours, float32 [N].

    With fewer than 3 or 5 others, the distance is that to the farthest.
    """
    last = min(DENSITY_K, len(features) - 1)
    near = np.full((len(features), last), np.inf, "float32")
    for rows, columns, squared in squared_distances(features, features):
        # A feature is not a neighbour of its own.
        own = np.arange(max(rows.start, columns.start), min(rows.stop, columns.stop, len(features)))
        squared[own - rows.start, own - columns.start] = np.inf
        candidates = np.concatenate([near[rows], squared], 1)
        near[rows] = np.partition(candidates, last - 1)[:, :last]
    near.sort()
    return near[:, min(PRECISION_K, last) - 1], near[:, last - 1]


def compare_neighbourhoods(
    fake: np.ndarray,
    real: np.ndarray,
    fake_radii: Tuple[np.ndarray, np.ndarray],
    real_radii: Tuple[np.ndarray, np.ndarray],
) -> Dict[str, float]:
    """Precision and recall (arXiv 1904.06991), density and coverage (arXiv 2002.09797).

    `B_k(z)` is the closed ball around a feature whose radius is the distance to its k-th
    neighbour in its own set.

    Args:
        fake: Features of samples, [N, D].
        real: Features of real pictures, [M, D].
        fake_radii: `squared_radii` of the samples.
        real_radii: `squared_radii` of the real pictures.

    Returns:
        `precision`: the share of samples within `B_3` of any real picture.
        `recall`: the share of real pictures within `B_3` of any sample.
        `density`: the mean number of real pictures whose `B_5` holds a sample, over 5.
        `coverage`: the share of real pictures whose `B_5` holds any sample.
    """
    precise, recalled, covered = (np.zeros(n, bool) for n in (len(fake), len(real), len(real)))
    held = 0
    for rows, columns, squared in squared_distances(fake, real):
        precise[rows] |= (squared <= real_radii[0][columns]).any(1)
        recalled[columns] |= (squared <= fake_radii[0][rows, None]).any(0)
        inside = squared <= real_radii[1][columns]
        covered[columns] |= inside.any(0)
        held += np.count_nonzero(inside)
    return {
        "precision": float(precise.mean()),
        "recall": float(recalled.mean()),
        "density": held / (DENSITY_K * len(fake)),
        "coverage": float(covered.mean()),
    }


def find_nearest(left: np.ndarray, right: np.ndarray, k: int = 1) -> Tuple[np.ndarray, np.ndarray]:
    """Finds the k nearest rows of `right` for each row of `left`.

    Args:
        left: [N, D] of any numbers.
        right: [M, D], M at least k.
        k: Number of neighbours.

    Returns:
        Their numbers and their Euclidean distances, int64 and float64 [N, k], the nearest first.
        Those that float32 can't tell apart may take each other's places.
    """
    numbers, distances = [], []
    for top in range(0, len(left), ROWS):
        part = left[top : top + ROWS]
        found, near = np.zeros((len(part), 0), "int64"), np.zeros((len(part), 0), "float32")
        for _, columns, squared in squared_distances(part, right):
            taken = _smallest(squared, k)
            found = np.concatenate([found, taken + columns.start], 1)
            near = np.concatenate([near, np.take_along_axis(squared, taken, 1)], 1)
            taken = _smallest(near, k)
            found, near = (np.take_along_axis(array, taken, 1) for array in (found, near))
        # Rounding does not order the few that are left.
        exact = [((part - right[column].astype("float64")) ** 2).sum(1) for column in found.T]
        exact = np.sqrt(np.stack(exact, 1))
        order = exact.argsort(1, kind="stable")
        numbers.append(np.take_along_axis(found, order, 1))
        distances.append(np.take_along_axis(exact, order, 1))
    return np.concatenate(numbers), np.concatenate(distances)


def _smallest(values: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k smallest values of each row, in any order; all if there are fewer."""
    if k == 1:
        return values.argmin(1)[:, None]
    k = min(k, values.shape[1])
    return values.argpartition(k - 1, 1)[:, :k]


def share_nearer(fake: np.ndarray, real: np.ndarray) -> float:
    """The chance that a random distance of `fake` is below one of `real`; equal ones count half.

    This is the Mann-Whitney statistic over N M. With distances to the training set, it is the
    test of Meehan, Chaudhuri and Dasgupta for copied data (arXiv 2004.05675), of all data at
    once: 0.5 if samples are as far from the training set as test pictures, 1 for copies.

    Args:
        fake: Distances of samples to their nearest training pictures, [N].
        real: Distances of test pictures to theirs, [M].
    """
    real = np.sort(real)
    below, up_to = (np.searchsorted(real, fake, side) for side in ("left", "right"))
    return float(1 - (below + up_to).mean() / (2 * len(real)))
