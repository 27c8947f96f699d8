# SPDX-License-Identifier: Apache-2.0
"""Weights of networks: saved whole, found by path or URL, loaded all or not at all."""

from __future__ import annotations

import hashlib
import io
import urllib.parse
import urllib.request
from os import path as osp
from typing import Any
from typing import Dict
from typing import List
from typing import Optional

import numpy as np
import paddle
from paddle import nn
from ppsci.utils import logger

from support.archives import LARGEST
from support.downloads import download
from support.errors import UserError
from support.npz import DIGEST
from support.npz import read_npz
from support.storage import CACHE
from support.storage import replacing
from support.unpickling import as_text
from support.unpickling import unpickle

CHECKSUM_MARK = b"#SHA-256:"  # between the pickle of our own weights and its checksum
MODEL_HINT = (
    "Were MODEL.* settings different when it was trained? They are in config.yaml beside the "
    "weights."
)


def save_weights(network: nn.Layer, path: str) -> None:
    """Writes a network's weights and buffers as `.pdparams`, completely or not at all.

    A checksum goes behind the pickle, where `paddle.load` does not look.
    """
    buffer = io.BytesIO()
    paddle.save(network.state_dict(), buffer)
    content = buffer.getvalue()
    with replacing(path) as file:
        file.write(content + CHECKSUM_MARK + hashlib.sha256(content).hexdigest().encode())


def load_weights(network: nn.Layer, source: str, setting: str, role: Optional[str] = None) -> None:
    """Loads a network's `.pdparams`, all of it or nothing.

    Of a checkpoint the moving average is loaded where there is one; beside a generator's
    `.pdparams`, it is only pointed at.

    Args:
        network: The network to load into.
        source: A path or a URL, with or without the suffix; or a checkpoint's path.
        setting: The configuration key that named it, for messages.
        role: Which of a checkpoint's networks it is, such as "generator".

    Raises:
        UserError: If the file is absent, damaged, or of another network; the message lists
            missing, unexpected and misshapen names, and nothing is loaded.
    """
    path = weights_path(source, setting)
    where = f"{setting}: {path}"
    if _is_url(source):
        where += f" (kept from {source}; remove it, and it is downloaded anew)"
    if path.endswith(".npz"):
        start = f"{role}/"
        arrays = read_npz(path)
        # what such a training evaluates, where it keeps one
        if role == "generator" and any(name.startswith("average/") for name in arrays):
            start = "average/"
            logger.info(f"{where}: the moving average of the generator is taken.")
        state = {n[len(start) :]: array for n, array in arrays.items() if n.startswith(start)}
    else:
        state = _read_pdparams(path, where)
        average = osp.join(osp.dirname(path), "model_average_generator.pdparams")
        if osp.basename(path) == "model_generator.pdparams" and osp.isfile(average):
            logger.info(f"{where}: {average} is the moving average that its training evaluated.")
    network.set_state_dict(fitting(network, state, where))


def _read_pdparams(path: str, where: str) -> Dict[str, Any]:
    if osp.getsize(path) > LARGEST:
        raise UserError(f"{where} is larger than 1 GiB: it was not read.")
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"{where} can't be read ({error}).") from None
    body, mark, checksum = content.rpartition(CHECKSUM_MARK)
    if mark and len(checksum) == DIGEST:  # weights of others have none
        content = body
        if hashlib.sha256(content).hexdigest().encode() != checksum:
            raise UserError(f"{where} is damaged: its checksum does not match its content.")
    state = unpickle(content, where)
    if not isinstance(state, dict):
        raise UserError(
            f"{where}: expected a dictionary of arrays, found a {type(state).__name__}."
        )
    if not all(isinstance(name, (str, bytes)) for name in state):
        raise UserError(f"{where}: expected a dictionary of arrays by name.")
    state = {as_text(name): value for name, value in state.items()}
    # paddle.save adds a table of its internal names
    state.pop("StructuredToParameterName@@", None)
    return state


