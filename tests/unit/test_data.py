# SPDX-License-Identifier: Apache-2.0
"""Readers, embedded sets, toy sets, and the Inception Score's arithmetic."""

import collections
import gzip
import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest
from scipy import spatial
from scipy import stats
from sklearn.datasets import make_swiss_roll

import functions
from data import streams
from data import synthetic
from data.image_set import ImageSet
from support import archives
from support.errors import UserError
from support.opcodes import MAX_STEPS
from support.unpickling import unpickle


def add_member(archive, name, content):
    info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def write_cifar(path, sizes, protocol=2, **replaced):
    """Writes an archive in CIFAR-10's layout; returns its contents by member."""
    rng, contents = np.random.default_rng(0), collections.OrderedDict()
    with tarfile.open(path, "w:gz") as archive:
        for name, size in sizes.items():
            rows = rng.integers(256, size=(size, 3072), dtype="uint8")
            contents[name] = {b"data": rows, b"labels": rng.integers(10, size=size).tolist()}
            batch = replaced.get(name, contents[name])
            content = batch if isinstance(batch, bytes) else pickle.dumps(batch, protocol)
            add_member(archive, name, content)
        add_member(archive, "batches.meta", b"not read")
    return contents


def test_small_pickles_that_grow_are_refused(tmp_path):
    many = b"\x80\x02]" + b"]a" * MAX_STEPS + b"."
    with pytest.raises(UserError, match="made in more than"):
        unpickle(many, "here")
    labels = [1]
    for _ in range(25):
        labels = [labels, labels]
    for batch in ({**GOOD, b"labels": labels}, {**GOOD, b"data": labels}):
        write_cifar(tmp_path / "c.tar.gz", {"data_batch_1": 2, "test_batch": 2}, data_batch_1=batch)
        with pytest.raises(UserError, match="expected a dictionary with"):
            functions.read_cifar10(str(tmp_path / "c.tar.gz"))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_cifar10_batches_of_any_number_and_size_are_read(tmp_path, protocol):
    path = tmp_path / "cifar.tar.gz"
    sizes = {"data_batch_1": 5, "data_batch_2": 1, "data_batch_3": 7, "test_batch": 4}
    contents = write_cifar(path, sizes, protocol)
    data = functions.read_cifar10(str(path))
    rows = np.concatenate([contents[f"data_batch_{i}"][b"data"] for i in (1, 2, 3)])
    np.testing.assert_array_equal(data.train_images, rows.reshape(13, 3, 32, 32))
    labels = sum((contents[f"data_batch_{i}"][b"labels"] for i in (1, 2, 3)), [])
    assert data.train_labels.tolist() == labels
    assert data.test_images.shape == (4, 3, 32, 32)
    assert data.train_images.dtype == np.uint8 and data.train_labels.dtype == np.int64


GOOD = {b"data": np.zeros((2, 3072), "uint8"), b"labels": [1, 2]}


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({b"labels": [1, 2]}, "expected a dictionary with `data`"),
        ([1, 2], "expected a dictionary with `data`"),
        ({**GOOD, b"data": np.zeros((2, 3071), "uint8")}, "expected a dictionary with `data`"),
        ({**GOOD, b"data": np.zeros((2, 3072), "float32")}, "float32, expected uint8"),
        ({**GOOD, b"labels": [1]}, "2 pictures, but labels of shape"),
        ({**GOOD, b"labels": [1, 10]}, "labels from 1 to 10"),
        ({**GOOD, b"labels": ["cat", "dog"]}, "expected a dictionary with `data`"),
        ({**GOOD, b"labels": [1.0, 2.0]}, "expected a dictionary with `data`"),
        ({**GOOD, b"labels": [1, 2**70]}, "expected a dictionary with `data`"),
        ({**GOOD, b"data": np.zeros((2, 32, 32, 3), "uint8")}, "expected a dictionary with"),
        ({**GOOD, b"data": np.zeros((3072, 2), "uint8")}, "expected a dictionary with `data`"),
        (b"\x80\x02nonsense", "is not a pickle"),
        (pickle.dumps(GOOD)[:-50], "is not a pickle"),
    ],
)
def test_cifar10_of_another_layout_is_refused(tmp_path, batch, message):
    path = tmp_path / "cifar.tar.gz"
    write_cifar(path, {"data_batch_1": 2, "test_batch": 2}, data_batch_1=batch)
    with pytest.raises(UserError, match=message) as error:
        functions.read_cifar10(str(path))
    assert "data_batch_1" in str(error.value)


