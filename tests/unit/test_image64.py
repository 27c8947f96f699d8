# SPDX-License-Identifier: Apache-2.0
"""64x64: reading and augmenting a user's pictures, the networks, the WGAN lab, the script."""

import io
import json
import os
import tarfile
import zipfile
from types import SimpleNamespace

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from PIL import Image

import functions
import wgangp_image64
import wgangp_mnist
from data import augmentation
from data import image_folder
from data import picture_files
from kernels.first_order import first_order_penalty
from networks import dcgan
from networks import resnet64
from networks import wgan_lab
from networks.normalisation import BatchNorm
from networks.normalisation import LayerNorm
from networks.normalisation import NoNorm
from support import storage
from support import weight_files
from support.errors import UserError

CLASSES = ["cats", "dogs", "owls"]


def noise(width, height, channels=3, seed=0):
    """A picture of random pixels, in which any slip of place or order shows."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(seed).integers(256, size=shape, dtype="uint8"))


def encode(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def fit(picture, size=64):
    """By PIL's resize of the largest square in the middle, uint8 [3, size, size]."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    picture = picture.resize((size, size), Image.Resampling.LANCZOS, box=box)
    return np.asarray(picture).transpose(2, 0, 1)


def on_white(picture):
    ground = Image.new("RGB", picture.size, "white")
    ground.paste(picture, mask=picture.getchannel("A"))
    return ground


@pytest.fixture
def folder(tmp_path):
    """24 pictures in three classes, of odd sizes and several kinds; and what is no picture."""
    place = tmp_path / "pictures"
    contents = {
        f"{CLASSES[n % 3]}/{n:02}.png": encode(noise(41 + 7 * n, 120 - 3 * n, seed=n))
        for n in range(19)
    }
    grey = noise(50, 80, 1, seed=19)
    contents |= {
        "cats/transparent.png": encode(noise(64, 64, 4, seed=20)),
        "dogs/grey.png": encode(grey),
        "owls/SHOUTED.JPG": encode(noise(90, 70, seed=21), "JPEG"),
        "more/owls/deeper.png": encode(noise(64, 64, seed=22)),  # the innermost folder counts
        "dogs/zz.webp": encode(noise(64, 65, seed=23), "WEBP", lossless=True),
    }
    for name in (
        *("cats/notes.txt", "cats/.hidden.png", "__MACOSX/cats/._00.png"),
        *("cats/.ipynb_checkpoints/copy.png", "README"),
    ):
        contents[name] = b"none of this is to be read"
    for name, content in contents.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def pack(folder, path):
    """A zip or tar, by its suffix, whose members are in no order."""
    paths = sorted(path for path in folder.rglob("*"))
    np.random.default_rng(1).shuffle(paths)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member in paths:
                archive.write(member, member.relative_to(folder))
    else:
        kind = "" if path.suffix == ".tar" else path.suffix[1:]
        with tarfile.open(path, f"w:{kind}") as archive:
            for member in paths:
                archive.add(member, f"./{member.relative_to(folder)}", recursive=False)
    return path


def read(path, crop=False, skip=False):
    return image_folder.read_pictures(str(path), crop, skip)


def expected_of(folder):
    """Class by bytes of the decoded picture."""
    expected = {}
    for path in folder.rglob("*"):
        if path.suffix in (".png", ".JPG", ".webp") and "/." not in str(path):
            picture = Image.open(path)
            picture = on_white(picture) if picture.mode == "RGBA" else picture.convert("RGB")
            expected[fit(picture).tobytes()] = path.parent.name
    return expected


def found_in(data):
    images = [*data.train_images, *data.test_images]
    labels = [*data.train_labels, *data.test_labels]
    return {image.tobytes(): data.class_names[label] for image, label in zip(images, labels)}


def parts(data):
    return data.train_images, data.train_labels, data.test_images, data.test_labels


def assert_same(data, other):
    assert data.class_names == other.class_names
    for part, expected in zip(parts(data), parts(other)):
        np.testing.assert_array_equal(part, expected)


