# SPDX-License-Identifier: Apache-2.0
"""Pictures of a training and a test set, and checks that all readers share."""

from __future__ import annotations

import hashlib
from typing import Sequence

import numpy as np

from support.errors import UserError

NUM_CLASSES = 10


class ImageSet:
    """Pictures of a training and a test set.

    Args:
        train_images: uint8 [N, C, H, W].
        train_labels: int64 [N], from 0.
        test_images: uint8 [M, C, H, W].
        test_labels: int64 [M].
        class_names: A name for each label, if the classes have names.
    """

    def __init__(
        self,
        train_images: np.ndarray,
        train_labels: np.ndarray,
        test_images: np.ndarray,
        test_labels: np.ndarray,
        class_names: Sequence[str] = (),
    ):
        self.train_images, self.train_labels = train_images, train_labels
        self.test_images, self.test_labels = test_images, test_labels
        self.class_names = tuple(class_names)

    def label_shares(self, num_classes: int) -> np.ndarray:
        """The share of each class in the training set, float64 [num_classes]."""
        return np.bincount(self.train_labels, minlength=num_classes) / len(self.train_labels)

    def fingerprint(self) -> str:
        """The size and checksum of the training set; checkpoints hold this text."""
        digest = hashlib.sha256(np.ascontiguousarray(self.train_images))
        digest.update(np.ascontiguousarray(self.train_labels))
        return f"{len(self.train_images)} pictures of SHA-256 {digest.hexdigest()[:16]}"


def as_rows(rows: object, length: int) -> np.ndarray:
    """Returns an array [N, length] unchanged.

    Raises:
        ValueError: For anything else.
    """
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != length:
        raise ValueError(f"expected rows of {length} numbers")
    return rows


def as_labels(labels: object) -> np.ndarray:
    """Converts a list or an array of whole numbers to int64.

    Raises:
        ValueError: For anything else.
    """
    if not isinstance(labels, np.ndarray) and not (
        isinstance(labels, list) and all(isinstance(label, (int, np.integer)) for label in labels)
    ):
        raise ValueError("labels are not a list of whole numbers")
    labels = np.asarray(labels)
    if labels.size and labels.dtype.kind not in "iu":
        raise ValueError("labels are not whole numbers")
    return labels.astype("int64")


def check_images(images: np.ndarray, labels: np.ndarray, classes: int, where: str) -> None:
    """Refuses pictures that are not uint8, and labels that do not fit them.

    Args:
        images: Pictures, [N, ...].
        labels: Labels, [N], from 0 to classes - 1.
        classes: Number of classes.
        where: The file (and member) that the message names.

    Raises:
        UserError: For another type of pictures, no pictures, or labels that do not fit.
    """
    if images.dtype != np.uint8:
        raise UserError(f"{where}: pictures are {images.dtype}, expected uint8, from 0 to 255.")
    if not len(images):
        raise UserError(f"{where}: there are no pictures inside.")
    if labels.shape != (len(images),):
        raise UserError(f"{where}: {len(images)} pictures, but labels of shape {labels.shape}.")
    if not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(
            f"{where}: labels from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}."
        )
