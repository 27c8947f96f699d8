# SPDX-License-Identifier: Apache-2.0
"""Weights of networks: written whole, found by path or URL, and loaded completely or not at all."""

from __future__ import annotations

import hashlib
import io
import urllib.parse
from os import path as osp
from typing import Any
from typing import Dict
from typing import List
from typing import Optional

import numpy as np
import paddle
from paddle import nn
from ppsci.utils import logger

from support import archives
from support import storage
from support.downloads import download
from support.errors import UserError
from support.errors import printable
from support.npz import DIGEST_BYTES
from support.npz import PARTS
from support.npz import read_npz
from support.unpickling import as_text
from support.unpickling import unpickle

CHECKSUM_MARK = b"#SHA-256:"  # stands between the pickle of our own weights and its checksum
AVERAGE = "average/"  # the prefix of the moving average's arrays in a checkpoint
MODEL_HINT = (
    "Did the training use other MODEL.* settings? Its config.yaml, next to the weights, lists them."
)


def save_weights(network: nn.Layer, path: str) -> None:
    """Writes the weights and buffers of a network as `.pdparams`, completely or not at all.

    A SHA-256 follows the pickle; `paddle.load` ignores it.
    """
    buffer = io.BytesIO()
    paddle.save(network.state_dict(), buffer)
    content = buffer.getvalue()
    with storage.replacing(path) as file:
        file.write(content + CHECKSUM_MARK + hashlib.sha256(content).hexdigest().encode())


def load_weights(
    network: nn.Layer,
    source: str,
    setting: str,
    role: Optional[str] = None,
    sha256: Optional[str] = None,
) -> str:
    """Loads all weights and buffers of a network, or changes nothing.

    From a checkpoint, a generator gets its moving average if the checkpoint has one. A generator's
    `.pdparams` is loaded as it is, and the log names the moving average next to it.

    Args:
        network: The network to load into.
        source: The path of a `.pdparams` file or its URL, each with or without the suffix, or the
            path of a checkpoint (`.npz`).
        setting: The configuration key that names the source, for messages.
        role: Which network of a checkpoint to load: the prefix of its arrays, such as "generator".
        sha256: The SHA-256 that the file must have, in hexadecimal; None for any.

    Returns:
        The SHA-256 of the file.

    Raises:
        UserError: If the file is absent or damaged, has another SHA-256, or does not fit the
            network. The message lists missing and unexpected arrays, and arrays of another shape.
    """
    path = weights_path(source, setting)
    where = f"{setting}: {printable(path)}"
    if _is_url(source):
        where += (
            f" (downloaded from {printable(source)}; remove it, and the program downloads it again)"
        )
    digest = _check_sha256(path, where, sha256, setting.replace("_model_path", "_sha256"))
    if path.endswith(".npz"):
        state = _read_checkpoint(path, where, role)
    else:
        state = _read_pdparams(path, where)
        average = osp.join(osp.dirname(path), "model_average_generator.pdparams")
        if osp.basename(path) == "model_generator.pdparams" and osp.isfile(average):
            logger.info(
                f"{where}: {printable(average)} is the moving average that its training evaluated."
            )
    network.set_state_dict(match_weights(network, state, where))
    return digest


def _check_sha256(path: str, where: str, expected: Optional[str], setting: str) -> str:
    """Returns the SHA-256 of a file of weights; refuses another one than `setting` demands."""
    limit = archives.MAX_BYTES * (PARTS if path.endswith(".npz") else 1)
    try:
        is_large = osp.getsize(path) > limit
        digest = "" if is_large else storage.sha256(path)
    except OSError as error:
        raise UserError(f"{where} can't be read ({printable(error)}).") from None
    if is_large:
        raise UserError(
            f"{where} is larger than {archives.format_limit(limit)}, the limit for such files, and "
            "was not read."
        )
    if expected is not None and digest != expected.lower():
        raise UserError(
            f"{where} has the SHA-256 {digest}, but {setting} demands {expected}. It is another "
            "file, or it is damaged, and was not loaded."
        )
    return digest


def _read_checkpoint(path: str, where: str, role: Optional[str]) -> Dict[str, np.ndarray]:
    """Reads the arrays of one network of a checkpoint."""
    arrays = read_npz(path)
    prefix = f"{role}/"
    # A training with a moving average evaluates the average.
    if role == "generator" and any(name.startswith(AVERAGE) for name in arrays):
        prefix = AVERAGE
        logger.info(f"{where}: loading the moving average of the generator.")
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def _read_pdparams(path: str, where: str) -> Dict[str, Any]:
    """Reads the arrays of a file that `save_weights` or `paddle.save` wrote."""
    try:
        content = archives.read_file(path)
    except OSError as error:
        raise UserError(f"{where} can't be read ({printable(error)}).") from None
    body, mark, checksum = content.rpartition(CHECKSUM_MARK)
    if mark and len(checksum) == DIGEST_BYTES:  # files of paddle.save have no checksum
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
    state.pop("StructuredToParameterName@@", None)  # paddle.save adds a table of internal names
    return state


