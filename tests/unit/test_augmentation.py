# SPDX-License-Identifier: Apache-2.0
"""Random crops, flips and colour jitter of pictures."""

from types import SimpleNamespace

import numpy as np
import pytest

from data import augmentation


def prepare(images, seed=0, crop=False, flip=False, jitter=0.0):
    settings = SimpleNamespace(crop=crop, flip=flip, jitter=jitter)
    return augmentation.make_prepare(settings)(images, np.random.default_rng(seed))


def pixels(count, size, seed=0):
    return np.random.default_rng(seed).integers(256, size=(count, 3, size, size), dtype="uint8")


def test_prepared_pictures_are_the_pictures():
    images = pixels(5, 64)
    images[0, 0, 0, :2] = 0, 255
    found = prepare(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, images / 127.5 - 1, atol=1e-6)
    assert found.min() == -1 and found.max() == 1


@pytest.mark.parametrize("jitter", [0.0, 0.9])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [False, True])
def test_what_is_prepared_is_what_a_critic_reads(crop, flip, jitter):
    images = pixels(20, 72 if crop else 64)
    before, options = images.copy(), {"crop": crop, "flip": flip, "jitter": jitter}
    found = prepare(images, **options)
    assert found.shape == (20, 3, 64, 64) and found.dtype == np.float32
    assert -1 <= found.min() < -0.9 and 0.9 < found.max() <= 1
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(prepare(images, **options), found)
    is_random = crop or flip or jitter > 0
    assert np.array_equal(prepare(images, seed=1, **options), found) != is_random


def test_half_of_the_pictures_are_mirrored():
    images = pixels(400, 6)
    plain, found = prepare(images), prepare(images, flip=True)
    kept = (found == plain).all((1, 2, 3))
    mirrored = (found == plain[..., ::-1]).all((1, 2, 3))
    assert (kept ^ mirrored).all()
    assert 160 < mirrored.sum() < 240


def test_crops_are_windows_of_the_picture():
    images = np.empty((300, 3, 72, 72), "uint8")
    images[:, 0] = np.arange(72)[:, None]  # a pixel holds its own place
    images[:, 1] = np.arange(72)
    images[:, 2] = np.arange(300)[:, None, None] % 256
    found = np.rint((prepare(images, crop=True) + 1) * 127.5).astype(int)
    assert found.shape == (300, 3, 64, 64)
    top, left = found[:, 0, :1, :1], found[:, 1, :1, :1]
    steps = np.arange(64)
    np.testing.assert_array_equal(found[:, 0], np.tile(top + steps[:, None], (1, 1, 64)))
    np.testing.assert_array_equal(found[:, 1], np.tile(left + steps, (1, 64, 1)))
    assert (found[:, 2] == images[:, 2, :1, :1]).all()
    # All nine offsets in both directions, and not only on the diagonal.
    assert set(top.ravel()) == set(left.ravel()) == set(range(9))
    assert len(set(zip(top.ravel(), left.ravel()))) > 60


def test_jitter_changes_brightness_contrast_and_saturation_of_each_picture():
    share, rng = 0.3, np.random.default_rng(0)
    # A picture of medium levels only, so that nothing is clipped at black or white.
    images = np.tile(rng.integers(110, 140, size=(1, 3, 8, 8), dtype="uint8"), (300, 1, 1, 1))
    before = images[:1].astype(float) / 255
    found = (prepare(images, jitter=share).astype(float) + 1) / 2

    def colour(x):
        return x - x.mean(1, keepdims=True)

    def light(x):
        return x.mean(1) - x.mean((1, 2, 3), keepdims=True)[:, 0]

    def ratio(part):
        return (part(found) * part(before)).sum((-1, -2)) / (part(before) ** 2).sum((-1, -2))

    brightness = found.mean((1, 2, 3)) / before.mean()
    contrast = ratio(light) / brightness
    saturation = ratio(colour).mean(1) / (brightness * contrast)
    factors = np.stack([brightness, contrast, saturation])
    assert 1 - share - 1e-3 < factors.min() and factors.max() < 1 + share + 1e-3
    # Uniform around 1, and independent of each other.
    np.testing.assert_allclose(factors.mean(1), 1, atol=0.05)
    np.testing.assert_allclose(factors.std(1), share / np.sqrt(3), rtol=0.15)
    assert np.abs(np.corrcoef(factors) - np.eye(3)).max() < 0.25


def test_the_middle_of_larger_pictures():
    images = pixels(2, 72)
    np.testing.assert_array_equal(augmentation.middle(images), images[:, :, 4:68, 4:68])
    np.testing.assert_array_equal(augmentation.middle(images[..., :64, :64]), images[..., :64, :64])
