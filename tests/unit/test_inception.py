# SPDX-License-Identifier: Apache-2.0
"""The Inception port: against torch-fidelity if it is installed, and against golden values."""

import importlib.util
import json
import sys

import features_reference
import inception_reference as reference
import numpy as np
import paddle
import pytest
from test_data import write_cifar

import functions
from measures import inception
from measures import metrics
from support import storage
from support import torch_files
from support.errors import UserError


@pytest.fixture(scope="module")
def network(inception_weights):
    return inception.Inception(*inception_weights)


@pytest.fixture(scope="module")
def outputs(network):
    features = network.features(paddle.to_tensor(reference.images().astype("float32")))
    return features.numpy(), network.logits(features).numpy()


def relative(value, expected):
    expected = np.asarray(expected)
    return np.abs(value - expected).max() / np.abs(expected).max()


def resize_by_hand(picture, size):
    """TensorFlow 1's formula, pixel by pixel, in float64."""
    height, width = picture.shape
    result = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            y, x = i * height / size, j * width / size
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = picture[top, left] * (1 - x + left) + picture[top, right] * (x - left)
            lower = picture[bottom, left] * (1 - x + left) + picture[bottom, right] * (x - left)
            result[i, j] = upper * (1 - y + top) + lower * (y - top)
    return result


@pytest.mark.parametrize(("shape", "size"), [((32, 32), 75), ((7, 5), 13), ((64, 64), 41)])
def test_resize_is_tensorflows(shape, size):
    picture = np.random.default_rng(0).integers(256, size=shape).astype("float32")
    resized = inception.resize(paddle.to_tensor(picture[None, None]), size).numpy()[0, 0]
    # positions are float32
    np.testing.assert_allclose(resized, resize_by_hand(picture, size), atol=1e-3)
    assert resized[0, 0] == picture[0, 0]


def test_resize_gives_the_golden_pictures():
    picture = paddle.to_tensor(reference.images()[:1].astype("float32"))
    resized = inception.resize(picture).numpy()[0, :, ::23, ::23]
    np.testing.assert_allclose(resized, reference.read_golden()["resized"], atol=1e-4)


def test_features_and_logits_are_the_golden_ones(outputs):
    golden, (features, logits) = reference.read_golden(), outputs
    assert features.shape == (12, 2048) and logits.shape == (12, 1008)
    assert relative(features[:2, ::128], golden["features"]) < 1e-4
    assert relative(features.mean(1), golden["feature_means"]) < 1e-4
    assert relative(logits[:2, ::63], golden["logits"]) < 1e-4
    assert relative(np.linalg.norm(logits, axis=1), golden["logit_norms"]) < 1e-4


def softmax(logits):
    powers = np.exp(logits.astype("float64") - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_score_and_distance_are_the_golden_ones(outputs):
    golden = reference.read_golden()
    score = functions.inception_score(softmax(reference.score_logits()), reference.SPLITS)
    assert score == pytest.approx(golden["inception_score"], rel=1e-6)
    halves = [metrics.mean_and_covariance(half) for half in np.split(outputs[0], 2)]
    distance = metrics.frechet_distance(*halves)
    assert distance == pytest.approx(golden["fid_of_halves"], rel=1e-4)


def test_features_of_a_picture_do_not_depend_on_the_batch(network, outputs):
    images = paddle.to_tensor(reference.images()[5:7].astype("float32"))
    np.testing.assert_allclose(network.features(images).numpy(), outputs[0][5:7], atol=1e-5)


def test_torch_fidelity_computes_the_same(network, outputs, tmp_path):
    """The proof behind the golden values; it needs PyTorch, see inception_reference.py."""
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed")
    extractor, interpolate, fid, isc = reference.import_torch_fidelity()

    state, path = reference.random_state(), tmp_path / "by_torch.pth"
    torch.save({name: torch.from_numpy(value) for name, value in state.items()}, path)
    read = torch_files.read_pth(str(path))
    assert list(read) == list(state)
    for name, value in state.items():
        np.testing.assert_array_equal(read[name], value)
    theirs = extractor.FeatureExtractorInceptionV3(
        "random", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
    )
    images = torch.from_numpy(reference.images())
    for ours, expected in zip(outputs, theirs(images)):
        assert relative(ours, expected.numpy()) < 1e-3

    resized = interpolate.interpolate_bilinear_2d_like_tensorflow1x(
        images.float(), size=(299, 299), align_corners=False
    )
    ours = inception.resize(paddle.to_tensor(reference.images().astype("float32")))
    np.testing.assert_allclose(ours.numpy(), resized.numpy(), atol=1e-4)

    rng = np.random.default_rng(0)
    logits = 3 * rng.standard_normal((200, 1008)).astype("float32")
    expected = isc.isc_features_to_metric(torch.from_numpy(logits), splits=7, shuffle=False)
    score = functions.inception_score(softmax(logits), 7)
    assert score == pytest.approx(tuple(expected.values()), rel=1e-4)
    sets, golden = features_reference.features(), features_reference.read_golden()
    found = features_reference.torch_fidelity_figures(*sets)
    for name, value in golden["torch_fidelity"].items():  # See test_neighbours.py.
        assert found[name] == pytest.approx(value, rel=1e-9)
    left, right = rng.random((2, 300, 100), "float32") ** 2 * [[[1.0]], [[1.3]]]
    expected = fid.fid_statistics_to_metric(
        *(fid.fid_features_to_statistics(torch.from_numpy(part)) for part in (left, right)), False
    )
    distance = metrics.frechet_distance(*map(metrics.mean_and_covariance, (left, right)))
    assert distance == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)