def weights_path(source: str, setting: str) -> str:
    """Returns the local path of weights, and downloads them if `source` is a URL.

    A download is cached by its address.

    Args:
        source: A path or a URL, with or without its suffix.
        setting: The configuration key that names the source, for messages.

    Raises:
        UserError: If the file does not exist, or cannot be downloaded.
    """
    if _is_url(source):
        return _fetch_weights(source, setting)
    path = osp.abspath(osp.expanduser(source))
    path = path if path.endswith((".pdparams", ".npz")) else f"{path}.pdparams"
    if not osp.isfile(path):
        raise UserError(
            f"{setting}: there is no file {printable(path)}. A finished training writes "
            "model_generator.pdparams and model_discriminator.pdparams to its output folder, and "
            "with TRAIN.ema.use_ema also model_average_generator.pdparams."
        )
    return path


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _fetch_weights(url: str, setting: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if not parts.path.endswith(".pdparams"):
        parts = parts._replace(path=f"{parts.path}.pdparams")
    address = urllib.parse.urlunsplit(parts)
    # The names of cached files begin with a key, since files at different addresses share names.
    key = hashlib.sha256(address.encode()).hexdigest()[:12]
    folder = osp.expanduser(f"{storage.CACHE}/weights/wgangp")
    path = osp.join(folder, f"{key}_{osp.basename(parts.path)}")
    if not osp.exists(path):
        logger.info(f"Downloading {printable(address)}")
        try:
            download(address, path)
        except OSError as error:
            raise UserError(
                f"{setting}: {printable(address)} could not be downloaded ({printable(error)}). "
                f"Download it elsewhere and name its path, or put it at {printable(path)}."
            ) from None
    return path


def match_weights(network: nn.Layer, state: Dict[str, Any], where: str) -> Dict[str, np.ndarray]:
    """Converts arrays to the precision of a network, and requires that they fit it exactly.

    Args:
        network: The network.
        state: The arrays offered, by name.
        where: Where the arrays are from, for the message.

    Returns:
        Arrays for all weights and buffers of the network, by name.

    Raises:
        UserError: If the arrays do not fit; see `require_fit`.
    """
    own = network.state_dict()
    with np.errstate(over="ignore"):  # a number that is too large becomes infinite: refused below
        state = {
            name: value.astype(own[name].numpy().dtype)
            if name in own and _has_floats(value)
            else value
            for name, value in state.items()
        }
    require_fit(own, state, type(network).__name__, where, _make_hint(own, state))
    return state


def _make_hint(own: Dict[str, Any], state: Dict[str, Any]) -> str:
    """Says what to do if the arrays `state` do not fit the network with the arrays `own`."""
    # Only the names of the published networks have this prefix (networks/published.py).
    is_published, expects_published = (
        any(name.startswith(("generator.", "discriminator.")) for name in names)
        for names in (state, own)
    )
    if is_published and not expects_published:
        return (
            "PaddleScience publishes weights with such names: MODEL.arch=published builds their "
            "networks."
        )
    if expects_published and not is_published:
        return "MODEL.arch=paper builds the networks that this suite trains."
    return MODEL_HINT


def require_fit(
    own: Dict[str, Any], state: Dict[str, Any], network: str, where: str, hint: str = ""
) -> None:
    """Refuses arrays that are not exactly the arrays of a network.

    Args:
        own: The network's own arrays by name; anything with a shape.
        state: The arrays offered, by name.
        network: The name of the network, for the message.
        where: Where the arrays are from, for the message.
        hint: What the user can do, for the message.

    Raises:
        UserError: If names or shapes differ, or values are not finite floating-point numbers. The
            message lists the names.
    """
    both = [name for name in own if name in state]
    numbers = [name for name in both if _has_floats(state[name])]
    fitting = [name for name in numbers if list(state[name].shape) == list(own[name].shape)]
    problems = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "not arrays of floating-point numbers": [name for name in both if name not in numbers],
        "misshapen": [
            f"{name} {list(state[name].shape)} where {list(own[name].shape)} is expected"
            for name in numbers
            if name not in fitting
        ],
        "not finite": [name for name in fitting if not np.isfinite(state[name]).all()],
    }
    found = [f"{kind}: {_abbreviate(names)}" for kind, names in problems.items() if names]
    if found:
        raise UserError(
            f"{where} does not fit {network}, and was not loaded. {'; '.join(found)}. {hint}"
        )


def _has_floats(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _abbreviate(names: List[str], limit: int = 4) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(printable(name) for name in names[:limit]) + rest
