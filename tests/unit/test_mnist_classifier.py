# SPDX-License-Identifier: Apache-2.0
"""The classifier of digits: its accuracy, its command, and its record."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from test_data import write_mnist

import functions
from data import synthetic
from data.image_set import ImageSet
from measures import digit_classifier
from support.errors import UserError


def test_shipped_classifier_recognises_mnist(shared):
    network = digit_classifier.load()
    record = json.loads(Path(digit_classifier.SHIPPED).with_suffix(".json").read_text())
    data = functions.read_mnist(shared("mnist.pkl.gz"))
    right = digit_classifier.accuracy(network, data.test_images, data.test_labels)
    assert right == pytest.approx(record["test_accuracy"], abs=2e-4) and right >= 0.992


def test_shipped_classifier_recognises_other_digits():
    network, data = digit_classifier.load(), synthetic.digits_set()
    assert digit_classifier.accuracy(network, data.test_images, data.test_labels) > 0.7


def test_logits_of_features_are_those_of_the_network():
    network, data = digit_classifier.load(), synthetic.digits_set()
    images = data.test_images[:5]
    whole = network(paddle.to_tensor(functions.prepare_mnist(images))).numpy()
    features = network.features(paddle.to_tensor(images.astype("float32")))
    assert features.shape == [5, 96]
    np.testing.assert_allclose(network.logits(features).numpy(), whole, rtol=1e-4, atol=1e-4)


def test_shift_moves_whole_pictures():
    rng = np.random.default_rng(0)
    images = np.zeros((300, 1, 9, 9), "float32")
    images[:, 0, 4, 4] = np.arange(1, 301)
    moved = digit_classifier.shift(images, rng)
    number, _, rows, columns = np.nonzero(moved)
    assert moved.shape == images.shape and number.tolist() == list(range(300))
    np.testing.assert_array_equal(moved[number, 0, rows, columns], images[:, 0, 4, 4])
    places = set(zip(rows - 4, columns - 4))
    assert places == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}


def digits(labels):
    """Rows of x / 256 as in mnist.pkl.gz; each class is a bar at another place."""
    rows = np.zeros((len(labels), 28, 28), "float32")
    for row, label in zip(rows, labels):
        row[4 + 2 * (label % 5) : 8 + 2 * (label % 5), 6 + 8 * (label // 5) :][:, :6] = 200 / 256
    return rows.reshape(-1, 784), labels


def test_command_trains_weights_that_load(run_script, tmp_path):
    rng = np.random.default_rng(0)
    data = tmp_path / "mnist.pkl.gz"
    write_mnist(data, [digits(rng.integers(10, size=size)) for size in (400, 10, 100)])
    out = tmp_path / "out"
    done = run_script(
        "-m measures.digit_classifier", "--data", data, "--output", out, "--epochs", "2"
    )
    record = json.loads((out / "mnist_classifier.json").read_text())
    assert f"{100 * record['test_accuracy']:.2f}% of the test digits right" in done.stdout
    assert record["command"].startswith("python -m measures.digit_classifier --data ")
    network = digit_classifier.load(str(out / "mnist_classifier.pdparams"))
    assert network.sha256 == record["sha256"]
    read = functions.read_mnist(str(data))
    right = digit_classifier.accuracy(network, read.test_images, read.test_labels)
    assert right == record["test_accuracy"]


@pytest.mark.parametrize("epochs", [1, 5])
def test_few_pictures_suffice(epochs):
    """Five steps in all left Paddle's schedule no step for the rise of the rate."""
    images = np.random.default_rng(0).integers(256, size=(20, 1, 28, 28)).astype("uint8")
    labels = np.arange(20) % 10
    network = digit_classifier.train(ImageSet(images, labels, images, labels), epochs, 0)
    assert np.isfinite(network(paddle.zeros([1, 1, 28, 28])).numpy()).all()


def test_command_refuses_invalid_arguments_before_training(tmp_path, monkeypatch, capsys):
    data, absent = tmp_path / "mnist.pkl.gz", tmp_path / "none.gz"
    write_mnist(data, [digits(np.arange(12) % 10) for _ in range(3)])
    for arguments, part in (
        (("--data", data, "--output", tmp_path, "--epochs", "0"), "--epochs must be at least 1"),
        (("--data", absent, "--output", tmp_path), f"there is no file {absent}"),
    ):
        monkeypatch.setattr(sys, "argv", ["digit_classifier.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            digit_classifier.main()
        error = capsys.readouterr().err
        assert stop.value.code == 2 and part in error and error.count("\n") == 1


def test_digit_shares_are_those_of_the_predictions():
    figures = digit_classifier.digit_shares(np.array([3, 3, 3, 7]))
    assert list(figures) == ["digit_kl", *(f"digit_{digit}" for digit in range(10))]
    assert figures["digit_3"] == 0.75 and figures["digit_7"] == 0.25 and figures["digit_0"] == 0
    assert figures["digit_kl"] == pytest.approx(np.log(10) + 0.75 * np.log(3) - np.log(4))


def test_weights_without_their_own_record_are_refused(tmp_path):
    weights, record = tmp_path / "x.pdparams", tmp_path / "x.json"
    shutil.copy(digit_classifier.SHIPPED, weights)
    with pytest.raises(UserError, match=r"x\.json is absent or damaged.*copy both files"):
        digit_classifier.load(str(weights))
    for content in ("", "[]", '{"command": 1}'):
        record.write_text(content)
        with pytest.raises(UserError, match="absent or damaged"):
            digit_classifier.load(str(weights))
    record.write_text('{"sha256": "123"}')
    with pytest.raises(UserError, match=r"has the SHA-256 [0-9a-f]{64}, but .*x\.json says 123"):
        digit_classifier.load(str(weights))
    with pytest.raises(UserError, match="EVAL.classifier_weights: there is no file"):
        digit_classifier.load(str(tmp_path / "absent"))
