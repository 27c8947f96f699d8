# SPDX-License-Identifier: Apache-2.0
"""Weights of networks: written whole, and loaded completely or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from os import path as osp
from typing import Any
from typing import Dict
from typing import Optional
from typing import Sequence
from typing import Tuple

import numpy as np
import paddle
from paddle import nn
from ppsci.utils import logger

from support import archives
from support import formats
from support import shipped_weights
from support import storage
from support import weight_notes
from support.errors import UserError
from support.errors import list_some
from support.errors import printable
from support.errors import require
from support.npz import DIGEST_BYTES
from support.npz import PARTS
from support.npz import read_npz
from support.unpickling import as_text
from support.unpickling import unpickle
from support.weight_notes import Notes
from support.weight_paths import is_url
from support.weight_paths import weights_path

CHECKSUM_MARK = b"#SHA-256:"  # stands between the pickle of our own weights and its checksum
AVERAGE = "average/"  # the prefix of the moving average's arrays in a checkpoint
MODEL_HINT = (
    "Did the training use other MODEL.* settings? Its config.yaml, next to the weights, lists them."
)


@dataclasses.dataclass(frozen=True)
class SavedWeights:
    """The arrays of one network, as a file holds them.

    Args:
        source: The path or URL as the user wrote it.
        where: The setting and the file, for messages.
        sha256: The SHA-256 of the file.
        arrays: The arrays by name. Whether they fit a network is not known yet. None for an
            exported program, which holds its own network.
        notes: What the file says about its training; None for files of others and old files.
    """

    source: str
    where: str
    sha256: str
    arrays: Optional[Dict[str, Any]]
    notes: Optional[Notes]

    @property
    def classes(self) -> Sequence[str]:
        """The names of the training's classes by number; empty if they are not known."""
        return () if self.notes is None else self.notes.classes

    def load_into(self, network: nn.Layer, hint: str = MODEL_HINT) -> None:
        """Loads all weights and buffers of a network, or changes nothing; see `load_weights`."""
        network.set_state_dict(match_weights(network, self.arrays, self.where, hint))


