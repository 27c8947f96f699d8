# SPDX-License-Identifier: Apache-2.0
"""Files of samples: PNG pictures with a grid, and a strip with a GIF between two noises.

`origin.MANIFEST` lists the files of the last mode=infer in a folder with their checksums, so that
the next one removes these files and no others.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from os import path as osp
from typing import Iterator
from typing import List

import numpy as np
from PIL import Image

from pages.origin import MANIFEST
from support import pictures
from support import storage
from support.errors import printable
from support.errors import require

OWN_NAMES = re.compile(r"pictures/[0-9]+\.png|interpolation\.(png|gif)|points\.csv|samples\.png")


@contextlib.contextmanager
def replacing_samples(folder: str, key: str) -> Iterator[str]:
    """Gives a folder to write samples to; afterwards they replace those of an earlier mode=infer.

    The files are written to a temporary folder first. After an error in the block, all files are
    what they were before.

    Args:
        folder: An existing folder.
        key: The setting that names it, for the message.

    Raises:
        UserError: If the folder holds files with names of samples that no mode=infer wrote, or
            that were changed since.
    """
    former = _list_former(folder)
    others = [
        name
        for name in _list_files(folder)
        if OWN_NAMES.fullmatch(name) and name not in former and not _is_of_evaluation(folder, name)
    ]
    require(
        not others,
        f"{printable(folder)} holds {len(others)} files named like samples that mode=infer did "
        f"not write, or that were changed later, such as {printable(min(others, default=''))}. "
        f"They are not replaced: choose another folder with {key}=FOLDER.",
    )
    for name in os.listdir(folder):  # A killed process leaves its temporary folder.
        if re.fullmatch(rf"\.samples\.\w{{8}}{re.escape(storage.PARTIAL)}", name):
            shutil.rmtree(osp.join(folder, name), ignore_errors=True)
    with storage.writing_to(folder, key):
        with tempfile.TemporaryDirectory(storage.PARTIAL, ".samples.", folder) as partial:
            yield partial
            _move_files(partial, folder, former)


def _move_files(partial: str, folder: str, former: List[str]) -> None:
    """Replaces the former files by all files of a temporary folder."""
    written = sorted(_list_files(partial))
    lines = [f"{storage.sha256(osp.join(partial, name))}  {name}\n" for name in written]
    for name in former:
        os.remove(osp.join(folder, name))
    # The manifest comes first: whenever the process is killed, it lists what was moved.
    with storage.replacing(osp.join(folder, MANIFEST)) as file:
        file.write("".join(lines).encode())
    for name in written:
        os.makedirs(osp.dirname(osp.join(folder, name)), exist_ok=True)
        os.replace(osp.join(partial, name), osp.join(folder, name))


def _list_former(folder: str) -> List[str]:
    """Lists the files of the last mode=infer that are still what it wrote."""
    listed = storage.read_checksums(osp.join(folder, MANIFEST))
    return [name for name, digest in listed.items() if _is_unchanged(folder, name, digest)]


def _is_of_evaluation(folder: str, name: str) -> bool:
    """Whether mode=eval wrote a file: one mode may replace the picture of the other."""
    return name == "samples.png" and osp.isfile(osp.join(folder, "metrics.json"))


def _is_unchanged(folder: str, name: str, digest: str) -> bool:
    if not OWN_NAMES.fullmatch(name):
        return False
    path = osp.join(folder, name)
    return osp.isfile(path) and not osp.islink(path) and storage.sha256(path) == digest


def _list_files(folder: str) -> List[str]:
    """Lists the files in a folder and in its pictures/, by their paths in the folder."""
    names = os.listdir(folder)
    inner = osp.join(folder, "pictures")
    if osp.isdir(inner):
        names += [f"pictures/{name}" for name in os.listdir(inner)]
    return [name for name in names if name != "pictures"]


def save_pictures(images: np.ndarray, folder: str, low: float) -> None:
    """Writes samples as PNG files and as a grid.

    Args:
        images: Generator output in [low, 1], [N, C, H, W].
        folder: An existing folder; gets pictures/ and samples.png.
        low: What black is; white is 1.
    """
    os.makedirs(osp.join(folder, "pictures"), exist_ok=True)
    width = len(str(len(images) - 1))
    for number, image in enumerate(pictures.to_uint8(images, low)):
        picture = Image.fromarray(image.transpose(1, 2, 0).squeeze())
        picture.save(osp.join(folder, "pictures", f"{number:0{width}d}.png"))
    pictures.save_grid(images, osp.join(folder, "samples.png"), low)


def save_frames(images: np.ndarray, folder: str, enlarge: int = 4) -> None:
    """Writes pictures as a strip, and as a GIF that plays them forwards and backwards.

    Args:
        images: uint8 [N, C, H, W].
        folder: An existing folder; gets interpolation.png and interpolation.gif.
        enlarge: Screen pixels for each pixel of a picture.
    """
    strip = pictures.make_grid(images, columns=len(images))
    Image.fromarray(strip).save(osp.join(folder, "interpolation.png"))
    frames = [
        Image.fromarray(image.transpose(1, 2, 0).repeat(3 // len(image), 2)).resize(
            (image.shape[2] * enlarge, image.shape[1] * enlarge), Image.Resampling.NEAREST
        )
        for image in images
    ]
    forwards_and_backwards = frames + frames[-2:0:-1]
    forwards_and_backwards[0].save(
        osp.join(folder, "interpolation.gif"),
        save_all=True,
        append_images=forwards_and_backwards[1:],
        duration=80,
        loop=0,
    )