def test_python_3_keys_and_a_second_test_batch_are_read(tmp_path):
    path = tmp_path / "cifar.tar.gz"
    batch = {"data": np.ones((3, 3072), "uint8"), "labels": [1, 2, 3]}
    write_cifar(path, {"data_batch_1": 2, "test_batch_1": 3, "test_batch_2": 3}, test_batch_2=batch)
    data = functions.read_cifar10(str(path))
    assert len(data.train_images) == 2 and len(data.test_images) == 6
    assert data.test_labels[3:].tolist() == [1, 2, 3]


def test_cifar10_without_a_test_batch_is_refused(tmp_path):
    path = tmp_path / "cifar.tar.gz"
    write_cifar(path, {"data_batch_1": 2})
    with pytest.raises(UserError, match="no pictures of a test_batch inside"):
        functions.read_cifar10(str(path))


def test_a_member_too_large_for_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    write_cifar(tmp_path / "cifar.tar.gz", {"data_batch_1": 2, "test_batch": 2})
    with pytest.raises(UserError, match="unpacks to more than"):
        functions.read_cifar10(str(tmp_path / "cifar.tar.gz"))
    write_mnist(tmp_path / "m.pkl.gz", (np.zeros(1000),) * 3)
    with pytest.raises(UserError, match="unpacks to more than"):
        functions.read_mnist(str(tmp_path / "m.pkl.gz"))


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (self.mark, "w")


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    path, mark = tmp_path / "cifar.tar.gz", tmp_path / "mark"
    hostile = {b"data": Hostile(str(mark)), b"labels": [1]}
    write_cifar(path, {"data_batch_1": 1, "test_batch": 1}, data_batch_1=hostile)
    with pytest.raises(UserError, match=r"it names .*open"):
        functions.read_cifar10(str(path))
    assert not mark.exists()


RECONSTRUCT = np.zeros(1).__reduce__()[0]  # NumPy's function that pickles name.


class Crafted(np.ndarray):
    """Pickles as an array whose type claims that its bytes are pointers to objects."""

    def __reduce__(self):
        dtype = np.dtype([("a", "O")])
        return (
            RECONSTRUCT,
            (np.ndarray, (0,), b"b"),
            (
                *(1, (1,), dtype, False),
                b"A" * 8,
            ),
        )


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros(1).view(Crafted),
        np.array(["2020-01-01"], "M8[D]"),
        np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]),
        np.array([{}], object),
    ],
)
def test_arrays_of_anything_but_numbers_are_refused(tmp_path, labels):
    path = tmp_path / "cifar.tar.gz"
    batch = {b"data": np.zeros((1, 3072), "uint8"), b"labels": labels}
    write_cifar(path, {"data_batch_1": 1, "test_batch": 1}, data_batch_1=batch)
    with pytest.raises(UserError, match="it holds an array of"):
        functions.read_cifar10(str(path))


def test_arrays_of_every_protocol_order_and_type_come_back():
    rng = np.random.default_rng(0)
    for dtype in ("u1", "<i8", ">i4", "<f4", ">f8", "?"):
        array = (rng.standard_normal((3, 4)) * 9).astype(dtype)
        for value in (array, np.asfortranarray(array), array[:0], array[1, 1]):
            for protocol in (2, 3, 4, 5):
                back = unpickle(pickle.dumps({"a": [value]}, protocol), "here")["a"][0]
                np.testing.assert_array_equal(back, value)
                assert back.dtype == value.dtype


