# SPDX-License-Identifier: Apache-2.0
"""A feature network whose answers are easy to compute, for tests of measures."""

import numpy as np
import paddle


class Quadrants:
    """Four features of a picture, the means of its quadrants, and ten linear logits of them.

    `seen` lists the batches that `features` was called with.
    """

    title, sha256, version = "quadrants", "0" * 64, 1

    def __init__(self):
        self.matrix = np.random.default_rng(1).standard_normal((4, 10)).astype("float32")
        self.seen = []

    def features(self, images):
        self.seen.append(images.numpy())
        height, width = images.shape[2] // 2, images.shape[3] // 2
        parts = (images[..., top:, left:] for top in (0, height) for left in (0, width))
        means = [part[..., :height, :width].mean([1, 2, 3]) for part in parts]
        return paddle.stack(means, 1) / 64

    def logits(self, features):
        return features @ paddle.to_tensor(self.matrix)
