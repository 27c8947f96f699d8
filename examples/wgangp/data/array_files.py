# SPDX-License-Identifier: Apache-2.0
"""Pictures and labels that are stored as arrays: idx files, NumPy archives, binary batches."""

from __future__ import annotations

import re
from typing import Dict
from typing import List
from typing import Optional
from typing import Sequence
from typing import Tuple

import numpy as np

from data.image_set import NUM_CLASSES
from data.image_set import ImageSet
from data.image_set import as_labels
from data.image_set import check_images
from support.errors import UserError
from support.errors import printable
from support.layouts import check_shape
from support.members import strip_compressed
from support.npz import parse_npy

IDX_NAME = re.compile(r"(train|t10k|test)-(images|labels)[-.]idx[13]-ubyte")
NPY_NAME = re.compile(r"(x|y)_(train|test)\.npy")
PREFIXES = ("train-", "t10k-", "test-", "x_", "y_")  # of the base names of such files
PARTS = ("train", "test")
IDX_BYTE = 8  # the code of unsigned bytes


def read_arrays(
    members: Sequence[Tuple[str, bytes]], shape: Tuple[int, int, int], where: str
) -> Optional[ImageSet]:
    """Reads the four arrays of a data set: idx files, or members of an npz as Keras names them.

    Args:
        members: Pairs (name, content).
        shape: Channels, height and width of a picture.
        where: The place that messages name.

    Returns:
        The data set; None if no member has the name of such an array.

    Raises:
        UserError: If an array is absent, damaged, or of another form.
    """
    arrays: Dict[Tuple[str, str], Tuple[str, np.ndarray]] = {}
    for name, content in members:
        base = strip_compressed(name)
        idx, npy = IDX_NAME.fullmatch(base), NPY_NAME.fullmatch(base)
        if not (idx or npy):
            continue
        place = f"{where}, {printable(name)}"
        if idx:
            key = ("train" if idx[1] == "train" else "test", idx[2])
        else:
            key = (npy[2], "images" if npy[1] == "x" else "labels")
        try:
            array = parse_idx(content) if idx else parse_npy(content)
            array = as_pictures(array, shape) if key[1] == "images" else as_labels(_flat(array))
        except (ValueError, OverflowError) as error:
            raise UserError(f"{place} can't be read ({printable(error)}).") from None
        if key in arrays and not np.array_equal(arrays[key][1], array):
            raise UserError(
                f"{where} holds two different files of the same kind: {arrays[key][0]} and {base}."
            )
        arrays[key] = base, array
    if not arrays:
        return None
    columns: List[np.ndarray] = []
    for part in PARTS:
        for kind in ("images", "labels"):
            if (part, kind) not in arrays:
                found = ", ".join(name for name, _ in arrays.values())
                raise UserError(f"{where} holds {found}, but no {kind} of the {part} set.")
            columns.append(arrays[part, kind][1])
        check_images(columns[-2], columns[-1], NUM_CLASSES, f"{where}, {part} set")
    return ImageSet(*columns)


def parse_idx(content: bytes) -> np.ndarray:
    """Reads an array of unsigned bytes in the format of MNIST's files.

    Its header is two zeros, the code of the type, the number of dimensions, and a size of 32 bits
    for each.

    Raises:
        ValueError: If it holds something else, or more or fewer bytes than its header says.
    """
    if len(content) < 4 or content[:2] != b"\0\0":
        raise ValueError("it is not an idx file")
    kind, rank = content[2], content[3]
    if kind != IDX_BYTE:
        raise ValueError(f"it holds numbers of the kind {kind}, and not unsigned bytes")
    start = 4 + 4 * rank
    if len(content) < start:
        raise ValueError("it ends within its header")
    shape = np.frombuffer(content[4:start], ">u4").tolist()
    numbers = np.frombuffer(content, "uint8", offset=start)
    return numbers.reshape(check_shape(shape, numbers.size))


def parse_batch(content: bytes) -> Tuple[np.ndarray, np.ndarray]:
    """Reads a batch of CIFAR-10's binary version: a label and 3,072 bytes for each picture.

    Returns:
        Rows [N, 3072] and labels [N].

    Raises:
        ValueError: If its size is not that of whole pictures.
    """
    if len(content) % 3073:
        raise ValueError("its size is not a multiple of 3,073 bytes, a label and a picture")
    records = np.frombuffer(content, "uint8").reshape(-1, 3073)
    return records[:, 1:], records[:, 0].astype("int64")


def as_pictures(array: np.ndarray, shape: Tuple[int, int, int]) -> np.ndarray:
    """Arranges pictures as [N, C, H, W].

    Args:
        array: Rows of numbers, or pictures whose channels are before or behind their pixels, or
            which have no axis for a single channel.
        shape: C, H and W.

    Raises:
        ValueError: For any other shape.
    """
    channels, height, width = shape
    rest = array.shape[1:]
    if rest in (shape, (int(np.prod(shape)),)) or (channels == 1 and rest == (height, width)):
        return array.reshape(-1, *shape)
    if rest == (height, width, channels):
        return array.transpose(0, 3, 1, 2)
    sizes = "x".join(map(str, rest)) or "no size"
    raise ValueError(f"pictures have the shape {sizes}, expected {height}x{width}x{channels}")


def _flat(labels: np.ndarray) -> np.ndarray:
    """Removes the second axis of labels [N, 1]."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
