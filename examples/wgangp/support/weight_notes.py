# SPDX-License-Identifier: Apache-2.0
"""Notes on a training that its weights keep: settings, data and classes."""

from __future__ import annotations

import dataclasses
import json
from typing import Any
from typing import Mapping
from typing import Optional
from typing import Sequence
from typing import Tuple

from support.errors import UserError
from support.errors import printable
from support.settings import RENAMED
from support.settings import flatten

MARK = b"#NOTES:"  # stands between the pickle of weights and their notes
FORMAT = 1
# Settings that weights do not keep: neither networks nor evaluations depend on them.
HARMLESS_KEYS = (
    *("DATA.on_error", "DATA.max_pixels", "DATA.max_unpacked"),
    *("DATA.flip", "DATA.jitter", "MODEL.gen_net.batch_norm_groups"),
)
# Settings that weights keep, but that a user may choose otherwise for an evaluation.
FREE_KEYS = (
    *("DATA.data_path", "DATA.class_level", "DATA.label_distribution"),
    "MODEL.gen_net.batch_norm_statistics",
)


@dataclasses.dataclass(frozen=True)
class Notes:
    """What weights keep of their training.

    Args:
        settings: Settings of the sections MODEL and DATA that matter, by full key.
        data: Text that sets the data set apart from others.
        classes: The names of the classes by number; empty if they have none.
    """

    settings: Mapping[str, Any]
    data: str
    classes: Sequence[str]

    @classmethod
    def of(cls, whole: Mapping[str, Any], data: str, classes: Sequence[str]) -> Notes:
        """Makes the notes of a training.

        Args:
            whole: All of its settings, nested.
            data: See `Notes`.
            classes: See `Notes`.
        """
        settings = {RENAMED.get(key, key): value for key, value in flatten(whole).items()}
        kept = {
            key: value
            for key, value in settings.items()
            if key.startswith(("MODEL.", "DATA.")) and key not in HARMLESS_KEYS
        }
        return cls(kept, data, tuple(classes))


def to_json(notes: Notes) -> bytes:
    """Writes notes as a line of JSON."""
    text = json.dumps({"format": FORMAT, **dataclasses.asdict(notes)}, allow_nan=False)
    return text.replace("#", "\\u0023").encode()  # so that `MARK` can't be in it


def from_json(text: bytes, where: str) -> Notes:
    """Reads what `to_json` wrote.

    Args:
        text: The notes.
        where: The file that holds them, for the message.

    Raises:
        UserError: If they are damaged, or those of a later version.
    """
    try:
        values = json.loads(text)
        if not isinstance(values, dict) or type(values.get("format")) is not int:
            raise ValueError("they have no format")
        if values["format"] > FORMAT:
            raise ValueError(f"their format is {values['format']}, and this version knows {FORMAT}")
        return read(values)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where}: the notes on its training can't be read ({printable(error)}). Copy the file "
            "again, or use the version of the suite that wrote it."
        ) from None


def split(content: bytes, where: str) -> Tuple[bytes, Optional[Notes]]:
    """Separates the notes at the end of a file of weights.

    Args:
        content: The content of the file without its checksum.
        where: The file, for the message.

    Returns:
        The bytes before the notes, and the notes; None in files of earlier versions.
    """
    body, mark, text = content.rpartition(MARK)
    return (body, from_json(text, where)) if mark else (content, None)


def read(values: Mapping[str, Any]) -> Notes:
    """Makes notes of what a file says about its training; settings may be nested.

    Raises:
        ValueError: If a part is absent or of another kind.
    """
    settings, data, classes = (values.get(key) for key in ("settings", "data", "classes"))
    if not isinstance(settings, dict) or not isinstance(data, str):
        raise ValueError("settings or data are absent")
    if classes is None:
        classes = []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes are not a list of names")
    notes = Notes.of(settings, data, classes)
    for key, value in notes.settings.items():
        if not isinstance(value, (bool, int, float, str, type(None))):
            raise ValueError(f"{printable(key)} is a {type(value).__name__}")
    return notes
