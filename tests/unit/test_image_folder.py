# SPDX-License-Identifier: Apache-2.0
"""A user's own pictures: collecting, decoding, and the stored array."""

import errno
import hashlib
import io
import os
import tarfile
import zipfile

import numpy as np
import pytest
from picture_folder import CLASSES
from picture_folder import encode
from picture_folder import noise
from picture_folder import write_folder
from PIL import Image

from data import decoding
from data import image_folder
from data import picture_files
from data import picture_names
from support import progress
from support import storage
from support.errors import UserError


def fit(picture, size=64):
    """Resizes the largest square in the middle with PIL, uint8 [3, size, size]."""
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
    return write_folder(tmp_path / "pictures")


def pack(folder, path):
    """Writes a zip or tar, depending on the suffix, with its members in random order."""
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


def read(path, crop=False, skip=False, **limits):
    return image_folder.read_pictures(str(path), crop, skip, **limits)


def expected_of(folder):
    """The class of each picture, by the bytes of the decoded picture."""
    expected = {}
    for path in folder.rglob("*"):
        if path.suffix in (".png", ".JPG", ".webp") and "/." not in str(path):
            picture = Image.open(path)
            picture = on_white(picture) if picture.mode == "RGBA" else picture.convert("RGB")
            expected[fit(picture).tobytes()] = path.relative_to(folder).parts[0]
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
    """The message of the error, which must have one line."""
    with pytest.raises(UserError) as error:
        read(path, **options)
    assert r"\n" not in str(error.value)
    return str(error.value)


def without_classes(warnings):
    """Warnings but for that of classes with few pictures."""
    return [text for text in warnings if "classes have too few pictures" not in text]


def test_pictures_of_a_folder_and_their_classes(folder):
    data = read(folder)
    assert data.class_names == CLASSES
    assert found_in(data) == expected_of(folder)
    # One in ten is held out.
    assert data.train_images.shape == (22, 3, 64, 64) and data.test_images.shape == (2, 3, 64, 64)
    assert data.train_labels.shape == (22,) and data.test_labels.shape == (2,)
    assert data.train_images.dtype == np.uint8 and data.train_labels.dtype == np.int64


@pytest.mark.parametrize("suffix", ["zip", "tar", "tar.gz", "tar.xz"])
def test_an_archive_is_read_as_its_folder(suffix, folder, tmp_path):
    expected, data = read(folder), read(pack(folder, tmp_path / f"pictures.{suffix}"))
    assert_same(data, expected)
    assert data.fingerprint() == expected.fingerprint()


def test_what_is_held_out_depends_on_the_number_of_pictures_alone(folder, monkeypatch, tmp_path):
    first = read(folder)
    monkeypatch.setattr(storage, "CACHE", str(tmp_path / "elsewhere"))
    assert_same(read(folder), first)
    # Other cats, under the same names.
    for number, path in enumerate(sorted(folder.glob("cats/[0-9]*.png"))):
        noise(64, 64, seed=50 + number).save(path)
    other = read(folder)
    assert other.fingerprint() != first.fingerprint()
    for part in ("train_labels", "test_labels"):
        np.testing.assert_array_equal(getattr(other, part), getattr(first, part))


def test_a_compressed_tar_is_read_in_its_own_order(folder, tmp_path):
    """Going back in one means to unpack it from its start, for each picture."""
    pictures, stack = picture_files.collect(str(pack(folder, tmp_path / "x.tar.gz")))
    order = []

    def watched(picture):
        return picture._replace(read=lambda: (order.append(picture.offset), picture.read())[1])

    with stack:
        images, kept, problems, all_read = image_folder.decode_all(
            [watched(p) for p in pictures], 64
        )
    assert all_read and problems == []
    assert order == sorted(order) and len(set(order)) == 24
    assert kept == list(range(24))
    names = [picture.class_name for picture in pictures]
    expected = expected_of(folder)
    assert [expected[image.tobytes()] for image in images] == names


@pytest.mark.parametrize("size", [64, 72])
@pytest.mark.parametrize("shape", [(64, 64), (200, 101), (33, 150), (7, 9), (1, 300)])
def test_decoding_scales_and_crops_at_the_middle(shape, size):
    picture = noise(*shape)
    found = decoding.decode(encode(picture), size)
    assert found.shape == (3, size, size) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, fit(picture, size))


@pytest.mark.parametrize("upright", [False, True])
def test_what_is_cropped_off_leaves_no_trace(upright):
    stripes = np.zeros((64, 3 * 64, 3), "uint8")
    for channel in range(3):
        stripes[:, 64 * channel : 64 * (channel + 1), channel] = 255
    picture = Image.fromarray(stripes.swapaxes(0, 1) if upright else stripes)
    found = decoding.decode(encode(picture), 64)
    np.testing.assert_array_equal(found.max((1, 2)), [0, 255, 0])
    np.testing.assert_array_equal(found.min((1, 2)), [0, 255, 0])


