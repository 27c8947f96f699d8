# SPDX-License-Identifier: Apache-2.0
"""A classifier of digits that measures MNIST samples.

`python -m measures.digit_classifier --data mnist.pkl.gz --output FOLDER` trains it and made the
weights in weights/. Their record, mnist_classifier.json, holds the command and the checksum.
Figures with one classifier do not compare with figures with another.
"""

from __future__ import annotations

from support.processor import prepare

if __name__ == "__main__":
    prepare()

import argparse
import json
import shlex
import sys
import time
from os import path as osp
from typing import Dict
from typing import Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from ppsci.utils import logger

import functions
from data.image_set import NUM_CLASSES
from data.image_set import ImageSet
from kernels import maps
from measures import metrics
from support import storage
from support import weight_files
from support.errors import UserError
from support.errors import fail
from support.errors import require
from support.weight_paths import weights_path

SHIPPED = osp.join(
    osp.dirname(osp.dirname(osp.abspath(__file__))), "weights", "mnist_classifier.pdparams"
)
WIDTHS = (16, 32, 64, 96)  # channels of the four convolutions
BATCH_SIZE = 200
PEAK_RATE = 0.01  # the learning rate's maximum
FITTED = ", last layer refitted"  # in a title
SHIFT = 2  # Training digits are moved by at most this many pixels.


