# Copyright (c) 2026 The WGAN-GP example suite authors. All Rights Reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Measures of generated points: modes captured, and the distance of point sets."""

from __future__ import annotations

from typing import Dict

import numpy as np


# --8<-- [start:toy_metrics]
def mixture_metrics(points: np.ndarray, centres: np.ndarray, sigma: float) -> Dict[str, float]:
    """Modes, share of high quality and reverse KL, by the protocol of PacGAN and VEEGAN.

    A point is of high quality when it lies within 3 sigma of its nearest centre; a mode is
    captured when at least one such point is nearest to it. A perfect model has 98.9% of
    high quality (1 - exp(-4.5)).

    Args:
        points: Generated points, [N, 2]; the protocol takes 2,500.
        centres: Centres of the mixture, [K, 2].
        sigma: Its standard deviation.

    Returns:
        `modes` (0..K), `high_quality` (0..1), and `reverse_kl` (>= 0): the KL divergence of
        the high-quality points' histogram over modes from the uniform one; log K, the most
        that it can be, if there are none.
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


def wasserstein_2(left: np.ndarray, right: np.ndarray) -> float:
    """Exact 2-Wasserstein distance of two sets of equally many points.

    By the optimal assignment on squared distances; seconds for 2,500 points.

    Args:
        left: [N, D].
        right: [N, D].
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    cost = cdist(left, right, "sqeuclidean")
    return float(np.sqrt(cost[linear_sum_assignment(cost)].mean()))


# --8<-- [end:toy_metrics]