def test_damage_to_the_last_checksum_is_found(tmp_path):
    """The checksum of a compressed archive follows the tar's own end, where tarfile stops."""
    path = tmp_path / "cifar.tar.gz"
    write_cifar(path, {"data_batch_1": 3, "test_batch": 2})
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # The checksum itself is damaged.
    path.write_bytes(content)
    with pytest.raises(UserError, match="incorrect data check"):
        functions.read_cifar10(str(path))


def test_a_member_that_occurs_twice_is_refused(tmp_path):
    path = tmp_path / "cifar.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("data_batch_1", "data_batch_1", "test_batch"):
            add_member(archive, name, pickle.dumps(GOOD))
    with pytest.raises(UserError, match="data_batch_1 twice"):
        functions.read_cifar10(str(path))


@pytest.mark.parametrize("kept", [100, 5000])
def test_a_truncated_archive_is_named(tmp_path, kept):
    path = tmp_path / "cifar.tar.gz"
    write_cifar(path, {"data_batch_1": 5, "test_batch": 5})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"cifar.tar.gz can't be read .*copy it again"):
        functions.read_cifar10(str(path))


def write_mnist(path, sets):
    with gzip.open(path, "wb") as file:
        file.write(pickle.dumps(sets, 2))


def test_mnist_gives_back_its_pixels(tmp_path):
    rng = np.random.default_rng(0)
    pixels = [rng.integers(256, size=(size, 784)) for size in (6, 2, 3)]
    sets = tuple((p.astype("float32") / 256, rng.integers(10, size=len(p))) for p in pixels)
    write_mnist(tmp_path / "m.pkl.gz", sets)
    data = functions.read_mnist(str(tmp_path / "m.pkl.gz"))
    np.testing.assert_array_equal(data.train_images.reshape(6, 784), pixels[0])
    np.testing.assert_array_equal(data.test_images.reshape(3, 784), pixels[2])
    assert data.test_labels.tolist() == sets[2][1].tolist()
    # The network gets the file's own numbers.
    np.testing.assert_array_equal(
        functions.prepare_mnist(data.train_images).reshape(6, 784), sets[0][0]
    )


@pytest.mark.parametrize(
    "sets",
    [(1, 2, 3), ((np.full((2, 784), 3.0), [1, 2]),) * 3, ((np.zeros((2, 783)), [1, 2]),) * 3],
)
def test_mnist_of_another_layout_is_refused(tmp_path, sets):
    write_mnist(tmp_path / "m.pkl.gz", sets)
    with pytest.raises(UserError, match="expected three pairs"):
        functions.read_mnist(str(tmp_path / "m.pkl.gz"))


def test_the_real_mnist_is_read(shared):
    data = functions.read_mnist(shared("mnist.pkl.gz"))
    assert data.train_images.shape == (50000, 1, 28, 28)
    assert data.test_images.shape == (10000, 1, 28, 28)
    assert np.bincount(data.test_labels).tolist() == [
        *(980, 1135, 1032, 1010, 982),
        *(892, 958, 1028, 974, 1009),
    ]
    assert data.train_images.max() == 255


def test_the_emoji_archive_is_read(shared):
    data = functions.read_cifar10(shared("emoji-cifar10-layout.tar.gz"))
    assert data.train_images.shape[1:] == (3, 32, 32)
    assert len(data.train_images) + len(data.test_images) == 3781
    assert sorted(set(data.train_labels)) == list(range(10))


