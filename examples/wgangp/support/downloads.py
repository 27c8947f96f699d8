# SPDX-License-Identifier: Apache-2.0
"""Downloads over https: verified, limited in size, and either whole or absent."""

from __future__ import annotations

import os
import sys
import urllib.parse
from os import path as osp
from typing import BinaryIO
from typing import Optional
from typing import Sequence

import pooch
import urllib3
from ppsci.utils import logger
from tqdm import tqdm

from support import storage
from support.archives import MAX_BYTES
from support.errors import UserError
from support.errors import printable

SECURE = ("https://",)  # prefixes of the addresses that downloads are accepted from
TIMEOUT = 30  # seconds to wait for a connection, and for the next bytes
CHUNK = 1 << 16  # bytes

pooch.get_logger().setLevel("WARNING")  # `fetch` logs the downloads


def fetch(
    path: str,
    addresses: Sequence[str],
    checksum: str,
    other_ways: str,
    setting: str = "DATA.data_path",
    folder: bool = False,
) -> str:
    """Returns the path of a published file, and downloads the file if it is absent.

    A file that exists is used as it is, so that a user's own data in the same layout work too.

    Args:
        path: Where the file is, or where to put it; `~` is the home folder.
        addresses: URLs of the file, tried in turn.
        checksum: MD5 or SHA-256 of the download, in hexadecimal.
        other_ways: What a user without a network can do, for the message.
        setting: The configuration key that names the path, for messages.
        folder: Whether a folder may be in the file's place.

    Returns:
        The path, absolute.

    Raises:
        UserError: If the file is absent and cannot be downloaded. The message names the file, the
            addresses, and what the user can do.
    """
    path = osp.abspath(osp.expanduser(path))
    if osp.isfile(path) or (folder and osp.isdir(path)):
        return path
    if osp.isdir(path):
        raise UserError(f"{setting}={printable(path)} is a folder; name the file in it.")
    if osp.lexists(path):
        raise UserError(f"{setting}={printable(path)} is a link to nothing, or not a regular file.")
    ways = (
        f"Download the file elsewhere and put it at {printable(path)}, or name its path with "
        f"{setting}=PATH. Without the file: {other_ways}"
    )
    in_cache = path.startswith(osp.join(osp.abspath(osp.expanduser(storage.CACHE)), ""))
    if not osp.isdir(osp.dirname(path)) and not in_cache:
        raise UserError(
            f"{setting}={printable(path)}: neither this file nor its folder exists. Is this a "
            f"typo? If the folder exists, {addresses[0]} is downloaded into it. {ways}"
        )
    reasons = []
    for address in addresses:
        logger.info(f"{printable(path)} is absent: downloading {address}")
        try:
            download(address, path, checksum)
            return path
        except OSError as error:
            reasons.append(f"{address} ({printable(error, 500)})")
    raise UserError(
        f"{printable(path)} is absent and could not be downloaded from {'; '.join(reasons)}. {ways}"
    )


def download(address: str, path: str, checksum: Optional[str] = None) -> None:
    """Downloads a file; afterwards, and after any interruption, `path` is either absent or whole.

    pooch downloads to a temporary file in the same folder, compares the checksum, and renames.

    Args:
        address: A URL that begins with https://.
        path: Where to put the file, absolute; its folder is created if it is absent.
        checksum: MD5 or SHA-256 of the file in hexadecimal, if known.

    Raises:
        OSError: If the file cannot be downloaded, does not match the checksum, or is larger than
            `MAX_BYTES`.
    """
    known_hash = checksum
    if checksum is not None:
        known_hash = f"{'md5' if len(checksum) == 32 else 'sha256'}:{checksum}"
    folder, name = osp.split(path)
    try:
        pooch.retrieve(address, known_hash, name, folder, downloader=_Downloader(name))
    except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
        raise OSError(_root_cause(error)) from None


class _Downloader:
    """A downloader for pooch: https only, at most `MAX_BYTES`, and with a progress bar.

    pooch's own bar takes no name, and fills a log with lines if stderr is not a terminal.

    Args:
        name: The name of the file, for the bar.
    """

    def __init__(self, name: str):
        self.name = name

    def __call__(self, address: str, temporary: str, _: Optional[pooch.Pooch]) -> None:
        _require_secure(address)
        bar = tqdm(
            unit="B",
            unit_scale=True,
            desc=self.name,
            delay=1,  # seconds; a download that fails at once shows no bar
            mininterval=0.5 if sys.stderr.isatty() else 10,
        )

        def check_response(response, **_):
            """Checks a response before requests follows its redirect or reads its content."""
            _require_secure(response.url)
            if response.is_redirect:
                _require_secure(urllib.parse.urljoin(response.url, response.headers["Location"]))
            bar.total = int(response.headers.get("Content-Length") or 0) or None
            # Some servers declare .gz files as an encoding of their content: do not unpack them.
            response.raw.headers.pop("Content-Encoding", None)
            # urllib3 before 2.0 would accept a broken connection.
            response.raw.enforce_content_length = True

        get = pooch.HTTPDownloader(
            chunk_size=CHUNK,
            timeout=TIMEOUT,
            headers={"Accept-Encoding": "identity"},
            hooks={"response": check_response},
        )
        with bar, open(temporary, "wb") as file:
            get(address, _LimitedFile(file, bar), None)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # pooch creates it for its owner alone


class _LimitedFile:
    """A file to write that takes at most `MAX_BYTES`, and shows its size in a progress bar."""

    def __init__(self, file: BinaryIO, bar: tqdm):
        self.file, self.bar, self.size = file, bar, 0

    def write(self, block: bytes) -> None:
        self.size += len(block)
        if self.size > MAX_BYTES:
            raise OSError("it is larger than 1 GiB")
        self.file.write(block)
        self.bar.update(len(block))

    def flush(self) -> None:
        """Does nothing: pooch flushes after each block, and `_Downloader` at the end."""


def _require_secure(address: str) -> None:
    if not address.startswith(SECURE):
        raise OSError(
            f"{printable(address)} does not begin with https://; other addresses are not "
            "downloaded from"
        )


def _root_cause(error: BaseException) -> str:
    """Returns the message of the first error in a chain: requests' own are long and nested."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return str(error) or type(error).__name__