def refusal(path, **options):
    """The message, which is to be one line."""
    with pytest.raises(UserError) as error:
        read(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pictures_of_a_folder_and_their_classes(folder):
    data = read(folder)
    assert data.class_names == CLASSES
    assert found_in(data) == expected_of(folder)
    # one in ten is held out
    assert data.train_images.shape == (22, 3, 64, 64) and data.test_images.shape == (2, 3, 64, 64)
    assert data.train_labels.shape == (22,) and data.test_labels.shape == (2,)
    assert data.train_images.dtype == np.uint8 and data.train_labels.dtype == np.int64


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.xz"])
def test_an_archive_is_read_as_its_folder(suffix, folder, tmp_path):
    expected, data = read(folder), read(pack(folder, tmp_path / f"pictures.{suffix}"))
    assert_same(data, expected)
    assert data.describe() == expected.describe()


def test_what_is_held_out_depends_on_the_number_of_pictures_alone(folder, monkeypatch, tmp_path):
    first = read(folder)
    monkeypatch.setattr(storage, "CACHE", str(tmp_path / "elsewhere"))
    assert_same(read(folder), first)
    # all the cats drawn anew: they are others, in the same places
    for number, path in enumerate(sorted(folder.glob("cats/[0-9]*.png"))):
        noise(64, 64, seed=50 + number).save(path)
    other = read(folder)
    assert other.describe() != first.describe()
    for part in ("train_labels", "test_labels"):
        np.testing.assert_array_equal(getattr(other, part), getattr(first, part))


def test_a_compressed_tar_is_read_in_its_own_order(folder, tmp_path):
    """To go back in one is to unpack it from its start, for each picture."""
    pictures, stack = picture_files.collect(str(pack(folder, tmp_path / "x.tar.gz")))
    order = []

    def watched(picture):
        return picture._replace(read=lambda: (order.append(picture.place), picture.read())[1])

    with stack:
        images, kept = image_folder.decode_all([watched(p) for p in pictures], 64, False)
    assert order == sorted(order) and len(set(order)) == 24
    assert kept == list(range(24))
    names = [os.path.basename(os.path.dirname(picture.name)) for picture in pictures]
    expected = expected_of(folder)
    assert [expected[image.tobytes()] for image in images] == names


@pytest.mark.parametrize("size", [64, 72])
@pytest.mark.parametrize("shape", [(64, 64), (200, 101), (33, 150), (7, 9), (1, 300)])
def test_decoding_scales_and_crops_at_the_middle(shape, size):
    picture = noise(*shape)
    found = picture_files.decode(encode(picture), size)
    assert found.shape == (3, size, size) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, fit(picture, size))


@pytest.mark.parametrize("upright", [False, True])
def test_what_is_cropped_off_leaves_no_trace(upright):
    stripes = np.zeros((64, 3 * 64, 3), "uint8")
    for channel in range(3):
        stripes[:, 64 * channel : 64 * (channel + 1), channel] = 255
    picture = Image.fromarray(stripes.swapaxes(0, 1) if upright else stripes)
    found = picture_files.decode(encode(picture), 64)
    np.testing.assert_array_equal(found.max((1, 2)), [0, 255, 0])
    np.testing.assert_array_equal(found.min((1, 2)), [0, 255, 0])


