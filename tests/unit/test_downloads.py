# SPDX-License-Identifier: Apache-2.0
"""Downloads: https only, verified, limited in size, and either whole or absent."""

import functools
import gzip
import hashlib
import http.server
import re
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

import functions
from support import downloads
from support import storage
from support import weight_files
from support.errors import UserError

CONTENT = b"some data" * 10000
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER_CONTENT = gzip.compress(CONTENT)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers a request with the method that its path names, or with weights."""

    def do_GET(self):
        page = re.split("[/.?]", self.path)[1]
        getattr(self, page, self.weights)()

    def missing(self):
        self.send_error(404)

    def insecure(self):
        self.redirect("http://example.invalid/whole")

    def moved(self):
        self.redirect("/whole")

    def redirect(self, address):
        self.send_response(302)
        self.send_header("Location", address)
        self.end_headers()

    def whole(self):
        self.send(CONTENT, **{"Content-Length": len(CONTENT)})

    def broken(self):
        self.send(CONTENT[:100], **{"Content-Length": len(CONTENT)})

    def unsized(self):
        self.send(CONTENT)

    def encoded(self):
        size = len(OTHER_CONTENT)
        self.send(OTHER_CONTENT, **{"Content-Length": size, "Content-Encoding": "gzip"})

    def silent(self):
        self.send(CONTENT[:100], **{"Content-Length": len(CONTENT)})
        self.wfile.flush()
        self.server.released.wait()

    def weights(self):
        self.send(self.server.weights, **{"Content-Length": len(self.server.weights)})

    def send(self, content, **headers):
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A local server; `downloads` accepts its addresses in addition to those of https."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.released, server.weights = threading.Event(), b""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(downloads, "SECURE", ("https://", server.address))
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def test_fetch_downloads_an_absent_file_and_keeps_one_that_exists(tmp_path, server):
    path = tmp_path / "set.bin"
    addresses = [f"{server.address}/missing", f"{server.address}/whole"]
    assert downloads.fetch(str(path), addresses, MD5, "none.") == str(path)
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # others may read a shared cache
    path.write_bytes(b"own data in the same layout")
    assert downloads.fetch(str(path), [addresses[0]], MD5, "none.") == str(path)
    assert path.read_bytes() == b"own data in the same layout"


@pytest.mark.parametrize("page", ["whole", "moved", "unsized"])
@pytest.mark.parametrize("checksum", [None, MD5, SHA256])
def test_download_follows_secure_redirects_and_needs_no_length(tmp_path, server, page, checksum):
    path = tmp_path / "folder" / "set.bin"
    downloads.download(f"{server.address}/{page}", str(path), checksum)
    assert path.read_bytes() == CONTENT


def test_download_writes_what_the_server_sends_without_unpacking_it(tmp_path, server):
    path, checksum = tmp_path / "set.gz", hashlib.md5(OTHER_CONTENT).hexdigest()
    downloads.download(f"{server.address}/encoded", str(path), checksum)
    assert path.read_bytes() == OTHER_CONTENT


@pytest.mark.parametrize(
    ("page", "checksum", "reason"),
    [
        ("missing", MD5, "404"),
        ("broken", MD5, "100 of 90000 bytes|IncompleteRead"),
        ("whole", "0" * 32, f"MD5.*expected md5:{'0' * 32} but got {MD5}"),
        ("whole", "0" * 64, f"SHA256.*expected sha256:{'0' * 64} but got {SHA256}"),
        ("insecure", MD5, "http://example.invalid/whole does not begin with https://"),
        ("silent", MD5, "timed out"),
    ],
)
def test_fetch_leaves_nothing_of_a_failed_download_and_says_what_to_do(
    tmp_path, server, monkeypatch, page, checksum, reason
):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.5)
    path = tmp_path / "set.bin"
    address = f"{server.address}/{page}"
    with pytest.raises(UserError, match=reason) as error:
        downloads.fetch(str(path), [address], checksum, "DATA.source=other works.")
    for part in (str(path), address, "put it at", "DATA.data_path=", "DATA.source=other"):
        assert part in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("page", ["missing", "broken", "insecure"])
def test_download_without_a_checksum_leaves_nothing_if_it_fails(tmp_path, server, page):
    with pytest.raises(OSError, match="404|IncompleteRead|does not begin with https://"):
        downloads.download(f"{server.address}/{page}", str(tmp_path / "set.bin"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("has_bar", [True, False])  # TQDM_DISABLE=1 turns the bar off
@pytest.mark.parametrize("page", ["whole", "unsized"])
def test_download_refuses_files_that_are_too_large(tmp_path, server, monkeypatch, page, has_bar):
    path = tmp_path / "set.bin"
    monkeypatch.setattr(downloads, "tqdm", functools.partial(downloads.tqdm, disable=not has_bar))
    monkeypatch.setattr(downloads, "MAX_BYTES", len(CONTENT))
    downloads.download(f"{server.address}/{page}", str(path))
    path.unlink()
    monkeypatch.setattr(downloads, "MAX_BYTES", len(CONTENT) - 1)
    with pytest.raises(OSError, match="larger than 1 GiB"):
        downloads.download(f"{server.address}/{page}", str(path))
    assert list(tmp_path.iterdir()) == []


def test_download_names_a_server_that_refuses_connections(tmp_path, server):
    server.shutdown()
    server.server_close()
    with pytest.raises(OSError, match=r"^\[Errno \d+\] Connection refused$"):
        downloads.download(f"{server.address}/whole", str(tmp_path / "set.bin"))
    assert list(tmp_path.iterdir()) == []


def test_download_names_a_folder_that_cannot_be_created(tmp_path, server):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))):
        downloads.download(f"{server.address}/whole", str(tmp_path / "file" / "set.bin"))


@pytest.mark.parametrize(
    ("address", "part"),
    [
        *(("https://", "No host"), ("https://a b/", "a b")),
        *((x, "does not begin with https://") for x in ("ftp://a/b", "file:///etc/hosts")),
    ],
)
def test_download_refuses_invalid_addresses(tmp_path, address, part):
    with pytest.raises(OSError, match=part):
        downloads.download(address, str(tmp_path / "set.bin"))
    assert list(tmp_path.iterdir()) == []


def test_download_shows_its_progress(tmp_path, server, monkeypatch):
    bars = []

    class Bar(downloads.tqdm):
        def __init__(self, **options):
            super().__init__(**{**options, "delay": 0, "mininterval": 0})
            bars.append(self)

    monkeypatch.setattr(downloads, "tqdm", Bar)
    downloads.download(f"{server.address}/whole", str(tmp_path / "set.bin"))
    assert [(bar.desc, bar.n, bar.total) for bar in bars] == [("set.bin", 90000, 90000)]


def test_only_https_is_accepted(tmp_path):
    message = "http://127.0.0.1:9/a.gz does not begin with https://"
    with pytest.raises(UserError, match=message):
        downloads.fetch(str(tmp_path / "a.gz"), ["http://127.0.0.1:9/a.gz"], MD5, "none.")
    with pytest.raises(UserError, match="does not begin with https://"):
        weight_files.load_weights(functions.WganGpToyGenerator(4), "http://127.0.0.1:9/g", "EVAL.x")


def test_fetch_does_not_create_the_folder_of_a_misspelt_path(tmp_path, server):
    address = f"{server.address}/whole"
    with pytest.raises(UserError, match="neither this file nor its folder exists"):
        downloads.fetch(str(tmp_path / "nowhere" / "set.bin"), [address], MD5, "none.")
    with pytest.raises(UserError, match="is a folder"):
        downloads.fetch(str(tmp_path), [address], MD5, "none.")
    assert list(tmp_path.iterdir()) == []


def test_fetch_creates_a_folder_in_the_cache(tmp_path, server, monkeypatch):
    monkeypatch.setattr(storage, "CACHE", str(tmp_path / "cache"))
    path = tmp_path / "cache" / "datasets" / "set.bin"
    downloads.fetch(str(path), [f"{server.address}/whole"], MD5, "none.")
    assert path.read_bytes() == CONTENT


def first_weight(network):
    return network.state_dict()["layers.0.weight"].numpy().copy()


def test_the_folder_of_downloads_is_made_wherever_the_home_is(server, tmp_path, monkeypatch):
    """A home need not be written as Python writes it, as with Windows' separators."""
    monkeypatch.setattr(storage, "CACHE", f"{tmp_path}/a/../cache")
    path = downloads.fetch(f"{tmp_path}/cache/x", [f"{server.address}/g"], None, "", "DATA.x")
    assert Path(path).read_bytes() == server.weights


