# SPDX-License-Identifier: Apache-2.0
"""The Inception port: against torch-fidelity where it is installed, by golden values elsewhere."""

import importlib.util
import json
import pickle
import sys
import zipfile

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
from support import unpickling
from support.errors import UserError
from support.unpickling import unpickle


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
def test_resizing_is_tensorflows(shape, size):
    picture = np.random.default_rng(0).integers(256, size=shape).astype("float32")
    resized = inception.resize(paddle.to_tensor(picture[None, None]), size).numpy()[0, 0]
    np.testing.assert_allclose(
        resized, resize_by_hand(picture, size), atol=1e-3
    )  # positions are float32
    assert resized[0, 0] == picture[0, 0]


def test_resized_pictures_are_the_golden_ones():
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


def test_each_picture_has_features_of_its_own(network, outputs):
    images = paddle.to_tensor(reference.images()[5:7].astype("float32"))
    np.testing.assert_allclose(network.features(images).numpy(), outputs[0][5:7], atol=1e-5)


def test_torch_fidelitys_network_says_the_same(network, outputs, tmp_path):
    """The proof behind the golden values; wants PyTorch, see inception_reference.py."""
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
    left, right = rng.random((2, 300, 100), "float32") ** 2 * [[[1.0]], [[1.3]]]
    expected = fid.fid_statistics_to_metric(
        *(fid.fid_features_to_statistics(torch.from_numpy(part)) for part in (left, right)), False
    )
    distance = metrics.frechet_distance(*map(metrics.mean_and_covariance, (left, right)))
    assert distance == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)


def test_another_checksum_is_refused(inception_weights):
    path, checksum = inception_weights
    with pytest.raises(UserError, match=f"has the SHA-256 {checksum}, expected 6726825d"):
        inception.Inception(path)


def refused(path, content, *parts):
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        inception.Inception(str(path), storage.sha256(str(path)))
    for part in (str(path), *parts):
        assert part in str(caught.value), caught.value
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_refused(inception_weights, tmp_path):
    with open(inception_weights[0], "rb") as file:
        content = file.read()
    path = tmp_path / "x.pth"
    refused(path, content[: len(content) // 2], "can't be read")
    refused(path, b"", "can't be read")
    refused(path, b"no zip at all", "can't be read")
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    refused(path, flipped, "can't be read", "CRC")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x/data.pkl", bytes(1000))
    content = path.read_bytes()
    refused(path, content[:60] + b"\xff" * 8 + content[68:], "can't be read")


def test_archives_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(path, path.read_bytes(), "it holds 0 data.pkl")
    refused(path, zipped(path, pickle.dumps({1: 2}, 2)), "expected a dictionary of tensors")
    refused(path, zipped(path, pickle.dumps([1], 2)), "expected a dictionary of tensors")


def test_pickles_cannot_change_what_they_may_call(tmp_path):
    # a global, then BUILD with attributes to set: what `copyreg` never writes
    for module, name in (
        ("numpy.core.numeric", "_frombuffer"),
        ("numpy", "dtype"),
        ("collections", "OrderedDict"),
    ):
        pickled = f"c{module}\n{name}\n".encode() + b"N}X\x0c\x00\x00\x00__defaults__NsN\x86b."
        with pytest.raises(UserError, match="not a pickle of arrays"):
            unpickle(pickled, "x")
    assert unpickling._from_buffer.__defaults__ == ("C",)


class Evil:
    def __reduce__(self):
        return print, ("this must never be seen",)


def zipped(path, pickled, **storages):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        for key, content in storages.items():
            archive.writestr(f"x/data/{key}", content)
    return path.read_bytes()


def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, capfd):
    path = tmp_path / "x.pth"
    refused(path, zipped(path, pickle.dumps({"fc.weight": Evil()}, 2)), "names", "print")
    assert "never be seen" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (1,)),
        (2, (3,), (1,)),
        (0, (2, 2), (3, 1)),
        (-1, (2,), (1,)),
        (3, (2,), (-1,)),
        (0, (10**12,), (0,)),
        (0, (2, 2), (1,)),
        # NumPy's numbers would overflow, and so pass
        (0, (np.int64(5),), (np.int64(2**62),)),
        (0, (np.array(5),), (np.array(2**62),)),
        (0, (True,), (1,)),
    ],
)
def test_tensors_beyond_their_storage_are_refused(offset, shape, strides):
    storage = torch_files._Storage(np.arange(4, dtype="float32"))
    with pytest.raises(pickle.UnpicklingError, match="beyond its storage|whole numbers"):
        torch_files._rebuild_tensor(storage, offset, shape, strides)