def test_what_is_transparent_becomes_white():
    picture = noise(64, 64, 4)
    colours = np.asarray(picture).astype(float)
    alpha = colours[..., 3:] / 255
    expected = colours[..., :3] * alpha + 255 * (1 - alpha)
    found = decoding.decode(encode(picture), 64).transpose(1, 2, 0)
    np.testing.assert_allclose(found, expected, atol=1)
    keyed = Image.new("P", (64, 64), 1)
    keyed.putpalette([0, 0, 255, 255, 0, 0])
    keyed.paste(0, (0, 0, 32, 64))
    found = decoding.decode(encode(keyed, "GIF", transparency=0), 64)
    assert (found[:, :, :32] == 255).all()
    assert (found[0, :, 32:] == 255).all() and not found[1:, :, 32:].any()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_kinds_of_colour(mode):
    picture = noise(64, 64).convert(mode)
    found = decoding.decode(encode(picture, "TIFF"), 64)
    expected = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_of_grey_become_8(kind):
    """Pillow itself would make all but the darkest pixels white."""
    grey = np.linspace(0, 65535, 64 * 64).astype("uint16").reshape(64, 64)
    found = decoding.decode(encode(Image.fromarray(grey), kind), 64)
    np.testing.assert_array_equal(found, np.broadcast_to(grey // 256, (3, 64, 64)))


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_a_camera_that_was_turned(orientation, turns):
    picture, exif = noise(64, 64), Image.Exif()
    exif[0x0112] = orientation
    found = decoding.decode(encode(picture, exif=exif), 64)
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
    assert not without_classes(warned)
    data = read(place, skip=True)
    assert len(data.train_images) == 21 and len(data.test_images) == 2
    (text,) = without_classes(warned)
    assert "cats/03.png can't be decoded" in text and "left out" in text
    path.unlink()
    # The others keep their classes, in the stored array too.
    assert found_in(data) == expected_of(folder)
    monkeypatch.setattr(image_folder, "decode_all", None)
    if place != folder:
        assert_same(read(place, skip=True), data)


def test_a_picture_that_can_not_be_read_now_may_be_read_later(folder, monkeypatch):
    warned, collect = [], image_folder.collect
    monkeypatch.setattr(image_folder.logger, "warning", warned.append)

    def fail():
        raise PermissionError(errno.EACCES, "Permission denied")

    def collect_with_one_unreadable(*arguments):
        pictures, stack = collect(*arguments)
        return [pictures[0]._replace(read=fail), *pictures[1:]], stack

    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "collect", collect_with_one_unreadable)
        assert "cats/00.png can't be read (" in refusal(folder)
        data = read(folder, skip=True)
    assert len(data.train_images) + len(data.test_images) == 23
    (text,) = without_classes(warned)
    assert text == (
        f"1 of 24 pictures of {folder} are left out: cats/00.png can't be read ([Errno 13] "
        "Permission denied)."
    )
    data = read(folder, skip=True)
    assert len(data.train_images) + len(data.test_images) == 24


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE])
def test_a_shortage_leaves_no_picture_out(number, folder, monkeypatch):
    def decode(*_):
        raise OSError(number, "a shortage")

    monkeypatch.setattr(image_folder, "decode", decode)
    with pytest.raises(OSError, match="a shortage"):
        read(folder, skip=True)


def test_nothing_but_damaged_pictures(folder):
    for path in folder.rglob("*.*"):
        if path.is_file():
            path.write_bytes(b"nonsense")
    for skip in (False, True):
        text = refusal(folder, skip=skip)
        assert f"no picture in {folder} could be decoded: cats/" in text and " and 21 more." in text


def test_too_few_pictures(tmp_path):
    for number in range(9):
        noise(8, 8, seed=number).save(tmp_path / f"{number}.png")
    assert "has 9 pictures, and at least 10 are needed" in refusal(tmp_path)
    noise(8, 8, seed=9).save(tmp_path / "9.png")
    data = read(tmp_path)
    assert len(data.train_images) == 9 and len(data.test_images) == 1