class MnistClassifier(nn.Layer):
    """Digits to features [N, 96] and logits [N, 10].

    It has four convolutions with batch normalisation, a mean over pixels, and a linear layer.

    Args:
        sha256: Checksum of the weights that will be loaded.
    """

    title = "MNIST classifier"
    version = 1  # see measures.features.FeatureNetwork

    def __init__(self, sha256: str = ""):
        super().__init__()
        self.sha256 = sha256
        layers, n_in = [], 1
        for n_out, size, stride in zip(WIDTHS, (5, 3, 3, 3), (2, 1, 2, 1)):
            # Batch normalisation has a bias of its own.
            layers += [
                nn.Conv2D(n_in, n_out, size, stride, size // 2, bias_attr=False),
                nn.BatchNorm2D(n_out),
                nn.ReLU(),
            ]
            n_in = n_out
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(n_in, NUM_CLASSES)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        """Digits [N, 1, 28, 28] in [0, 1) to logits [N, 10]."""
        return self.linear(self.layers(images).mean([2, 3]))

    @paddle.no_grad()
    def features(self, images: paddle.Tensor) -> paddle.Tensor:
        """Digits [N, 1, 28, 28], whole numbers 0..255 in float32, to features [N, 96]."""
        x = maps.enter(images / 256)
        for conv, norm in zip(self.layers[::3], self.layers[1::3]):
            # In evaluation, batch normalisation is a factor and a summand of each channel.
            factor = norm.weight / paddle.sqrt(norm._variance + norm._epsilon)
            weight = conv.weight * factor.reshape([-1, 1, 1, 1])
            pad = (conv.weight.shape[2] // 2,) * 2
            x = maps.convolve(
                x, weight, norm.bias - norm._mean * factor, conv._stride[0], (pad, pad)
            )
            x = maps.relu(x)
        return maps.mean(x)

    @paddle.no_grad()
    def logits(self, features: paddle.Tensor) -> paddle.Tensor:
        """Features [N, 96] to logits [N, 10]."""
        return self.linear(features)


def load(path: Optional[str] = None) -> MnistClassifier:
    """Loads a trained classifier.

    Args:
        path: The weights, next to the record that the training wrote; None for the weights
            of this suite.

    Raises:
        UserError: If weights or record are absent, do not go together, or do not fit.
    """
    setting = "EVAL.classifier_weights"
    path = weights_path(path or SHIPPED, setting)
    record = record_path(path)
    try:
        with open(record, encoding="utf-8") as file:
            expected = json.load(file)["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{setting}: {record} is absent or damaged. python -m measures.digit_classifier writes "
            "it next to the weights: copy both files, or train again."
        ) from None
    network = MnistClassifier(storage.sha256(path))
    require(
        network.sha256 == expected,
        f"{setting}: {path} has the SHA-256 {network.sha256}, but {record} says {expected}. Copy "
        "both files of one training, or train again.",
    )
    weight_files.load_weights(network, path, setting)
    network.eval()
    return network


def fit_last_layer(network: MnistClassifier, features: np.ndarray, labels: np.ndarray) -> None:
    """Fits a classifier's last layer to other digits, by logistic regression on its features.

    Of scikit-learn's test digits, enlarged from 8x8, MNIST's classifier gets 85% right, and with a
    layer of their own 98%.

    Args:
        network: The classifier. Its features stay as they are, and its title gets `FITTED`.
        features: The digits' features, [N, 96].
        labels: Their classes, [N]; each class is among them.
    """
    from sklearn import linear_model  # slow to import, and rarely needed

    fitted = linear_model.LogisticRegression(max_iter=1000).fit(features, labels)
    network.linear.weight.set_value(fitted.coef_.T.astype("float32"))
    network.linear.bias.set_value(fitted.intercept_.astype("float32"))
    network.title += FITTED


def record_path(weights: str) -> str:
    """The path of the JSON record that belongs to a weights file."""
    return f"{osp.splitext(weights)[0]}.json"


def accuracy(network: MnistClassifier, images: np.ndarray, labels: np.ndarray) -> float:
    """Share (0..1) of digits, uint8 [N, 1, 28, 28], that a network in evaluation gets right."""
    logits = [
        network.logits(network.features(paddle.to_tensor(images[i : i + 500].astype("float32"))))
        for i in range(0, len(images), 500)
    ]
    predicted = np.concatenate([part.numpy().argmax(1) for part in logits])
    return float((predicted == labels).mean())


def shift(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moves each picture [N, 1, H, W] by up to SHIFT pixels each way; new pixels are 0."""
    count, _, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    top, left = rng.integers(2 * SHIFT + 1, size=(2, count, 1))
    rows, columns = top + np.arange(height), left + np.arange(width)
    number = np.arange(count)[:, None, None]
    return padded[number, 0, rows[:, :, None], columns[:, None, :]][:, None]


def digit_shares(predicted: np.ndarray) -> Dict[str, float]:
    """The share of each digit, `digit_0` to `digit_9` (0..1), and `digit_kl` (0..log 10).

    Args:
        predicted: Predicted digits, [N].

    Returns:
        The shares, and their KL divergence from equal shares.
    """
    shares, kl = metrics.class_shares(predicted, NUM_CLASSES)
    return {"digit_kl": kl, **{f"digit_{digit}": share for digit, share in enumerate(shares)}}


def train(data: ImageSet, epochs: int, seed: int) -> MnistClassifier:
    """Trains a classifier with Adam, a rate that rises and falls, and digits shifted at random.

    Args:
        data: MNIST.
        epochs: Passes through the training set.
        seed: Sets weights, order and shifts.
    """
    paddle.seed(seed)
    rng = np.random.default_rng(seed)
    network = MnistClassifier()
    size = min(BATCH_SIZE, len(data.train_images))
    steps = len(data.train_images) // size
    # The rate needs at least two steps to rise.
    rate = paddle.optimizer.lr.OneCycleLR(PEAK_RATE, max(epochs * steps, 10), phase_pct=0.2)
    optimizer = paddle.optimizer.Adam(rate, parameters=network.parameters(), weight_decay=1e-4)
    for epoch in range(1, epochs + 1):
        order = rng.permutation(len(data.train_images))
        for rows in order[: steps * size].reshape(steps, size):
            images = shift(functions.prepare_mnist(data.train_images[rows]), rng)
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
    """Trains a classifier, and writes its weights and their record."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="mnist.pkl.gz")
    parser.add_argument("--output", required=True, help="folder for the weights and their record")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logger.init_logger("ppsci")
    try:
        require(options.epochs >= 1, "--epochs must be at least 1.")
        require(0 <= options.seed < 2**32, "--seed must be at least 0 and below 2^32.")
        require(osp.isfile(options.data), f"--data: there is no file {options.data}.")
        data = functions.read_mnist(options.data)
        storage.check_writable(options.output, "Choose another folder with --output=FOLDER.")
    except (UserError, OSError) as error:
        fail(str(error))
    paddle.set_device("cpu")  # the weights of this suite were trained there
    start = time.perf_counter()
    network = train(data, options.epochs, options.seed)
    record = {
        "command": shlex.join(["python", "-m", "measures.digit_classifier", *sys.argv[1:]]),
        "test_accuracy": accuracy(network, data.test_images, data.test_labels),
        "data_sha256": storage.sha256(options.data),
        "seed": options.seed,
        "seconds": round(time.perf_counter() - start),
        "paddlepaddle": paddle.__version__,
    }
    path = osp.join(osp.abspath(options.output), "mnist_classifier.pdparams")
    weight_files.save_weights(network, path)
    record["sha256"] = storage.sha256(path)
    with storage.replacing(record_path(path)) as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())
    logger.info(f"{path}: {100 * record['test_accuracy']:.2f}% of the test digits right")


if __name__ == "__main__":
    main()