def save_weights(network: nn.Layer, path: str, notes: Optional[Notes] = None) -> None:
    """Writes the weights and buffers of a network as `.pdparams`, completely or not at all.

    Notes on the training and a SHA-256 follow the pickle; `paddle.load` ignores them.
    """
    buffer = io.BytesIO()
    paddle.save(network.state_dict(), buffer)
    content = buffer.getvalue()
    if notes is not None:
        content += weight_notes.MARK + weight_notes.to_json(notes)
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

    Args:
        network: The network to load into.
        source: See `read_weights`, which has the other arguments, too.
        setting: The configuration key that names the source, for messages.
        role: Which network of a checkpoint to load.
        sha256: The SHA-256 that the file must have.

    Returns:
        The SHA-256 of the file.

    Raises:
        UserError: If the file is absent or damaged, has another SHA-256, or does not fit the
            network. The message lists missing and unexpected arrays, and arrays of another shape.
    """
    saved = read_weights(source, setting, role, sha256)
    saved.load_into(network)
    return saved.sha256


def read_weights(
    source: str,
    setting: str,
    role: Optional[str] = None,
    sha256: Optional[str] = None,
    script: Optional[str] = None,
) -> SavedWeights:
    """Reads the weights of a network.

    From a checkpoint, a generator gets its moving average if the checkpoint has one. A generator's
    `.pdparams` is read as it is, and the log names the moving average next to it.

    Args:
        source: Where the weights are; see `weight_paths.weights_path`. With `script`, also the
            name of weights that ship.
        setting: The configuration key that names the source, for messages.
        role: Which network of a checkpoint to read: the prefix of its arrays, such as "generator".
        sha256: The SHA-256 that the file must have, in hexadecimal; None for any.
        script: The script that asks; None if names are not accepted.

    Raises:
        UserError: If the file is absent or damaged, or has another SHA-256, or the name is unknown
            or of another script.
    """
    shipped = None if script is None else shipped_weights.find(source, script, setting, role)
    path = weights_path(source, setting, role) if shipped is None else shipped.path
    where = f"{setting}: {printable(path)}"
    if is_url(source):
        where += f" (downloaded from {printable(source)}; move it away, and it is downloaded again)"
    if shipped is not None:
        _check_sha256(path, where, shipped.sha256, shipped_weights.TABLE)
    digest = _check_sha256(path, where, sha256, setting.replace("_model_path", "_sha256"))
    if path.endswith(".npz"):
        return SavedWeights(source, where, digest, *_read_checkpoint(path, where, role))
    arrays, notes = _read_pdparams(path, where)
    average = osp.join(osp.dirname(path), "model_average_generator.pdparams")
    if osp.basename(path) == "model_generator.pdparams" and osp.isfile(average):
        logger.info(
            f"{where}: {printable(average)} is the moving average that its training evaluated."
        )
    return SavedWeights(source, where, digest, arrays, notes)


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


def _read_checkpoint(
    path: str, where: str, role: Optional[str]
) -> Tuple[Dict[str, np.ndarray], Optional[Notes]]:
    """Reads the arrays of one network of a checkpoint, and what it says about the training."""
    arrays = read_npz(path)
    try:
        text = arrays.pop("contents", np.empty(0)).tobytes()
        notes = weight_notes.read(json.loads(text)) if text else None
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{where} is not a checkpoint of this suite ({printable(error)})."
        ) from None
    prefix = f"{role}/"
    # A training with a moving average evaluates the average.
    if role == "generator" and any(name.startswith(AVERAGE) for name in arrays):
        prefix = AVERAGE
        logger.info(f"{where}: loading the moving average of the generator.")
    start = len(prefix)
    return {name[start:]: part for name, part in arrays.items() if name.startswith(prefix)}, notes


def _read_pdparams(path: str, where: str) -> Tuple[Dict[str, Any], Optional[Notes]]:
    """Reads the arrays and the notes of a file that `save_weights` or `paddle.save` wrote."""
    try:
        content = archives.read_file(path)
    except OSError as error:
        raise UserError(f"{where} can't be read ({printable(error)}).") from None
    notes = None
    body, mark, checksum = content.rpartition(CHECKSUM_MARK)
    if mark and len(checksum) == DIGEST_BYTES:  # files of paddle.save have no checksum
        if hashlib.sha256(body).hexdigest().encode() != checksum:
            raise UserError(f"{where} is damaged: its checksum does not match its content.")
        content, notes = weight_notes.split(body, where)
    foreign = formats.find_foreign(content[: formats.START])
    require(not foreign, f"{where} does not hold weights: it is {foreign}.")
    state = unpickle(content, where)
    if not isinstance(state, dict):
        raise UserError(
            f"{where}: expected a dictionary of arrays, found a {type(state).__name__}."
        )
    if not all(isinstance(name, (str, bytes)) for name in state):
        raise UserError(f"{where}: expected a dictionary of arrays by name.")
    state = {as_text(name): value for name, value in state.items()}
    state.pop("StructuredToParameterName@@", None)  # paddle.save adds a table of internal names
    return state, notes


def match_weights(
    network: nn.Layer, state: Dict[str, Any], where: str, hint: str = MODEL_HINT
) -> Dict[str, np.ndarray]:
    """Converts arrays to the precision of a network, and requires that they fit it exactly.

    Args:
        network: The network.
        state: The arrays offered, by name.
        where: Where the arrays are from, for the message.
        hint: What the user can do, for the message.

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
    require_fit(own, state, type(network).__name__, where, hint)
    return state


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
    found = [
        f"{kind}: {list_some([*map(printable, names)], 4)}"
        for kind, names in problems.items()
        if names
    ]
    if found:
        raise UserError(
            f"{where} does not fit {network}, and was not loaded. {'; '.join(found)}. {hint}"
        )


def _has_floats(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"
