# SPDX-License-Identifier: Apache-2.0
"""Pictures of a training and a test set, and the checks that every reader shares."""

from __future__ import annotations

import hashlib

import numpy as np

from support.errors import UserError

NUM_CLASSES = 10


# --8<-- [start:image_set]
class ImageSet:
    """Pictures of a training and a test set.

    Args:
        train_images: uint8 [N, C, H, W].
        train_labels: int64 [N], from 0.
        test_images: uint8 [M, C, H, W].
        test_labels: int64 [M].
    """

    def __init__(self, train_images, train_labels, test_images, test_labels):
        self.train_images, self.train_labels = train_images, train_labels
        self.test_images, self.test_labels = test_images, test_labels

    def describe(self) -> str:
        """What tells its training set from others."""
        digest = hashlib.sha256(np.ascontiguousarray(self.train_images))
        digest.update(np.ascontiguousarray(self.train_labels))
        return f"{len(self.train_images)} pictures of SHA-256 {digest.hexdigest()[:16]}"


def as_rows(rows: np.ndarray, length: int) -> np.ndarray:
    """Rows [N, length] as they are; raises ValueError for any other shape."""
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != length:
        raise ValueError(f"expected rows of {length} numbers")
    return rows


def as_labels(labels) -> np.ndarray:
    """Whole numbers, a list or an array, as int64; raises ValueError for other numbers."""
    if not isinstance(labels, np.ndarray) and not (
        isinstance(labels, list) and all(isinstance(label, (int, np.integer)) for label in labels)
    ):
        raise ValueError("labels are no list of whole numbers")
    labels = np.asarray(labels)
    if labels.size and labels.dtype.kind not in "iu":
        raise ValueError("labels are no whole numbers")
    return labels.astype("int64")


def check_images(images: np.ndarray, labels: np.ndarray, classes: int, where: str) -> None:
    """Refuses pictures that are not uint8, or labels that do not fit them.

    Raises:
        UserError: Says what is wrong and where.
    """
    if images.dtype != np.uint8:
        raise UserError(f"{where}: pictures are {images.dtype}, expected uint8.")
    if not len(images):
        raise UserError(f"{where}: there are no pictures inside.")
    if labels.shape != (len(images),):
        raise UserError(f"{where}: {len(images)} pictures, but labels of shape {labels.shape}.")
    if not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(
            f"{where}: labels from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}."
        )


# --8<-- [end:image_set]