def test_weights_with_another_checksum_are_refused(inception_weights):
    path, checksum = inception_weights
    with pytest.raises(UserError, match=f"has the SHA-256 {checksum}, expected 6726825d"):
        inception.Inception(path)


def test_weights_with_another_checksum_have_another_title(network, inception_weights):
    assert network.title == "Inception, other weights"
    assert network.sha256 == inception_weights[1]
    assert inception.SHA256 == "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


def test_batch_normalisation_has_an_epsilon_of_1e_3(tmp_path):
    """A layer whose variance is 0 shows it: its scale is 1 / sqrt(epsilon)."""
    state, path = reference.random_state(), tmp_path / "x.pth"
    state["Conv2d_1a_3x3.bn.running_var"][:] = 0
    reference.write_pth(path, state)
    network = inception.Inception(str(path), storage.sha256(str(path)))
    scale = state["Conv2d_1a_3x3.bn.weight"] / np.sqrt(1e-3)
    weight = state["Conv2d_1a_3x3.conv.weight"] * scale[:, None, None, None]
    np.testing.assert_allclose(network.stem[0].conv.weight.numpy(), weight, rtol=1e-5)
    bias = state["Conv2d_1a_3x3.bn.bias"] - state["Conv2d_1a_3x3.bn.running_mean"] * scale
    np.testing.assert_allclose(network.stem[0].conv.bias.numpy(), bias, rtol=1e-4, atol=1e-6)


def check_refused(path, content, *parts):
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        inception.Inception(str(path), storage.sha256(str(path)))
    for part in (str(path), *parts):
        assert part in str(caught.value), caught.value
    assert r"\n" not in str(caught.value)