def test_weights_from_a_url_are_cached_by_address(tmp_path, server, monkeypatch):
    monkeypatch.setattr(storage, "CACHE", str(tmp_path / "cache"))
    network, other = (functions.WganGpToyGenerator(4) for _ in range(2))
    weight_files.save_weights(network, str(tmp_path / "g.pdparams"))
    server.weights = (tmp_path / "g.pdparams").read_bytes()
    weight_files.load_weights(other, f"{server.address}/g", "EVAL.x")
    np.testing.assert_array_equal(first_weight(other), first_weight(network))
    (cached,) = (tmp_path / "cache" / "weights" / "wgangp").iterdir()
    assert cached.read_bytes() == server.weights
    # The cached file is used again, and a file of the same name at another address is not.
    server.weights = b""
    weight_files.load_weights(other, f"{server.address}/g.pdparams", "EVAL.x")
    with pytest.raises(UserError, match="does not hold weights: it is an empty file") as error:
        weight_files.load_weights(other, f"{server.address}/other/g.pdparams", "EVAL.x")
    assert f"{server.address}/other/g.pdparams; move it away" in str(error.value)
    server.weights = (tmp_path / "g.pdparams").read_bytes()
    weight_files.load_weights(other, f"{server.address}/g?download=true", "EVAL.x")
    with pytest.raises(UserError, match="EVAL.x: .*could not be downloaded"):
        weight_files.load_weights(other, f"{server.address}/missing", "EVAL.x")