def fitting(network: nn.Layer, state: Dict[str, Any], where: str) -> Dict[str, np.ndarray]:
    """Arrays for all of a network's weights and buffers, in its own precision.

    Args:
        network: The network.
        state: The arrays offered, by name.
        where: Where they come from, for the message.

    Raises:
        UserError: If they do not fit; lists missing, unexpected and misshapen names.
    """
    own = network.state_dict()
    with np.errstate(over="ignore"):  # a number too large becomes infinite, and is refused
        state = {
            name: value.astype(own[name].numpy().dtype)
            if name in own and isinstance(value, np.ndarray) and value.dtype.kind == "f"
            else value
            for name, value in state.items()
        }
    # the level that only names of the published networks have (published.py)
    are_published = [
        any(name.startswith(("generator.", "discriminator.")) for name in names)
        for names in (state, own)
    ]
    hint = {
        (True, False): "PaddleScience publishes weights of such names: MODEL.arch=published "
        "builds their networks.",
        (False, True): "MODEL.arch=paper builds the networks that this suite trains.",
    }.get(tuple(are_published), MODEL_HINT)
    check_fit(own, state, type(network).__name__, where, hint)
    return state


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def weights_path(source: str, setting: str) -> str:
    """The local file of a path or URL, with or without its suffix; a URL's is cached.

    Raises:
        UserError: If it is not there, or can't be downloaded.
    """
    if _is_url(source):
        parts = urllib.parse.urlsplit(source)
        if not parts.path.endswith(".pdparams"):
            parts = parts._replace(path=f"{parts.path}.pdparams")
        address = urllib.parse.urlunsplit(parts)
        # Files of different addresses often share a name.
        key = hashlib.sha256(address.encode()).hexdigest()[:12]
        path = osp.expanduser(f"{CACHE}/weights/wgangp/{key}_{osp.basename(parts.path)}")
        if not osp.exists(path):
            logger.info(f"Downloading {address}")
            try:
                download(address, path)
            except OSError as error:
                raise UserError(
                    f"{setting}: {address} could not be downloaded ({error}). Download it "
                    f"elsewhere and name its path, or put it at {path}."
                ) from None
        return path
    path = osp.abspath(osp.expanduser(source))
    path = path if path.endswith((".pdparams", ".npz")) else f"{path}.pdparams"
    if not osp.isfile(path):
        raise UserError(
            f"{setting}: there is no file {path}. A finished training leaves "
            "model_generator.pdparams and model_discriminator.pdparams in its output folder, and "
            "with TRAIN.ema.use_ema model_average_generator.pdparams."
        )
    return path


def check_fit(
    own: Dict[str, Any], state: Dict[str, Any], network: str, where: str, hint: str = ""
) -> None:
    """Refuses arrays that are not exactly those of a network.

    Args:
        own: What the network has, by name: anything with a shape.
        state: The arrays offered, by name.
        network: Its name, for the message.
        where: Where the arrays come from, for the message.
        hint: What to do, for the message.

    Raises:
        UserError: Lists missing, unexpected and misshapen names.
    """

    def numbers(name):
        value = state.get(name)
        return isinstance(value, np.ndarray) and value.dtype.kind == "f"

    both = [name for name in own if name in state]
    fits = [n for n in both if numbers(n) and list(state[n].shape) == list(own[n].shape)]
    problems = {
        "missing": [name for name in own if name not in state],
        "unexpected": [str(name) for name in state if name not in own],
        "not arrays of floating-point numbers": [name for name in both if not numbers(name)],
        "misshapen": [
            f"{name} {list(state[name].shape)} where {list(own[name].shape)} is expected"
            for name in both
            if numbers(name) and name not in fits
        ],
        "not finite": [name for name in fits if not np.isfinite(state[name]).all()],
    }
    found = [f"{kind}: {_some(names)}" for kind, names in problems.items() if names]
    if found:
        raise UserError(
            f"{where} does not fit {network}, and was not loaded. {'; '.join(found)}. {hint}"
        )


def _some(names: List[str], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
