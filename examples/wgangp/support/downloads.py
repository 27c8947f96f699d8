# SPDX-License-Identifier: Apache-2.0
"""Downloads that are checked, and whole or absent."""

from __future__ import annotations

import hashlib
import http.client
import sys
import urllib.parse
import urllib.request
from os import path as osp
from typing import Optional
from typing import Sequence

from ppsci.utils import logger
from tqdm import tqdm

from support.archives import LARGEST
from support.errors import UserError
from support.storage import CACHE
from support.storage import replacing

SECURE = ("https://",)  # how addresses begin from which downloads are taken
TIMEOUT = 30  # seconds without a byte


def fetch(
    path: str,
    addresses: Sequence[str],
    checksum: str,
    other_ways: str,
    setting: str = "DATA.data_path",
) -> str:
    """A file that is published: the one at `path`, downloaded to there where it is absent.

    A file that is there is taken as it is, so that own data in the same layout serves too.

    Args:
        path: Where the file is, or is to be; `~` is the home folder.
        addresses: Where it can be had, tried in turn.
        checksum: MD5 or SHA-256 of a download.
        other_ways: What a user without a network can do, for the message.
        setting: The configuration key that names the path, for messages.

    Returns:
        The path, absolute.

    Raises:
        UserError: If it is neither there nor to be had; names file, address and ways out.
    """
    path = osp.abspath(osp.expanduser(path))
    if osp.isfile(path):
        return path
    if osp.isdir(path):
        raise UserError(f"{setting}={path} is a folder; name the file in it.")
    ways = (
        f"Download it elsewhere and put it at {path}, or name its place by "
        f"{setting}=PATH. Without it: {other_ways}"
    )
    in_cache = path.startswith(osp.join(osp.expanduser(CACHE), ""))
    if not osp.isdir(osp.dirname(path)) and not in_cache:
        raise UserError(
            f"{setting}={path}: neither this file nor its folder is there; is it a slip? "
            f"In a folder that exists, it would be downloaded from {addresses[0]}. {ways}"
        )
    reasons = []
    for address in addresses:
        logger.info(f"{path} is absent: downloading {address}")
        try:
            download(address, path, checksum)
            return path
        except OSError as error:
            reasons.append(f"{address} ({error})")
    raise UserError(
        f"{path} is absent and could not be downloaded from {'; '.join(reasons)}. {ways}"
    )


def _require_secure(address: str) -> None:
    if not address.startswith(SECURE):
        raise OSError(f"{address} is not an address by https, and only those are taken")


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request, response, code, message, headers, address):
        _require_secure(address)
        return super().redirect_request(request, response, code, message, headers, address)


def download(address: str, path: str, checksum: Optional[str] = None) -> None:
    """Downloads to a temporary file beside `path`, checks it, then renames it.

    Whatever interrupts it, `path` is either absent or whole.

    Args:
        address: A URL.
        path: Where the file is to be.
        checksum: Its MD5 or SHA-256 in hexadecimal, if known.

    Raises:
        OSError: If it can't be had, or is not what the checksum says.
    """
    kind = "md5" if checksum is not None and len(checksum) == 32 else "sha256"
    digest = hashlib.new(kind)
    _require_secure(address)
    opener = urllib.request.build_opener(_SecureRedirects)
    try:
        with (
            replacing(path) as file,
            opener.open(address, timeout=TIMEOUT) as response,
            tqdm(
                total=int(response.headers.get("Content-Length") or 0) or None,
                unit="B",
                unit_scale=True,
                desc=osp.basename(path),
                mininterval=0.5 if sys.stderr.isatty() else 10,
            ) as bar,
        ):
            expected = response.headers.get("Content-Length")
            for block in iter(lambda: response.read(1 << 16), b""):
                file.write(block)
                digest.update(block)
                bar.update(len(block))
                if bar.n > LARGEST:
                    raise OSError("it is larger than 1 GiB")
            if expected is not None and bar.n != int(expected):
                raise OSError(f"the connection broke after {bar.n} of {expected} bytes")
            if checksum is not None and digest.hexdigest() != checksum:
                raise OSError(f"its {kind.upper()} is {digest.hexdigest()}, expected {checksum}")
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(str(error)) from None