def test_places_without_pictures(tmp_path):
    assert f"there is no folder or archive {tmp_path}/nowhere" in refusal(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f", .webp) in {empty}." in refusal(empty)
    (empty / "notes.txt").write_text("x")
    (empty / ".hidden.png").write_text("x")
    for place in (empty, pack(empty, tmp_path / "x.zip"), pack(empty, tmp_path / "x.tar")):
        text = refusal(place)
        assert f", .webp) in {place}. Left out: " in text
        assert "hidden or system files (1, such as .hidden.png)" in text
        assert "other files (1, such as .txt)" in text
    (empty / "all.ZIP").write_bytes(b"x")
    assert refusal(empty).endswith("An archive in it is not opened: name the archive itself.")


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
        ("tar.xz", 0.5),  # lzma raises an error that is not an OSError
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
    """Python's tarfile takes a damaged header for the end, without an error."""
    path = pack(folder, tmp_path / "x.tar")
    with tarfile.open(path) as archive:
        start = archive.getmembers()[-3].offset
    content = bytearray(path.read_bytes())
    content[start : start + 100] = b"x" * 100
    path.write_bytes(content)
    assert "a member's header is damaged" in refusal(path, skip=True)


def test_a_zip_of_a_later_version_is_refused(folder, tmp_path):
    path = pack(folder, tmp_path / "x.zip")
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02") + 6  # version needed, in the directory
    path.write_bytes(content[:start] + b"\xff" + content[start + 1 :])
    assert "can't be read (zip file version" in refusal(path)


@pytest.mark.parametrize("side", [101, 120, 200])
def test_a_picture_far_too_large_is_refused(side, folder):
    """Pillow itself warns up to twice its limit, and refuses beyond."""
    for path in folder.rglob("*.*"):
        if path.is_file():
            noise(100, 100, seed=len(path.name)).save(path, "PNG")
    read(folder, max_pixels=10_000)
    Image.new("RGB", (side, side)).save(folder / "dogs" / "bomb.png")
    text = refusal(folder, max_pixels=10_000)
    assert "dogs/bomb.png can't be decoded" in text and "DATA.max_pixels=10000" in text
    limit = Image.MAX_IMAGE_PIXELS
    assert len(read(folder, skip=True, max_pixels=10_000).train_images) == 22
    assert Image.MAX_IMAGE_PIXELS == limit
    # The setting belongs to what is kept: the picture is not left out of the next run.
    assert len(read(folder, skip=True).train_images) == 23


@pytest.fixture
def decoded(monkeypatch):
    """The size of the pictures each time that all of them are decoded."""
    sizes, decode_all = [], image_folder.decode_all

    def watched(pictures, size, *others):
        sizes.append(size)
        return decode_all(pictures, size, *others)

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
    assert decoded == [64, 72]
    # Another picture of the same size and number of bytes.
    picture, before = folder / "owls" / "02.png", (folder / "owls" / "02.png").read_bytes()
    picture.write_bytes(encode(noise(*Image.open(picture).size, seed=99)))
    assert len(picture.read_bytes()) == len(before)
    os.utime(picture, ns=(10**18, 10**18))
    path = place()
    assert found_in(read(path)) == expected_of(folder)
    assert decoded == [64, 72, 64]
    # Another name, and so another class.
    picture.rename(folder / "cats" / "02.png")
    path = place()
    assert found_in(read(path)) == expected_of(folder)
    assert decoded == [64, 72, 64, 64]


def test_all_damaged_pictures_are_named_and_the_others_decoded_once(folder, decoded):
    """With many pictures, decoding takes long: neither a refusal nor DATA.on_error repeats it."""
    for name in ("cats/00.png", "owls/02.png"):
        (folder / name).write_bytes(b"nonsense")
    for _ in range(2):
        text = refusal(folder)
        assert text.startswith(f"2 of 24 pictures of {folder} can't be used: cats/00.png can't be ")
        assert ", owls/02.png can't be decoded (it is damaged" in text
        assert "DATA.on_error=skip" in text
    data = read(folder, skip=True)
    assert len(data.train_images) + len(data.test_images) == 22
    assert decoded == [64, 64]  # all of them once, and the damaged ones again for the reason


def store(images, numbers):
    """What is kept of pictures, with the right checksum."""
    buffer = io.BytesIO()
    np.save(buffer, images)
    np.save(buffer, numbers)
    shapes = f"{images.shape} {numbers.shape} {numbers.dtype}".encode()
    digest = hashlib.sha256(shapes + images.tobytes() + numbers.tobytes()).hexdigest()
    return buffer.getvalue() + digest.encode()


def flip(place, bit=0):
    """Changes one bit; places from 0 to 1 are shares of the length."""

    def change(content):
        content = bytearray(content)
        content[place if isinstance(place, int) else int(place * len(content))] ^= 1 << bit
        return bytes(content)

    return change


ZEROS = np.zeros((24, 3, 64, 64), "uint8")
SPOILT = {
    "truncated": lambda content: content[:1000],
    "without its end": lambda content: content[:-1],
    "longer": lambda content: content + b"0",
    "empty": lambda content: b"",
    "text": lambda content: b"nonsense" * 50,
    "a zip": lambda content: b"PK\x03\x04" + content[4:],
    "no end of its header": lambda content: content.replace(b"}", b" ", 1),
    "far too large": lambda content: content.replace(
        b"(24, 3, 64, 64), }", b"(1" + b"0" * 11 + b",), }"
    ),
    "another order": lambda content: content.replace(b"order': False", b"order': True ", 1),
    "a bit of a pixel": flip(0.5),
    "another bit of a pixel": flip(0.01, 7),
    "a bit of the numbers": flip(-100),
    "a bit of the checksum": flip(-3),
    "another shape": lambda content: store(np.zeros((24, 3, 72, 72), "uint8"), np.arange(24)),
    "another kind": lambda content: store(ZEROS.astype("int8"), np.arange(24)),
    "no numbers": lambda content: store(ZEROS[:0], np.arange(24)),
    "fewer numbers": lambda content: store(ZEROS, np.arange(23)),
    "numbers of no picture": lambda content: store(ZEROS, np.arange(24) + 1),
    "one number": lambda content: store(ZEROS, np.array(3)),
    "pairs of numbers": lambda content: store(ZEROS, np.zeros((24, 2), "int64")),
}


def find_stored(place):
    (path,) = place.glob("cache/**/*.npy")
    return path


@pytest.mark.parametrize("how", SPOILT)
def test_a_damaged_stored_array_is_decoded_again(how, folder, tmp_path, decoded, monkeypatch):
    warned = []
    first = read(folder)
    monkeypatch.setattr(image_folder.logger, "warning", warned.append)
    path = find_stored(tmp_path)
    before = path.read_bytes()
    path.write_bytes(SPOILT[how](before))
    assert path.read_bytes() != before
    for _ in range(2):
        assert_same(read(folder), first)
    assert decoded == [64, 64]
    (text,) = without_classes(warned)
    assert f"The pictures kept in {path} are damaged (" in text and "decoded again" in text


def test_other_decoders_decode_again(folder, decoded, monkeypatch):
    """Another version of Pillow, or pillow-heif, may read what was left out."""
    read(folder)
    monkeypatch.setattr(image_folder, "describe_decoders", lambda: "others")
    read(folder)
    assert decoded == [64, 64]


def test_the_tests_of_the_stored_array_can_fail(folder, tmp_path, decoded):
    """What `store` writes is read, if it fits."""
    read(folder)
    find_stored(tmp_path).write_bytes(store(ZEROS + 7, np.arange(24)))
    assert (read(folder).train_images == 7).all()
    assert decoded == [64]


def test_pictures_that_cannot_be_stored_are_used(folder, tmp_path, monkeypatch):
    expected, warned = read(folder), []
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(storage, "CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(image_folder.logger, "warning", warned.append)
    assert_same(read(folder), expected)
    (text,) = without_classes(warned)
    assert "The decoded pictures could not be kept: " in text


@pytest.mark.parametrize("suffix", [None, "zip", "tar"])
def test_files_that_are_far_too_large_are_left_out(suffix, folder, tmp_path, monkeypatch):
    sizes = {path: path.stat().st_size for path in folder.rglob("*.png")}
    large = max(sizes, key=sizes.get)
    monkeypatch.setattr(picture_names, "MAX_FILE_BYTES", sizes[large] - 1)
    data = read(folder if suffix is None else pack(folder, tmp_path / f"x.{suffix}"))
    large.unlink()
    assert found_in(data) == expected_of(folder)


def test_too_few_pictures_that_can_be_decoded(tmp_path):
    for number in range(10):
        noise(8, 8, seed=number).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes(b"nonsense")
    assert "has 9 pictures, and at least 10 are needed" in refusal(tmp_path, skip=True)


def test_the_same_pictures_are_held_out_in_later_versions(tmp_path):
    for number in range(20):
        noise(64, 64, seed=number).save(tmp_path / f"{number:02}.png")
    order = np.random.default_rng(0).permutation(20)
    pictures = [np.asarray(noise(64, 64, seed=number)).transpose(2, 0, 1) for number in order]
    data = read(tmp_path)
    np.testing.assert_array_equal(data.test_images, pictures[:2])
    np.testing.assert_array_equal(data.train_images, pictures[2:])


def test_long_decoding_is_logged(folder, monkeypatch):
    lines = []
    monkeypatch.setattr(progress, "SILENCE", 0)
    monkeypatch.setattr(progress.logger, "info", lines.append)
    read(folder)
    counts = [line.split(" pictures decoded")[0] for line in lines if "pictures decoded" in line]
    assert counts == [f"{number} of 24" for number in range(1, 24)]