def test_what_is_transparent_becomes_white():
    picture = noise(64, 64, 4)
    colours = np.asarray(picture).astype(float)
    alpha = colours[..., 3:] / 255
    expected = colours[..., :3] * alpha + 255 * (1 - alpha)
    found = picture_files.decode(encode(picture), 64).transpose(1, 2, 0)
    np.testing.assert_allclose(found, expected, atol=1)
    keyed = Image.new("P", (64, 64), 1)
    keyed.putpalette([0, 0, 255, 255, 0, 0])
    keyed.paste(0, (0, 0, 32, 64))
    found = picture_files.decode(encode(keyed, "GIF", transparency=0), 64)
    assert (found[:, :, :32] == 255).all()
    assert (found[0, :, 32:] == 255).all() and not found[1:, :, 32:].any()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_kinds_of_colour(mode):
    picture = noise(64, 64).convert(mode)
    found = picture_files.decode(encode(picture, "TIFF"), 64)
    expected = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_of_grey_become_8(kind):
    """Pillow itself would make all but the darkest white."""
    grey = np.linspace(0, 65535, 64 * 64).astype("uint16").reshape(64, 64)
    found = picture_files.decode(encode(Image.fromarray(grey), kind), 64)
    np.testing.assert_array_equal(found, np.broadcast_to(grey // 256, (3, 64, 64)))


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_a_camera_that_was_turned(orientation, turns):
    picture, exif = noise(64, 64), Image.Exif()
    exif[0x0112] = orientation
    found = picture_files.decode(encode(picture, exif=exif), 64)
    np.testing.assert_array_equal(found, np.rot90(np.asarray(picture), turns).transpose(2, 0, 1))


DAMAGED = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"<html>404</html>",
    "altered": lambda content: content[:200] + bytes(50) + content[250:],
}


@pytest.mark.parametrize("how", DAMAGED)
@pytest.mark.parametrize("suffix", [None, "zip", "tar.gz"])
def test_a_damaged_picture_is_refused_or_left_out(how, suffix, folder, tmp_path, monkeypatch):
    warned, path = [], folder / "cats" / "03.png"
    monkeypatch.setattr(image_folder.logger, "warning", warned.append)
    path.write_bytes(DAMAGED[how](path.read_bytes()))
    place = folder if suffix is None else pack(folder, tmp_path / f"x.{suffix}")
    text = refusal(place)
    assert "cats/03.png can't be decoded" in text and "DATA.on_error=skip" in text
    assert not warned
    data = read(place, skip=True)
    assert len(data.train_images) == 21 and len(data.test_images) == 2
    (text,) = warned
    assert "cats/03.png can't be decoded" in text and "left out" in text
    path.unlink()
    # the others keep their classes; also by what was kept of them
    assert found_in(data) == expected_of(folder)
    monkeypatch.setattr(image_folder, "decode_all", None)
    if place != folder:
        assert_same(read(place, skip=True), data)


def test_nothing_but_damaged_pictures(folder):
    for path in folder.rglob("*.*"):
        if path.is_file():
            path.write_bytes(b"nonsense")
    assert "can't be decoded" in refusal(folder)
    assert f"no picture in {folder} could be decoded" in refusal(folder, skip=True)


def test_too_few_pictures(tmp_path):
    for number in range(9):
        noise(8, 8, seed=number).save(tmp_path / f"{number}.png")
    assert "has 9 pictures: at least 10 are wanted" in refusal(tmp_path)
    noise(8, 8, seed=9).save(tmp_path / "9.png")
    data = read(tmp_path)
    assert len(data.train_images) == 9 and len(data.test_images) == 1


def test_places_without_pictures(tmp_path):
    assert f"there is no folder or archive {tmp_path}/nowhere" in refusal(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "there are no pictures (.png, " in refusal(empty)
    (empty / "notes.txt").write_text("x")
    (empty / ".hidden.png").write_text("x")
    for place in (empty, pack(empty, tmp_path / "x.zip"), pack(empty, tmp_path / "x.tar")):
        assert (
            f"there are no pictures (.png, .jpg, .jpeg, .webp, .bmp, .gif, .tif, .tiff) in {place}"
            in refusal(place)
        )


BROKEN = {
    "half": lambda content: content[: len(content) // 2],
    "start": lambda content: content[:30],
    "text": lambda content: b"<html>404</html>",
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_damaged_archive_is_refused_in_one_line(suffix, how, folder, tmp_path):
    path = pack(folder, tmp_path / f"x.{suffix}")
    path.write_bytes(BROKEN[how](path.read_bytes()))
    assert f"DATA.data_path: {path} can't be read (" in refusal(path)


@pytest.mark.parametrize(
    ("suffix", "place"),
    [
        ("tar.xz", 0.5),  # what lzma raises is no OSError
        ("zip", -100),  # the directory, at the end
    ],
)
def test_an_archive_with_a_hole_is_refused(suffix, place, folder, tmp_path):
    path = pack(folder, tmp_path / f"x.{suffix}")
    content = bytearray(path.read_bytes())
    start = int(len(content) * place) if place > 0 else place
    content[start : start + 70] = bytes(70)
    path.write_bytes(content)
    assert f"{path} can't be read (" in refusal(path, skip=True)


def test_a_tar_does_not_end_at_a_damaged_head(folder, tmp_path):
    """Of which Python's tarfile says nothing, as if it were the end."""
    path = pack(folder, tmp_path / "x.tar")
    with tarfile.open(path) as archive:
        start = archive.getmembers()[-3].offset
    content = bytearray(path.read_bytes())
    content[start : start + 100] = b"x" * 100
    path.write_bytes(content)
    assert "a member's head is damaged" in refusal(path, skip=True)


def test_a_zip_of_a_later_version_is_refused(folder, tmp_path):
    path = pack(folder, tmp_path / "x.zip")
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02") + 6  # version needed, in the directory
    path.write_bytes(content[:start] + b"\xff" + content[start + 1 :])
    assert "can't be read (zip file version" in refusal(path)


@pytest.mark.parametrize("side", [120, 200])
def test_a_picture_far_too_large_for_its_file_is_refused(side, folder, monkeypatch):
    """Pillow warns up to twice its limit, and refuses beyond."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    for path in folder.rglob("*.*"):
        if path.is_file():
            noise(100, 100, seed=len(path.name)).save(path, "PNG")
    read(folder)
    Image.new("RGB", (side, side)).save(folder / "dogs" / "bomb.png")
    text = refusal(folder)
    assert "dogs/bomb.png can't be decoded" in text and "decompression bomb" in text
    assert len(read(folder, skip=True).train_images) == 22


@pytest.fixture
def decoded(monkeypatch):
    """Sizes that pictures were decoded at, one for each time that all were."""
    sizes, decode_all = [], image_folder.decode_all

    def watched(pictures, size, skip):
        sizes.append(size)
        return decode_all(pictures, size, skip)

    monkeypatch.setattr(image_folder, "decode_all", watched)
    return sizes


@pytest.mark.parametrize("suffix", [None, "zip", "tar"])
def test_pictures_are_decoded_once(suffix, folder, tmp_path, decoded):
    def place():
        return folder if suffix is None else pack(folder, tmp_path / f"x.{suffix}")

    path = place()
    first = read(path)
    assert_same(read(path), first)
    assert decoded == [64]
    assert read(path, crop=True).train_images.shape[2:] == (72, 72)
    read(path, skip=True)
    read(path, crop=True)
    read(path)
    assert decoded == [64, 72, 64]
    # another picture of the same size and number of bytes
    picture, before = folder / "owls" / "02.png", (folder / "owls" / "02.png").read_bytes()
    picture.write_bytes(encode(noise(*Image.open(picture).size, seed=99)))
    assert len(picture.read_bytes()) == len(before)
    os.utime(picture, ns=(10**18, 10**18))
    path = place()
    assert found_in(read(path)) == expected_of(folder)
    assert decoded == [64, 72, 64, 64]
    # and another name, by which its class is another
    picture.rename(folder / "cats" / "02.png")
    path = place()
    assert found_in(read(path)) == expected_of(folder)
    assert decoded == [64, 72, 64, 64, 64]


def numbers(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


SPOILT = {
    "truncated": (lambda content: content[:1000], None),
    "empty": (lambda content: b"", None),
    "text": (lambda content: b"nonsense" * 50, None),
    "a zip": (lambda content: b"PK\x03\x04" + content[4:], None),
    "no end of its head": (lambda content: content.replace(b"}", b" ", 1), None),
    "far too large": (
        lambda content: content.replace(b"(24, 3, 64, 64), }", b"(1" + b"0" * 11 + b",), }"),
        None,
    ),
    "another shape": (lambda content: numbers(np.zeros((24, 3, 72, 72), "uint8")), None),
    "another kind": (lambda content: numbers(np.zeros((24, 3, 64, 64), "int8")), None),
    "no numbers": (None, lambda content: b""),
    "fewer numbers": (None, lambda content: numbers(np.arange(23))),
    "numbers of no picture": (None, lambda content: numbers(np.arange(24) + 1)),
    "one number": (None, lambda content: numbers(np.array(3))),
    "pairs of numbers": (None, lambda content: numbers(np.zeros((24, 2), "int64"))),
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_was_kept_is_made_anew_where_it_is_damaged(how, folder, tmp_path, decoded):
    first = read(folder)
    kept = {path.name.endswith("_numbers.npy"): path for path in tmp_path.glob("cache/**/*.npy")}
    assert len(kept) == 2
    for spoil, path in zip(SPOILT[how], (kept[False], kept[True])):
        if spoil is not None:
            before = path.read_bytes()
            path.write_bytes(spoil(before))
            assert path.read_bytes() != before
    for _ in range(2):
        assert_same(read(folder), first)
    assert decoded == [64, 64]


def test_pictures_that_can_not_be_kept_are_used_all_the_same(folder, tmp_path, monkeypatch):
    expected, warned = read(folder), []
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(storage, "CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(image_folder.logger, "warning", warned.append)
    assert_same(read(folder), expected)
    (text,) = warned
    assert "could not be kept" in text


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
    images[:, 0] = np.arange(72)[:, None]  # each pixel says where it is from
    images[:, 1] = np.arange(72)
    images[:, 2] = np.arange(300)[:, None, None] % 256
    found = np.rint((prepare(images, crop=True) + 1) * 127.5).astype(int)
    assert found.shape == (300, 3, 64, 64)
    top, left = found[:, 0, :1, :1], found[:, 1, :1, :1]
    steps = np.arange(64)
    np.testing.assert_array_equal(found[:, 0], np.tile(top + steps[:, None], (1, 1, 64)))
    np.testing.assert_array_equal(found[:, 1], np.tile(left + steps, (1, 64, 1)))
    assert (found[:, 2] == images[:, 2, :1, :1]).all()
    # each of the nine places, in both directions, and not only along a diagonal
    assert set(top.ravel()) == set(left.ravel()) == set(range(9))
    assert len(set(zip(top.ravel(), left.ravel()))) > 60


def test_jitter_changes_brightness_contrast_and_saturation_of_each_picture():
    share, rng = 0.3, np.random.default_rng(0)
    # of one grey-to-be picture so middling that nothing is cut off at black or white
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
    # uniform, about 1, and each drawn for itself
    np.testing.assert_allclose(factors.mean(1), 1, atol=0.05)
    np.testing.assert_allclose(factors.std(1), share / np.sqrt(3), rtol=0.15)
    assert np.abs(np.corrcoef(factors) - np.eye(3)).max() < 0.25


def test_the_middle_of_larger_pictures():
    images = pixels(2, 72)
    np.testing.assert_array_equal(augmentation.middle(images), images[:, :, 4:68, 4:68])
    np.testing.assert_array_equal(augmentation.middle(images[..., :64, :64]), images[..., :64, :64])


def count(network):
    return sum(int(np.prod(weight.shape)) for weight in network.parameters())


def conv(n_in, n_out, size):
    return n_in * n_out * size**2 + n_out


def dcgan_sizes(classes):
    widths = [512, 256, 128, 64]
    generator = 128 * 8192 + 8192 + 2 * sum(widths) * max(classes, 1)
    generator += sum(conv(a, b, 4) for a, b in zip(widths, [*widths[1:], 3]))
    critic = sum(conv(a, b, 4) for a, b in [(3, 64), (64, 128), (128, 256), (256, 512)])
    # layer normalisation of all but the first
    return generator, critic + 2 * (128 + 256 + 512) + 513 * (1 + classes)


def resnet_sizes(classes):
    generator = 128 * 8192 + 8192 + 2 * 64 + conv(64, 3, 3)
    for a, b in [(512, 512), (512, 256), (256, 128), (128, 64)]:
        generator += 2 * conv(a, a, 3) + conv(a, b, 4) + conv(a, b, 2)
        generator += 3 * 2 * a * max(classes, 1)
    critic = conv(3, 64, 3) + 8193 * (1 + classes)
    for a, b in [(64, 128), (128, 256), (256, 512), (512, 512)]:
        critic += conv(a, b, 3) + 2 * conv(b, b, 3) + conv(a, b, 1) + 2 * (a + b + b)
    return generator, critic


@pytest.mark.parametrize("classes", [0, 7])
@pytest.mark.parametrize(("arch", "sizes"), [("dcgan", dcgan_sizes), ("resnet", resnet_sizes)])
def test_networks_at_full_width(arch, sizes, classes, configure):
    labelled = [f"MODEL.use_label={classes > 0}", f"MODEL.num_classes={classes or 10}"]
    generator, critic = wgangp_image64.make_networks(
        configure("image64", f"MODEL.arch={arch}", *labelled)
    )
    assert (count(generator), count(critic)) == sizes(classes)
    inputs = {"noise": paddle.randn([2, 128]), "labels": paddle.to_tensor([0, 6])}
    with paddle.no_grad():
        images = generator({key: inputs[key] for key in generator.input_keys})["fake"]
        value, logits = critic.score(images)
    assert ("labels" in generator.input_keys) == (classes > 0)
    assert images.shape == [2, 3, 64, 64]
    assert -1 <= images.numpy().min() < 0 < images.numpy().max() <= 1
    assert value.shape == [2]
    assert logits.shape == [2, classes] if classes else logits is None


def test_weights_of_dcgan_are_small_and_normal():
    networks = dcgan.Dcgan64Generator(num_classes=4), dcgan.Dcgan64Discriminator(num_classes=4)
    weights = {
        f"{number} {name}": weight.numpy()
        for number, network in enumerate(networks)
        for name, weight in network.named_parameters()
        if name.endswith("weight")
    }
    assert len(weights) == 5 + 6
    for name, weight in weights.items():
        tolerance = 4 / np.sqrt(2 * weight.size)
        assert weight.std() == pytest.approx(0.02, rel=tolerance), name
        assert abs(weight.mean()) < 0.02 * 4 / np.sqrt(weight.size), name
        if weight.size > 10_000:  # uniform weights have 0.58 there, and none far out
            assert (np.abs(weight) < 0.02).mean() == pytest.approx(0.683, abs=0.02), name
            assert np.abs(weight).max() > 0.06, name
    for network in networks:
        for name, bias in network.named_parameters():
            assert not name.endswith("bias") or not bias.numpy().any(), name


def randomise(network, size=1.0):
    """All weights and biases of unit gain, so that no part of a network is lost beside others."""
    for weight in network.parameters():
        fan = np.prod(weight.shape[1:]) if weight.ndim == 4 else weight.shape[0]
        scale = size / np.sqrt(fan) if weight.ndim > 1 else 0.3 * size
        weight.set_value(scale * paddle.randn(weight.shape))
    return network


def leaky(x):
    return F.leaky_relu(x, 0.2)


def layer_norm(x, norm):
    return F.layer_norm(x, x.shape[1:], epsilon=1e-5) * norm.scale + norm.offset


def batch_norm(x, norm, labels=None):
    rows = [0] * len(x) if labels is None else labels
    scale, offset = (
        paddle.stack([part[row] for row in rows]) for part in (norm.scale, norm.offset)
    )
    centred = x - x.mean([0, 2, 3], keepdim=True)
    h = centred / paddle.sqrt(centred.square().mean([0, 2, 3], keepdim=True) + 1e-5)
    return h * scale[:, :, None, None] + offset[:, :, None, None]


def plain_conv(x, layer, **options):
    return F.conv2d(x, layer.weight, layer.bias, **options)


def plain_deconv(x, layer, padding):
    return F.conv2d_transpose(x, layer.weight, layer.bias, stride=2, padding=padding)


def plain_dcgan_generator(network, noise, labels):
    h = network.linear(noise).reshape([-1, 16, 4, 4])
    for norm, deconv in zip(network.norms, network.deconvs):
        h = plain_deconv(F.relu(batch_norm(h, norm, labels)), deconv, 1)
    return F.tanh(h)


def plain_dcgan_critic(network, x):
    h = leaky(plain_conv(x, network.convs[0], stride=2, padding=1))
    for layer, norm in zip(network.convs[1:], list(network.norms)[1:]):
        h = leaky(layer_norm(plain_conv(h, layer, stride=2, padding=1), norm))
    return h.mean([2, 3])


def plain_resnet_generator(network, noise, labels):
    x = network.linear(noise).reshape([-1, 16, 4, 4])
    for block in network.blocks:
        h = plain_conv(F.relu(batch_norm(x, block.norms[0], labels)), block.convs[0], padding=1)
        h = plain_conv(F.relu(batch_norm(h, block.norms[1], labels)), block.convs[1], padding=1)
        h = plain_deconv(F.relu(batch_norm(h, block.norms[2], labels)), block.convs[2], 1)
        x = h + plain_deconv(x, block.shortcut, 0)
    return F.tanh(plain_conv(F.relu(batch_norm(x, network.norm)), network.conv, padding=1))


def plain_resnet_critic(network, x):
    x = plain_conv(x, network.conv, padding=1)
    for block in network.blocks:
        h = plain_conv(leaky(layer_norm(x, block.norms[0])), block.convs[0], padding=1)
        h = plain_conv(leaky(layer_norm(h, block.norms[1])), block.convs[1], padding=1)
        h = leaky(layer_norm(h, block.norms[2]))
        # TensorFlow's "same", of an even size and stride 2, pads behind
        h = plain_conv(F.pad(h, [0, 1, 0, 1]), block.convs[2], stride=2)
        x = h + plain_conv(x, block.shortcut, stride=2)
    return leaky(x).reshape([len(x), -1])


PLAIN = {
    "dcgan": (
        *(dcgan.Dcgan64Generator, plain_dcgan_generator),
        *(dcgan.Dcgan64Discriminator, plain_dcgan_critic),
    ),
    "resnet": (
        *(resnet64.Resnet64Generator, plain_resnet_generator),
        *(resnet64.Resnet64Discriminator, plain_resnet_critic),
    ),
}


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("arch", PLAIN)
def test_networks_against_a_plain_computation(arch, classes):
    make_generator, plain_generator, make_critic, plain_critic = PLAIN[arch]
    generator = randomise(make_generator(2, 128, classes))
    critic = randomise(make_critic(2, num_classes=classes))
    noise_, labels = paddle.randn([3, 128]), paddle.to_tensor([2, 0, 2])
    labels = labels if classes else None
    with paddle.no_grad():
        images = generator.generate(noise_, labels)
        plain = plain_generator(generator, noise_, None if labels is None else [2, 0, 2])
        np.testing.assert_allclose(images.numpy(), plain.numpy(), atol=1e-4)
        assert 0.05 < float(images.abs().mean()) < 0.95  # neither all grey nor all cut off
        value, logits = critic.score(images)
        h = plain_critic(critic, images)
        np.testing.assert_allclose(
            value.numpy(), critic.linear(h)[:, 0].numpy(), rtol=1e-3, atol=1e-4
        )
        if classes:
            expected = critic.linear_class(h).numpy()
            np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-3, atol=1e-4)


CRITICS = {
    "dcgan": (dcgan.Dcgan64Discriminator, [3, 3, 64, 64]),
    "resnet": (resnet64.Resnet64Discriminator, [3, 3, 64, 64]),
}
ALL_CRITICS = {**CRITICS, "wgan_lab": (wgan_lab.WganLabDiscriminator, [3, 1, 28, 28])}


@pytest.mark.parametrize("name", ALL_CRITICS)
@pytest.mark.parametrize("norm", [None, "layer", "batch"])
def test_which_norms_a_critic_has(norm, name):
    """With none, it is made of linear maps and gates alone."""
    make, _ = ALL_CRITICS[name]
    critic = make(2, norm=norm)
    kind = {None: NoNorm, "layer": LayerNorm, "batch": BatchNorm}
    kinds = [type(layer) for layer in critic.sublayers() if "Norm" in type(layer).__name__]
    found = [layer for layer in kinds if layer is not NoNorm]
    # after the first convolution, dcgan has none
    expected = {"dcgan": 3, "resnet": 4 * 3, "wgan_lab": 2}[name]
    assert found == [kind[norm]] * (expected if norm else 0)
    assert critic.piecewise_linear == (norm is None)
    if name == "dcgan":
        assert type(critic.norms[0]) is NoNorm


def test_critics_of_pictures_have_layer_normalisation_unless_asked(configure):
    for arch in ("dcgan", "resnet"):
        tiny = [f"MODEL.arch={arch}", "MODEL.dis_net.dim=1", "MODEL.gen_net.dim=1"]
        for setting, norm in (
            ([], LayerNorm),
            (["MODEL.dis_net.norm=batch"], BatchNorm),
            (["MODEL.dis_net.norm=null"], NoNorm),
        ):
            _, critic = wgangp_image64.make_networks(configure("image64", *tiny, *setting))
            assert any(type(layer) is norm for layer in critic.sublayers())
            assert critic.piecewise_linear == (norm is NoNorm)
    for make, _ in CRITICS.values():
        assert any(type(layer) is LayerNorm for layer in make(1).sublayers())
    with pytest.raises(UserError, match="null, layer or batch"):
        resnet64.Resnet64Discriminator(1, "instance")


@pytest.mark.parametrize("name", ALL_CRITICS)
def test_first_order_penalty_is_that_of_double_backward(name, float64):
    make, shape = ALL_CRITICS[name]
    # of another gain than 1, at which the penalty would vanish
    critic, samples = randomise(make(2, norm=None), 1.5), paddle.randn(shape)
    results = []
    for penalised_norm in (first_order_penalty, functions.penalised_norm):
        critic.clear_gradients()
        norm, term = penalised_norm(critic, samples, functions.gradient_penalty)
        term.backward()
        gradients = [weight.grad for weight in critic.parameters()]
        numbers = [0.0 if part is None else part.numpy().copy() for part in gradients]
        results.append((norm.numpy(), float(term), numbers))
    (norm, term, gradients), (norm_2, term_2, expected) = results
    np.testing.assert_allclose(norm, norm_2, rtol=1e-10)
    assert term == pytest.approx(term_2, rel=1e-10) and term > 1e-3
    for gradient, plain in zip(gradients, expected):
        # Paddle's leaky ReLU has its slope in float32
        scale = np.abs(plain).max()
        np.testing.assert_allclose(gradient, plain, rtol=1e-6, atol=1e-6 * scale + 1e-12)
    # each weight has a part in the slope; of the biases none
    moved = sum(np.abs(plain).max() > 1e-6 for plain in expected)
    assert moved == sum(weight.ndim > 1 for weight in critic.parameters())


@pytest.mark.parametrize("name", CRITICS)
def test_penalty_of_a_critic_with_layer_norm_differentiates_twice(name, float64):
    make, shape = CRITICS[name]
    critic = randomise(make(2, norm="layer"))
    samples = paddle.to_tensor(np.random.default_rng(3).standard_normal([2, *shape[1:]]))

    def penalty():
        return functions.gradient_penalty(functions.gradient_norm(critic, samples))

    penalty().backward()
    rng = np.random.default_rng(4)
    weights = [weight for weight in critic.parameters() if weight.grad is not None]
    names = [name for name, weight in critic.named_parameters() if weight.grad is not None]
    maps_ = [name for name, _ in critic.named_parameters() if name.endswith("weight")]
    assert set(maps_) <= set(names) and len(maps_) in (5, 18)
    # a direction in the space of all weights at once
    directions = [rng.standard_normal(weight.shape) for weight in weights]
    slope = sum(float((w.grad.numpy() * d).sum()) for w, d in zip(weights, directions))
    start, values = [weight.numpy().copy() for weight in weights], []
    epsilon = 1e-7  # so small that hardly a gate changes
    for sign in (1, -1):
        for weight, value, direction in zip(weights, start, directions):
            weight.set_value(value + sign * epsilon * direction)
        values.append(float(penalty()))
    np.testing.assert_allclose(slope, (values[0] - values[1]) / (2 * epsilon), rtol=1e-3)


def test_networks_of_the_wgan_lab(configure):
    generator, critic = wgangp_mnist.make_networks(configure("mnist", "preset=wgan_lab"))
    expected = 100 * 1024 + 1024 + 2 * 1024 + 1024 * 128 * 49 + 128 * 49 + 2 * 128 * 49
    assert count(generator) == expected + conv(128, 64, 4) + 2 * 64 + conv(64, 1, 4)
    expected = conv(1, 32, 5) + 2 * 32 + conv(32, 64, 5) + 2 * 64
    assert count(critic) == expected + 64 * 49 * 1024 + 1024 + 1024 + 1
    digits = generator({"noise": paddle.randn([5, 100])})["fake"]
    assert digits.shape == [5, 1, 28, 28]
    # tanh's range, and black is -1 in what is real beside it, too
    assert -1 <= digits.numpy().min() < -0.1 and 0.1 < digits.numpy().max() <= 1
    assert generator.low == -1
    value, logits = critic.score(digits)
    assert value.shape == [5] and logits is None


def test_the_wgan_lab_against_a_plain_computation():
    network, noise_ = randomise(wgan_lab.WganLabGenerator(2)), paddle.randn([5, 100])
    h = batch_norm(network.linear_1(noise_)[:, :, None, None], network.norm_1)
    h = network.linear_2(F.relu(h)[:, :, 0, 0])[:, :, None, None]
    h = F.relu(batch_norm(h, network.norm_2)).reshape([5, 4, 7, 7])
    h = F.relu(batch_norm(plain_deconv(h, network.deconv_1, 1), network.norm_3))
    digits, plain = network.generate(noise_), F.tanh(plain_deconv(h, network.deconv_2, 1))
    np.testing.assert_allclose(digits.numpy(), plain.numpy(), atol=1e-4)

    network = randomise(wgan_lab.WganLabDiscriminator(2, "layer"))
    h = plain_conv(F.pad(digits, [1, 2, 1, 2]), network.conv_1, stride=2)
    h = leaky(layer_norm(h, network.norm_1))
    h = plain_conv(F.pad(h, [1, 2, 1, 2]), network.conv_2, stride=2)
    h = leaky(layer_norm(h, network.norm_2)).reshape([5, -1])
    plain = network.linear_2(leaky(network.linear_1(h)))[:, 0]
    found = network.score(digits)[0].numpy()
    np.testing.assert_allclose(found, plain.numpy(), rtol=1e-3, atol=1e-4)


def test_the_preset_is_the_exercise(configure):
    cfg = configure("mnist", "preset=wgan_lab")
    train = cfg.TRAIN
    assert cfg.LOSS.name == "wgan" and cfg.LOSS.clip == 0.01
    assert train.optimizer == train.critic_optimizer == "RMSProp"
    assert train.learning_rate == train.critic_learning_rate == 5e-5
    assert (train.batch_size, train.n_critic) == (128, 5)
    assert (cfg.MODEL.arch, cfg.MODEL.dis_net.norm) == ("wgan_lab", "batch")
    rows = train.epochs * train.iters_per_epoch * train.n_critic * train.batch_size
    assert rows / 50_000 == pytest.approx(30, rel=0.01)
    assert train.epochs == 4  # for a picture at each quarter


def test_an_objective_that_is_typed_wins_over_the_presets(configure):
    plain = configure("mnist")
    for order in (["LOSS=wgan_gp", "preset=wgan_lab"], ["preset=wgan_lab", "LOSS=wgan_gp"]):
        cfg = configure("mnist", *order)
        assert cfg.LOSS.name == "wgan_gp"
        assert (cfg.TRAIN.optimizer, cfg.TRAIN.learning_rate) == ("Adam", 1e-4)
        assert cfg.TRAIN.optimizer == plain.TRAIN.optimizer
        # all else is still the preset's
        assert (cfg.MODEL.arch, cfg.TRAIN.batch_size) == ("wgan_lab", 128)


def last_record(folder):
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])


def test_the_wgan_lab_trains_by_clipping(configure, tmp_path):
    cfg = configure(
        *("mnist", "preset=wgan_lab", "DATA.source=digits", "MODEL.gen_net.dim=2"),
        *("MODEL.dis_net.dim=2", "TRAIN.batch_size=4", "TRAIN.epochs=1"),
        *("TRAIN.iters_per_epoch=2", "TRAIN.eval_during_train=false"),
    )
    wgangp_mnist.train(cfg)
    record = last_record(tmp_path)
    assert record["step"] == 2 and "gradient_norm" not in record
    _, critic = wgangp_mnist.make_networks(cfg)
    weight_files.load_weights(critic, str(tmp_path / "model_discriminator"), "x")
    assert max(np.abs(weight.numpy()).max() for weight in critic.parameters()) <= 0.01 + 1e-9


def test_settings_reach_the_reader(configure, folder):
    (folder / "dogs" / "damaged.png").write_bytes(b"nonsense")
    named = ["image64", f"DATA.data_path={folder}"]
    with pytest.raises(UserError, match="damaged.png can't be decoded"):
        wgangp_image64.read(configure(*named))
    named.append("DATA.on_error=skip")
    assert wgangp_image64.read(configure(*named)).train_images.shape == (22, 3, 64, 64)
    cfg = configure(*named, "DATA.crop=true")
    data = wgangp_image64.read(cfg)
    assert data.train_images.shape == (22, 3, 72, 72)
    streams = wgangp_image64.real_images(cfg, data, 100, (1, 2))
    real, labels = (streams[name][np.arange(30)] for name in ("real", "labels"))
    assert real.shape == (30, 3, 64, 64) and real.dtype == np.float32
    # each with the label of its own picture, wherever the window was
    for image, label in zip(real[:5], labels):
        middle = np.rint((image[:, 8:-8, 8:-8] + 1) * 127.5)
        matches = [
            (data.train_images[:, :, top : top + 48, left : left + 48] == middle).all((1, 2, 3))
            for top in range(8, 17)
            for left in range(8, 17)
        ]
        (row,) = np.flatnonzero(np.any(matches, 0))
        assert data.train_labels[row] == label


def test_resnet_trains_on_cropped_pictures(configure, folder, tmp_path):
    cfg = configure(
        *("image64", "MODEL.arch=resnet", "MODEL.gen_net.dim=1", "MODEL.dis_net.dim=1"),
        *("MODEL.use_label=true", "MODEL.num_classes=3", "MODEL.dis_net.norm=null"),
        *(f"DATA.data_path={folder}", "DATA.crop=true", "DATA.flip=true", "DATA.jitter=0.2"),
        *("TRAIN.batch_size=2", "TRAIN.epochs=1", "TRAIN.iters_per_epoch=1", "TRAIN.eval_freq=1"),
        *("EVAL.inception=false", "TRAIN.eval_num_samples=2"),
    )
    wgangp_image64.train(cfg)
    record = last_record(tmp_path)
    assert record["step"] == 1 and record["gradient_norm"] > 0
    assert np.isfinite([record["test_wasserstein"], record["critic_loss"]]).all()


TINY = ["MODEL.gen_net.dim=4", "MODEL.dis_net.dim=4", "TRAIN.batch_size=4", "TRAIN.epochs=1"]
TINY += ["TRAIN.iters_per_epoch=2", "TRAIN.eval_freq=1", "log_freq=1", "EVAL.inception=false"]
TINY += ["TRAIN.eval_num_samples=50", "EVAL.num_samples=50", "MODEL.use_label=true", "device=cpu"]


def test_train_on_real_pictures_then_evaluate(run_script, shared, tmp_path):
    named, run = f"DATA.data_path={shared('emoji64.tar')}", tmp_path / "run"
    done = run_script("wgangp_image64", *TINY, named, f"hydra.run.dir={run}")
    assert "Decoding 3781 pictures" in done.stdout
    record = last_record(run)
    keys = {"test_wasserstein", "test_accuracy_real", "test_accuracy_fake"}
    assert keys <= set(record) and record["step"] == 2
    assert Image.open(run / "samples" / "iteration_2.png").size[0] > 10 * 64

    done = run_script(
        *("wgangp_image64", "mode=eval", *TINY, named, f"hydra.run.dir={tmp_path}/eval"),
        f"EVAL.pretrained_gen_model_path={run}/model_generator",
        f"EVAL.pretrained_dis_model_path={run}/model_discriminator",
    )
    assert "Decoding" not in done.stdout  # they were kept
    report = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert set(report["metrics"]) == keys
    for key in keys:
        assert report["metrics"][key]["value"] == record[key], key
        assert report["metrics"][key]["num_samples"] == 50
    assert report["command"].startswith("python wgangp_image64.py mode=eval ")


def test_another_number_of_classes_is_named(configure, folder):
    cfg = configure("image64", *TINY, f"DATA.data_path={folder}")
    with pytest.raises(UserError, match="set MODEL.num_classes=3, or MODEL.use_label=false") as e:
        wgangp_image64.read(cfg)
    assert "3 folders, which are their classes (cats, dogs, owls)" in str(e.value)


def test_pictures_that_are_not_named_get_one_line(run_script, tmp_path):
    done = run_script("wgangp_image64", *TINY, f"hydra.run.dir={tmp_path}/x", status=2)
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("Error: "))
    assert "DATA.data_path=PLACE: a folder, a zip or a tar" in line
    assert "Traceback" not in done.stdout + done.stderr


def test_a_zip_of_another_method_is_refused(tmp_path):
    path = tmp_path / "p.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a/1.png", b"0" * 1000)
    with pytest.raises(UserError, match="a/1.png is compressed by another method"):
        picture_files.collect(str(path))