def test_weights_that_are_damaged_are_refused(inception_weights, tmp_path):
    with open(inception_weights[0], "rb") as file:
        content = file.read()
    path = tmp_path / "x.pth"
    check_refused(path, content[: len(content) // 2], "can't be read")
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    check_refused(path, flipped, "can't be read", "CRC")


def test_weights_of_another_network_are_refused(tmp_path):
    state = reference.random_state()
    state["fc.weight"] = state["fc.weight"][:1000]
    state["extra"] = state.pop("Mixed_6d.branch_pool.bn.bias")
    path = tmp_path / "other.pth"
    reference.write_pth(path, state)
    check_refused(
        path,
        path.read_bytes(),
        "missing: Mixed_6d.branch_pool.bn.bias",
        "unexpected: extra",
        "fc.weight [1000, 2048] where [1008, 2048] is expected",
    )


def test_inception_evaluates_in_training_and_in_mode_eval(inception_weights, run_script, tmp_path):
    """Score and distance are the same in both, and the statistics are computed once."""
    archive, (path, checksum) = tmp_path / "tiny.tar.gz", inception_weights
    write_cifar(archive, {"data_batch_1": 12, "test_batch": 3})
    settings = [
        *(f"DATA.data_path={archive}", "MODEL.gen_net.dim=4", "MODEL.dis_net.dim=4"),
        *(f"EVAL.inception_weights={path}", f"EVAL.inception_sha256={checksum}"),
        *("TRAIN.eval_num_samples=10", "EVAL.num_samples=10"),
    ]
    run = tmp_path / "run"
    done = run_script(
        *("cifar10", *settings, "TRAIN.epochs=1", "TRAIN.iters_per_epoch=1", "TRAIN.eval_freq=1"),
        *("TRAIN.batch_size=2", "TRAIN.save_freq=0", f"hydra.run.dir={run}"),
    )
    assert "Computing statistics of 12 training pictures" in done.stdout
    record = json.loads((run / "metrics.jsonl").read_text())
    assert record["best"] and record["inception_score"] >= 1 and record["fid"] > 0
    done = run_script(
        *("cifar10", "mode=eval", *settings, f"hydra.run.dir={tmp_path}/evaluated"),
        f"EVAL.pretrained_gen_model_path={run}/checkpoints/best_generator",
    )
    assert "statistics of" not in done.stdout
    report = json.loads((tmp_path / "evaluated" / "metrics.json").read_text())
    for name, better in (("inception_score", "higher"), ("fid", "lower")):
        row = report["metrics"][name]
        assert row["value"] == record[name] and row["better"] == better
        assert row["measured_by"] == {
            "network": "Inception, other weights",
            "sha256": checksum,
            "reference": "12 training pictures",
            "labels": "uniform",
        }
        assert f"Inception, other weights ({checksum[:12]})" in done.stdout


def test_weights_that_are_missing_offline_are_explained_before_training(run_script, tmp_path):
    done = run_script("cifar10", "DATA.source=synthetic", f"hydra.run.dir={tmp_path}/x", status=2)
    for part in ("pt_inception-2015-12-05", "EVAL.inception_weights=PATH", "EVAL.inception=false"):
        assert part in done.stderr, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "x" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("pictures", "difference", "message"),
    [
        (100, 0, None),
        (100, 0.9e-4, None),
        (100, 1.1e-4, "will not compare"),
        (100, -1.1e-4, "will not compare"),
        (99, 0, "fewer than 100"),
    ],
)
def test_self_test_compares_with_the_known_score(
    inception_weights, tmp_path, monkeypatch, capsys, pictures, difference, message
):
    """With random weights and pictures; their score is computed here first."""
    path, checksum = inception_weights
    archive = tmp_path / "x.tar.gz"
    write_cifar(archive, {"data_batch_1": pictures, "test_batch": 1})
    rng = np.random.RandomState(3)
    logits = rng.standard_normal((100, 1008)).astype("float32")
    given = iter(np.split(logits, 10))
    monkeypatch.setattr(inception, "SHA256", checksum)
    monkeypatch.setattr(inception.Inception, "features", lambda self, images: images)
    monkeypatch.setattr(
        inception.Inception, "logits", lambda self, _: paddle.to_tensor(next(given))
    )
    order = np.random.RandomState(2020).permutation(100)
    score = functions.inception_score(softmax(logits[order]))[0]
    monkeypatch.setattr(inception, "EXPECTED", score + difference)
    monkeypatch.setattr(sys, "argv", ["inception.py", "--data", str(archive), "--weights", path])
    if message is None:
        inception.main()
        assert "passed" in capsys.readouterr().out
        return
    with pytest.raises(SystemExit) as ended:
        inception.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_self_test_expects_the_score_of_torch_fidelity():
    assert inception.EXPECTED == 4.51089784587268


def test_self_test_refuses_other_weights(inception_weights, run_script, tmp_path):
    data, weights = tmp_path / "tiny.tar.gz", inception_weights[0]
    write_cifar(data, {"data_batch_1": 1, "test_batch": 1})
    done = run_script("-m measures.inception", "--data", data, "--weights", weights, status=2)
    assert "has the SHA-256" in done.stderr and "Traceback" not in done.stderr