def test_dequantisation_is_drawn_at_each_read_and_stays_in_its_level():
    images = np.random.default_rng(0).integers(256, size=(4, 3, 32, 32), dtype="uint8")
    levels = 2 * (images / 256 - 0.5)
    rng = np.random.default_rng(1)
    one, two = (functions.prepare_cifar10(images, rng) for _ in range(2))
    for noisy in (one, two):
        assert noisy.dtype == np.float32
        assert (noisy - levels >= -1e-6).all() and (noisy - levels <= 1 / 128 + 1e-6).all()
        assert (noisy - levels).mean() == pytest.approx(1 / 256, rel=0.05)
    assert (one != two).mean() > 0.9
    np.testing.assert_allclose(functions.prepare_cifar10(images), levels, atol=1e-6)
    # A training reads the same pictures in two passes.
    prepare = functions.prepare_cifar10
    real = streams.shuffled_images(images, np.arange(4), prepare, 8, (0,))["real"]
    passes = [np.sort(real[np.arange(i, i + 4)].reshape(4, -1)[:, 0]) for i in (0, 4)]
    assert (passes[0] != passes[1]).all() and np.abs(passes[0] - passes[1]).max() <= 1 / 128


def test_digits_are_ten_classes_of_28x28():
    data = synthetic.digits_set()
    assert data.train_images.shape == (1500, 1, 28, 28) and data.test_images.shape[0] == 297
    assert sorted(set(data.train_labels)) == list(range(10))
    assert data.train_images.max() == 255
    assert not data.train_images[:, :, :4].any() and not data.train_images[..., 24:].any()


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_digits_are_scaled_to_the_range_of_the_generator(low):
    images = np.arange(256, dtype="uint8").reshape(1, 1, 16, 16)
    scaled = functions.prepare_mnist(images, np.random.default_rng(0), low)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.ravel(), low + (1 - low) * np.arange(256) / 256, atol=1e-6)


def test_a_fingerprint_names_the_training_set():
    images, labels = np.arange(12, dtype="uint8").reshape(3, 1, 2, 2), np.array([0, 1, 2])
    data = ImageSet(images, labels, images[:1], labels[:1])
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert data.fingerprint() == f"3 pictures of SHA-256 {digest[:16]}"
    assert ImageSet(images, labels, images, labels, ["a", "b", "c"]).fingerprint() == (
        data.fingerprint()
    )
    assert ImageSet(images, labels[::-1], images, labels).fingerprint() != data.fingerprint()
    # A view that is not contiguous has the fingerprint of its content.
    view = ImageSet(images[:, :, ::-1][:, :, ::-1], labels, images, labels)
    assert view.fingerprint() == data.fingerprint()


def test_class_names_are_empty_unless_given():
    images, labels = np.zeros((2, 1, 2, 2), "uint8"), np.zeros(2, "int64")
    assert ImageSet(images, labels, images, labels).class_names == ()
    assert ImageSet(images, labels, images, labels, ["a", "b"]).class_names == ("a", "b")


def test_synthetic_shapes_are_ten_classes_that_a_classifier_recognises():
    from sklearn.ensemble import RandomForestClassifier

    data = synthetic.synthetic_set(train=1500, test=300)
    assert data.train_images.shape == (1500, 3, 32, 32) and data.train_images.dtype == np.uint8
    forest = RandomForestClassifier(50, random_state=0)
    forest.fit(data.train_images.reshape(1500, -1), data.train_labels)
    assert forest.score(data.test_images.reshape(300, -1), data.test_labels) > 0.5
    again = synthetic.synthetic_set(train=1500, test=300)
    np.testing.assert_array_equal(data.train_images, again.train_images)
    other = synthetic.synthetic_set(seed=1, train=1500, test=300)
    assert (other.train_labels != data.train_labels).any()


SHAPE_LEVELS = [
    *(80.586, 78.621, 59.765, 69.192, 64.712),
    *(54.633, 57.001, 74.196, 69.914, 67.018),
]


def test_synthetic_shapes_have_the_brightness_of_earlier_versions():
    """Mean grey levels per class are kept, so a run on these pictures can be repeated."""
    data = synthetic.synthetic_set()
    assert (len(data.train_images), len(data.test_images)) == (5000, 1000)
    levels = [data.train_images[data.train_labels == label].mean() for label in range(10)]
    np.testing.assert_allclose(levels, SHAPE_LEVELS, atol=0.02)


