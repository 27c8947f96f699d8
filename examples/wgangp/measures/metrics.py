# SPDX-License-Identifier: Apache-2.0
"""Metrics of generated samples: captured modes, distances between sets, shares of classes.

The Inception Score is in functions.py.
"""

from __future__ import annotations

from typing import Dict
from typing import Tuple

import numpy as np


def mixture_metrics(points: np.ndarray, centres: np.ndarray, sigma: float) -> Dict[str, float]:
    """Modes, share of high quality and reverse KL, as in PacGAN (arXiv 1712.04086) and VEEGAN.

    A point has high quality if it lies within 3 sigma of its nearest centre. A mode is
    captured if at least one such point is nearest to it. A perfect model has 98.9% of high
    quality (1 - exp(-4.5)).

    Args:
        points: Generated points, [N, 2]; the protocol takes 2,500.
        centres: Centres of the mixture, [K, 2].
        sigma: Standard deviation of each component.

    Returns:
        `modes` (0..K), `high_quality` (0..1), and `reverse_kl` (0..log K): the KL divergence
        of the high-quality points' histogram over modes from the uniform one. It is log K,
        the maximum, if no point has high quality.
    """
    squared = ((points[:, None].astype("float64") - centres) ** 2).sum(2)
    nearest = squared.argmin(1)
    good = squared.min(1) <= (3 * sigma) ** 2
    counts = np.bincount(nearest[good], minlength=len(centres))
    share = counts[counts > 0] / max(counts.sum(), 1)
    kl = float((share * np.log(share * len(centres))).sum()) if len(share) else None
    return {
        "modes": float((counts > 0).sum()),
        "high_quality": float(good.mean()),
        "reverse_kl": np.log(len(centres)) if kl is None else kl,
    }


def wasserstein_1(left: np.ndarray, right: np.ndarray) -> float:
    """Exact 1-Wasserstein distance between two sets of equally many points.

    It is the distance that an optimal 1-Lipschitz critic measures (arXiv 1701.07875, equation 1),
    computed with the optimal assignment on Euclidean distances: seconds for 2,500 points. Time
    grows with the cube of N, memory with its square.

    Args:
        left: Points, [N, D].
        right: Points, [N, D].
    """
    return _mean_cost(left, right, "euclidean")


def wasserstein_2(left: np.ndarray, right: np.ndarray) -> float:
    """Exact 2-Wasserstein distance between two sets of equally many points, [N, D].

    The same on squared distances, and the square root of the result.
    """
    return float(np.sqrt(_mean_cost(left, right, "sqeuclidean")))


def _mean_cost(left: np.ndarray, right: np.ndarray, distance: str) -> float:
    """Mean cost of the optimal assignment between two sets of points, [N, D]."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    cost = cdist(left, right, distance)
    return float(cost[linear_sum_assignment(cost)].mean())


def mean_and_covariance(features: np.ndarray, rows: int = 4096) -> Tuple[np.ndarray, np.ndarray]:
    """Mean [D] and covariance [D, D] (ddof 1) of features, in float64.

    Args:
        features: [N, D] of any float type, N at least 2.
        rows: Rows converted to float64 at a time.
    """
    mean = features.mean(0, dtype="float64")
    covariance = np.zeros((len(mean), len(mean)))
    for start in range(0, len(features), rows):
        centred = features[start : start + rows] - mean
        covariance += centred.T @ centred
    return mean, covariance / (len(features) - 1)


def frechet_distance(
    left: Tuple[np.ndarray, np.ndarray], right: Tuple[np.ndarray, np.ndarray]
) -> float:
    """Squared Fréchet distance between two normal distributions, as in FID (arXiv 1706.08500).

    `|m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2))`. The trace of that root equals the trace of
    `(R C2 R)^(1/2)`, with R the root of C1. The second matrix is symmetric, so no complex
    numbers arise, however few samples the covariances come from.

    Args:
        left: Mean [D] and covariance [D, D].
        right: Mean and covariance of the other distribution.
    """
    values, vectors = np.linalg.eigh(left[1])
    # Rounding makes some eigenvalues of zero slightly negative.
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    values = np.linalg.eigvalsh(root @ right[1] @ root)
    means = ((left[0] - right[0]) ** 2).sum()
    trace = np.trace(left[1]) + np.trace(right[1]) - 2 * np.sqrt(values.clip(0)).sum()
    return float(means + trace)


def kernel_distance(
    left: np.ndarray,
    right: np.ndarray,
    rng: np.random.Generator,
    subsets: int = 100,
    size: int = 1000,
) -> Tuple[float, float]:
    """Kernel distance of two sets of features, as KID (arXiv 1801.01401).

    It is the squared maximum mean discrepancy with the kernel `(x y / D + 1)^3`, estimated
    without bias on random subsets. So it may be below 0, and does not depend on the number of
    samples. The defaults are those of torch-fidelity.

    Args:
        left: Features, float32 [N, D].
        right: Features, float32 [M, D].
        rng: Draws the subsets.
        subsets: Number of subsets.
        size: Features in a subset; all of the smaller set if that has fewer.

    Returns:
        Mean and standard deviation (ddof 0) over the subsets.
    """
    size = min(size, len(left), len(right))
    values = []
    for _ in range(subsets):
        x, y = (part[rng.choice(len(part), size, replace=False)] for part in (left, right))
        within = sum(_kernel_sum(part, part, is_same=True) for part in (x, y))
        values.append(within / (size * (size - 1)) - 2 * _kernel_sum(x, y) / size**2)
    return float(np.mean(values)), float(np.std(values))


def _kernel_sum(x: np.ndarray, y: np.ndarray, is_same: bool = False) -> float:
    """Sum of the kernel over all pairs; without those of a feature and itself in the same set."""
    base = (x @ y.T).astype("float64") / x.shape[1] + 1
    kernel = base * base * base
    return float(kernel.sum() - (np.trace(kernel) if is_same else 0))


def class_shares(predicted: np.ndarray, num_classes: int) -> Tuple[np.ndarray, float]:
    """Share of each class among predictions, and the KL divergence of the shares from uniform.

    Args:
        predicted: Predicted classes, [N].
        num_classes: Number of classes.

    Returns:
        Shares [num_classes], and the divergence (0..log(num_classes)): 0 for equal shares,
        log(num_classes) if only one class occurs.
    """
    shares = np.bincount(predicted, minlength=num_classes) / len(predicted)
    drawn = shares[shares > 0]
    return shares, float((drawn * np.log(drawn * num_classes)).sum())
