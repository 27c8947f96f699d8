# SPDX-License-Identifier: Apache-2.0
"""A classifier of digits, by which MNIST samples are measured.

`python -m measures.digit_classifier --data mnist.pkl.gz --output FOLDER` trains it. The weights
that ship were made so; mnist_classifier.json says with what, and holds their
checksum. Figures by one classifier do not compare with those by another.
"""

from __future__ import annotations

from support.processor import prepare

if __name__ == "__main__":
    prepare()

import argparse
import json
import os
import shlex
import sys
import time
from os import path as osp
from typing import Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from ppsci.utils import logger

import functions
from data.image_set import NUM_CLASSES
from data.image_set import ImageSet
from support import storage
from support import weight_files
from support.errors import UserError
from support.errors import fail
from support.errors import require

SHIPPED = osp.join(
    osp.dirname(osp.dirname(osp.abspath(__file__))), "weights", "mnist_classifier.pdparams"
)
WIDTHS = (16, 32, 64, 96)  # channels of the four convolutions
BATCH, RATE, SHIFT = 200, 0.01, 2


class MnistClassifier(nn.Layer):
    """Digits to features [N, 96] and logits [N, 10]: four convolutions with batch norm, a mean."""

    title = "MNIST classifier"

    def __init__(self):
        super().__init__()
        layers, n_in = [], 1
        for n_out, size, stride in zip(WIDTHS, (5, 3, 3, 3), (2, 1, 2, 1)):
            # no bias: batch normalisation has its own
            layers += [
                nn.Conv2D(n_in, n_out, size, stride, size // 2, bias_attr=False),
                nn.BatchNorm2D(n_out),
                nn.ReLU(),
            ]
            n_in = n_out
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(n_in, NUM_CLASSES)

    def forward(self, images):
        """Logits of digits [N, 1, 28, 28] in [0, 1)."""
        return self.linear(self.layers(images).mean([2, 3]))

    @paddle.no_grad()
    def features(self, images: paddle.Tensor) -> paddle.Tensor:
        """Digits [N, 1, 28, 28], whole numbers 0..255 in float32, to features [N, 96]."""
        return self.layers(images / 256).mean([2, 3])

    @paddle.no_grad()
    def logits(self, features: paddle.Tensor) -> paddle.Tensor:
        """Features [N, 96] to logits [N, 10]."""
        return self.linear(features)


def load(path: Optional[str] = None) -> MnistClassifier:
    """A trained classifier.

    Args:
        path: Its weights, with the note that the training wrote beside them; None for the
            weights that come with this file.

    Raises:
        UserError: If weights or note are absent, do not go together, or do not fit.
    """
    setting = "EVAL.classifier_weights"
    path = weight_files.weights_path(path or SHIPPED, setting)
    note = f"{path[: -len('.pdparams')]}.json"
    try:
        with open(note, encoding="utf-8") as file:
            expected = json.load(file)["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{setting}: {note}, which python -m measures.digit_classifier writes beside the "
            "weights, is absent or damaged. Copy both files, or train anew."
        ) from None
    network = MnistClassifier()
    network.sha256 = storage.sha256(path)
    require(
        network.sha256 == expected,
        f"{setting}: {path} has the SHA-256 {network.sha256}, but {note} says {expected}. Copy "
        "both files from where they were made, or train anew.",
    )
    weight_files.load_weights(network, path, setting)
    network.eval()
    return network


def accuracy(network: MnistClassifier, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of digits, uint8 [N, 1, 28, 28], that a network in evaluation gets right."""
    logits = [
        network.logits(network.features(paddle.to_tensor(images[i : i + 500].astype("float32"))))
        for i in range(0, len(images), 500)
    ]
    predicted = np.concatenate([part.numpy().argmax(1) for part in logits])
    return float((predicted == labels).mean())


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moves each picture [N, 1, H, W] by up to SHIFT pixels, on a ground of 0."""
    count, _, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    top, left = rng.integers(2 * SHIFT + 1, size=(2, count, 1))
    rows, columns = top + np.arange(height), left + np.arange(width)
    number = np.arange(count)[:, None, None]
    return padded[number, 0, rows[:, :, None], columns[:, None, :]][:, None]


def train(data: ImageSet, epochs: int, seed: int) -> MnistClassifier:
    """Trains a classifier: Adam, a rate that rises and falls, digits shifted at random."""
    paddle.seed(seed)
    rng = np.random.default_rng(seed)
    network = MnistClassifier()
    size = min(BATCH, len(data.train_images))
    steps = len(data.train_images) // size
    rate = paddle.optimizer.lr.OneCycleLR(RATE, epochs * steps, phase_pct=0.2)
    optimizer = paddle.optimizer.Adam(rate, parameters=network.parameters(), weight_decay=1e-4)
    for epoch in range(1, epochs + 1):
        order = rng.permutation(len(data.train_images))
        for rows in order[: steps * size].reshape(steps, size):
            images = shifted(functions.prepare_mnist(data.train_images[rows]), rng)
            logits = network(paddle.to_tensor(images))
            loss = F.cross_entropy(logits, paddle.to_tensor(data.train_labels[rows]))
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            rate.step()
        network.eval()
        right = accuracy(network, data.test_images, data.test_labels)
        network.train()
        logger.info(f"epoch {epoch} of {epochs}: {100 * right:.2f}% of the test digits right")
    network.eval()
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="mnist.pkl.gz")
    parser.add_argument("--output", required=True, help="folder for the weights and their note")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logger.init_logger("ppsci")
    try:
        require(options.epochs >= 1, "--epochs must be at least 1.")
        require(0 <= options.seed < 2**32, "--seed must be at least 0 and below 2^32.")
        require(osp.isfile(options.data), f"--data: there is no file {options.data}.")
        data = functions.read_mnist(options.data)
        os.makedirs(options.output, exist_ok=True)
    except (UserError, OSError) as error:
        fail(str(error))
    paddle.set_device("cpu")  # where the weights that are shipped were made
    start = time.perf_counter()
    network = train(data, options.epochs, options.seed)
    note = {
        "command": shlex.join(["python", "-m", "measures.digit_classifier", *sys.argv[1:]]),
        "test_accuracy": accuracy(network, data.test_images, data.test_labels),
        "data_sha256": storage.sha256(options.data),
        "seed": options.seed,
        "seconds": round(time.perf_counter() - start),
        "paddlepaddle": paddle.__version__,
    }
    path = osp.join(osp.abspath(options.output), "mnist_classifier.pdparams")
    weight_files.save_weights(network, path)
    note["sha256"] = storage.sha256(path)
    with storage.replacing(f"{path[: -len('.pdparams')]}.json") as file:
        file.write((json.dumps(note, indent=2) + "\n").encode())
    logger.info(f"{path}: {100 * note['test_accuracy']:.2f}% of the test digits right")


if __name__ == "__main__":
    main()