@pytest.mark.parametrize(
    ("name", "modes", "deviation"),
    [("8gaussians", 8, 0.02 / 1.414), ("25gaussians", 25, 0.05 / 2.828)],
)
def test_mixtures_have_equal_modes_of_a_known_deviation(name, modes, deviation):
    points = synthetic.draw_toy(name, np.random.default_rng(0), 20000)
    assert points.dtype == np.float32
    centres, sigma = synthetic.toy_centres(name)
    assert sigma == pytest.approx(deviation) and len(centres) == modes
    nearest = ((points[:, None] - centres) ** 2).sum(2)
    share = np.bincount(nearest.argmin(1), minlength=modes) / len(points)
    np.testing.assert_allclose(share, 1 / modes, rtol=0.2)
    offsets = points - centres[nearest.argmin(1)]
    np.testing.assert_allclose(offsets.std(0), sigma, rtol=0.03)


def test_mixtures_have_the_authors_extent():
    ring, grid = synthetic.toy_centres("8gaussians")[0], synthetic.toy_centres("25gaussians")[0]
    np.testing.assert_allclose(np.linalg.norm(ring, axis=1), 2 / 1.414)
    assert grid.min() == -4 / 2.828 and grid.max() == 4 / 2.828


def test_the_swiss_roll_is_scikit_learns():
    ours = synthetic.draw_toy("swissroll", np.random.default_rng(0), 4000)
    theirs = make_swiss_roll(4000, noise=0.25, random_state=1)[0][:, [0, 2]] / 7.5
    for axis in range(2):
        assert stats.ks_2samp(ours[:, axis], theirs[:, axis]).pvalue > 0.01
    radii = (np.hypot(*ours.T), np.hypot(*theirs.T))
    assert stats.ks_2samp(*radii).pvalue > 0.01


def test_the_swiss_roll_has_noise_of_a_quarter():
    points = 7.5 * synthetic.draw_toy("swissroll", np.random.default_rng(0), 5000)
    t = np.linspace(1.5 * np.pi, 4.5 * np.pi, 4000)
    roll = np.stack([t * np.cos(t), t * np.sin(t)], 1)
    nearest = spatial.cKDTree(roll).query(points)[0]
    # The distance measures noise across the roll only.
    assert np.sqrt((nearest**2).mean()) == pytest.approx(0.25, rel=0.05)


def test_inception_score_has_the_values_of_known_cases():
    uniform = np.full((100, 10), 0.1)
    assert functions.inception_score(uniform) == pytest.approx((1.0, 0.0))
    sure = np.tile(np.eye(10), (10, 1))
    assert functions.inception_score(sure) == pytest.approx((10.0, 0.0))
    # Sorted samples make splits of one class each, so the score is 1.
    assert functions.inception_score(np.repeat(np.eye(10), 10, 0)) == pytest.approx((1.0, 0.0))


def test_inception_score_equals_scipys():
    p = np.random.default_rng(0).dirichlet(np.full(7, 0.3), 103)
    scores = []
    # OpenAI's code cuts 103 rows at these places.
    for part in np.split(p, [25, 51, 77]):
        kl = [stats.entropy(row, part.mean(0)) for row in part]
        scores.append(np.exp(np.mean(kl)))
    mean, deviation = functions.inception_score(p, splits=4)
    assert mean == pytest.approx(np.mean(scores), rel=1e-12)
    assert deviation == pytest.approx(np.std(scores), rel=1e-9)


@pytest.mark.parametrize(
    "p", [np.ones((20, 3)), np.zeros((20, 3)), np.full((5, 2), 0.5), np.full(20, 1.0)]
)
def test_inception_score_refuses_rows_that_are_not_probabilities(p):
    with pytest.raises(ValueError, match="expected|must be"):
        functions.inception_score(p)