def test_tensors_of_any_layout_are_read():
    numbers = np.arange(12, dtype="float32")
    storage = torch_files._Storage(numbers)
    transposed = torch_files._rebuild_tensor(storage, 0, (3, 4), (1, 3)).array
    np.testing.assert_array_equal(transposed, numbers.reshape(4, 3).T)
    assert torch_files._rebuild_tensor(storage, 7, (), ()).array == 7


def test_weights_of_another_network_are_refused(tmp_path):
    state = reference.random_state()
    state["fc.weight"] = state["fc.weight"][:1000]
    state["extra"] = state.pop("Mixed_6d.branch_pool.bn.bias")
    path = tmp_path / "other.pth"
    reference.write_pth(path, state)
    refused(
        path,
        path.read_bytes(),
        "missing: Mixed_6d.branch_pool.bn.bias",
        "unexpected: extra",
        "fc.weight [1000, 2048] where [1008, 2048] is expected",
    )


def test_evaluation_by_the_inception_as_a_command(inception_weights, run_script, tmp_path):
    """Score and distance in training and in mode=eval, the statistics kept between the two."""
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
    assert "Statistics of 12 training pictures" in done.stdout
    record = json.loads((run / "metrics.jsonl").read_text())
    assert record["best"] and record["inception_score"] >= 1 and record["fid"] > 0
    done = run_script(
        *("cifar10", "mode=eval", *settings, f"hydra.run.dir={tmp_path}/evaluated"),
        f"EVAL.pretrained_gen_model_path={run}/checkpoints/best_generator",
    )
    assert "Statistics of" not in done.stdout
    report = json.loads((tmp_path / "evaluated" / "metrics.json").read_text())
    for name, better in (("inception_score", "higher"), ("fid", "lower")):
        row = report["metrics"][name]
        assert row["value"] == record[name] and row["better"] == better
        assert row["measured_by"] == {
            "network": "Inception, other weights",
            "sha256": checksum,
            "reference": "12 training pictures",
        }
        assert f"Inception, other weights ({checksum[:12]})" in done.stdout


def test_offline_the_missing_weights_are_explained_before_training(run_script, tmp_path):
    done = run_script("cifar10", "DATA.source=synthetic", f"hydra.run.dir={tmp_path}/x", status=2)
    for part in ("pt_inception-2015-12-05", "EVAL.inception_weights=PATH", "EVAL.inception=false"):
        assert part in done.stderr, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "x" / "metrics.jsonl").exists()


@pytest.mark.parametrize(("pictures", "status"), [(100, None), (100, 2), (99, 2)])
def test_the_self_test_compares_with_what_is_known(
    inception_weights, tmp_path, monkeypatch, capsys, pictures, status
):
    """With random weights and pictures, whose score is computed here first."""
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
    monkeypatch.setattr(inception, "EXPECTED", score + (0 if status is None else 0.001))
    monkeypatch.setattr(sys, "argv", ["inception.py", "--data", str(archive), "--weights", path])
    if status is None:
        inception.main()
        assert "passed" in capsys.readouterr().out
        return
    with pytest.raises(SystemExit) as ended:
        inception.main()
    assert ended.value.code == status
    message = capsys.readouterr().err
    assert ("fewer than 100" if pictures < 100 else "will not compare") in message


def test_the_self_test_refuses_other_weights(inception_weights, run_script, tmp_path):
    write_cifar(tmp_path / "tiny.tar.gz", {"data_batch_1": 1, "test_batch": 1})
    done = run_script(
        *(
            "-m measures.inception",
            "--data",
            f"{tmp_path}/tiny.tar.gz",
            "--weights",
            inception_weights[0],
        ),
        status=2,
    )
    assert "has the SHA-256" in done.stderr and "Traceback" not in done.stderr
