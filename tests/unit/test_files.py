# SPDX-License-Identifier: Apache-2.0
"""Downloads and weights: whole or absent, and nothing that does not fit."""

import hashlib
import http.server
import pickle
import threading
import zipfile

import numpy as np
import paddle
import pytest

import functions
from support import downloads
from support import npz
from support import storage
from support import torch_files
from support import weight_files
from support.errors import UserError
from support.unpickling import unpickle

CONTENT = b"some data" * 10000


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "http://example.invalid/whole")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:100] if self.path == "/broken" else CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(downloads, "SECURE", ("https://", address))
    yield address
    server.shutdown()
    server.server_close()


MD5 = hashlib.md5(CONTENT).hexdigest()


def test_an_absent_file_is_downloaded_and_then_kept(tmp_path, server):
    path = tmp_path / "set.bin"
    addresses = [f"{server}/missing", f"{server}/whole"]
    assert downloads.fetch(str(path), addresses, MD5, "none.") == str(path)
    assert path.read_bytes() == CONTENT
    path.write_bytes(b"own data in the same layout")
    assert downloads.fetch(str(path), [f"{server}/missing"], MD5, "none.") == str(path)
    assert path.read_bytes() == b"own data in the same layout"


@pytest.mark.parametrize(
    ("page", "md5", "reason"),
    [
        ("missing", MD5, "404"),
        ("broken", MD5, "100 of 90000 bytes|IncompleteRead"),
        ("whole", "0" * 32, "MD5"),
        ("elsewhere", MD5, "http://example.invalid/whole is not an address by https"),
    ],
)
def test_a_failed_download_leaves_nothing_and_names_the_ways_out(
    tmp_path, server, page, md5, reason
):
    path = tmp_path / "set.bin"
    with pytest.raises(UserError, match=reason) as error:
        downloads.fetch(str(path), [f"{server}/{page}"], md5, "DATA.source=other works.")
    for part in (
        str(path),
        f"{server}/{page}",
        "put it at",
        "DATA.data_path=",
        "DATA.source=other",
    ):
        assert part in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_only_https_is_taken(tmp_path):
    with pytest.raises(UserError, match="http://127.0.0.1:9/a.gz is not an address by https"):
        downloads.fetch(str(tmp_path / "a.gz"), ["http://127.0.0.1:9/a.gz"], MD5, "none.")
    with pytest.raises(UserError, match="not an address by https"):
        weight_files.load_weights(functions.WganGpToyGenerator(4), "http://127.0.0.1:9/g", "EVAL.x")


def test_a_slip_in_the_path_is_not_downloaded_to(tmp_path, server):
    with pytest.raises(UserError, match="neither this file nor its folder"):
        downloads.fetch(str(tmp_path / "nowhere" / "set.bin"), [f"{server}/whole"], MD5, "none.")
    with pytest.raises(UserError, match="is a folder"):
        downloads.fetch(str(tmp_path), [f"{server}/whole"], MD5, "none.")


def save(network, path):
    paddle.save(network.state_dict(), str(path))
    return str(path)


def state(network):
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("suffix", ["", ".pdparams"])
def test_weights_come_back_with_or_without_the_suffix(tmp_path, suffix):
    saved, loaded = (functions.WganGpCifar10Generator(4) for _ in range(2))
    save(saved, tmp_path / "g.pdparams")
    weight_files.load_weights(loaded, f"{tmp_path}/g{suffix}", "EVAL.x")
    for name, value in state(saved).items():
        np.testing.assert_array_equal(state(loaded)[name], value)


def test_compressed_parts_are_refused(tmp_path):
    """Which can unpack to anything, whatever size they declare."""
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x/data.pkl", b"N.")
    with pytest.raises(UserError, match="it is compressed"):
        torch_files.read_pth(str(path))
    with pytest.raises(UserError, match="not intact"):
        npz.read_npz(str(path))


def test_keys_that_are_no_names_are_refused(tmp_path):
    path = tmp_path / "g.pdparams"
    path.write_bytes(pickle.dumps({1: np.zeros(3)}))
    with pytest.raises(UserError, match="arrays by name"):
        weight_files.load_weights(functions.WganGpToyGenerator(4), str(path), "EVAL.x")


def test_our_own_weights_carry_a_checksum(tmp_path):
    network, other = (functions.WganGpToyGenerator(4) for _ in range(2))
    path = tmp_path / "g.pdparams"
    weight_files.save_weights(network, str(path))
    content = path.read_bytes()
    # Paddle reads them, too
    for name, value in paddle.load(str(path), return_numpy=True).items():
        np.testing.assert_array_equal(value, state(network)[name])
    # a number in the middle of the first weight
    place = content.index(state(network)["layers.0.weight"].tobytes()) + 9
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    before = state(other)
    with pytest.raises(UserError, match="damaged: its checksum does not match"):
        weight_files.load_weights(other, str(path), "EVAL.x")
    for name, value in before.items():
        np.testing.assert_array_equal(state(other)[name], value)
    path.write_bytes(content)
    weight_files.load_weights(other, str(path), "EVAL.x")


def test_weights_from_a_url_are_cached_by_address(tmp_path, server, monkeypatch):
    network = functions.WganGpToyGenerator(4)
    save(network, tmp_path / "g.pdparams")
    monkeypatch.setattr(storage, "CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(globals(), "CONTENT", (tmp_path / "g.pdparams").read_bytes())
    other = functions.WganGpToyGenerator(4)
    weight_files.load_weights(other, f"{server}/g", "EVAL.x")
    np.testing.assert_array_equal(
        state(other)["layers.0.weight"], state(network)["layers.0.weight"]
    )
    monkeypatch.setitem(globals(), "CONTENT", b"")
    weight_files.load_weights(other, f"{server}/g.pdparams", "EVAL.x")
    with pytest.raises(UserError, match="is not a pickle") as error:
        weight_files.load_weights(other, f"{server}/other/g.pdparams", "EVAL.x")
    assert f"{server}/other/g.pdparams; remove it" in str(error.value)
    monkeypatch.setitem(globals(), "CONTENT", (tmp_path / "g.pdparams").read_bytes())
    weight_files.load_weights(other, f"{server}/g?download=true", "EVAL.x")
    with pytest.raises(UserError, match="EVAL.x: .*could not be downloaded"):
        weight_files.load_weights(other, f"{server}/missing", "EVAL.x")


def test_weights_that_do_not_fit_are_refused_and_nothing_is_loaded(tmp_path):
    network = functions.WganGpToyGenerator(4)
    before = state(network)
    arrays = {**before, "extra": np.zeros(1)}
    del arrays["layers.2.bias"]
    arrays["layers.0.weight"] = np.zeros((2, 5), "float32")
    arrays["layers.4.bias"] = np.full(4, np.nan, "float32")
    arrays["layers.6.bias"] = np.full(2, 1e300)
    path = tmp_path / "g.pdparams"
    path.write_bytes(pickle.dumps(arrays))
    with pytest.raises(UserError) as error:
        weight_files.load_weights(network, str(path), "EVAL.pretrained_gen_model_path")
    for part in (
        "EVAL.pretrained_gen_model_path",
        "does not fit WganGpToyGenerator",
        "missing: layers.2.bias",
        "unexpected: extra",
        "layers.0.weight [2, 5] where [2, 4] is expected",
        "not finite: layers.4.bias, layers.6.bias",
    ):
        assert part in str(error.value)
    for name, value in before.items():
        np.testing.assert_array_equal(state(network)[name], value)


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (self.mark, "w")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda mark: pickle.dumps({"a": Hostile(mark)}), "it names .*open"),
        (lambda mark: pickle.dumps([1, 2]), "expected a dictionary"),
        (lambda mark: pickle.dumps({"layers.0.weight": "text"}), "not arrays of .*layers.0"),
        (lambda mark: pickle.dumps({"layers.0.weight": [1, [2]]}), "not arrays of .*layers.0"),
        (lambda mark: b"", "is not a pickle"),
        # the place 10^9 of the memo would take 16 GB
        (lambda mark: b"\x80\x02Nr" + (10**9).to_bytes(4, "little") + b".", "counts more parts"),
    ],
)
def test_files_that_are_no_weights_are_refused(tmp_path, content, message):
    mark, path = tmp_path / "mark", tmp_path / "g.pdparams"
    path.write_bytes(content(str(mark)))
    with pytest.raises(UserError, match=message):
        weight_files.load_weights(functions.WganGpToyGenerator(4), str(path), "EVAL.x")
    assert not mark.exists()


def test_a_pickle_that_shares_its_parts_is_read_in_its_own_size():
    shared = []
    for _ in range(60):
        shared = [shared, shared]
    content = pickle.dumps(shared)
    assert len(content) < 1000
    assert len(unpickle(content, "here")) == 2


def test_double_precision_weights_are_taken(tmp_path):
    network = functions.WganGpToyGenerator(4)
    arrays = {name: value.astype("float64") + 1 for name, value in state(network).items()}
    (tmp_path / "g.pdparams").write_bytes(pickle.dumps(arrays))
    weight_files.load_weights(network, str(tmp_path / "g"), "EVAL.x")
    for name, value in arrays.items():
        np.testing.assert_allclose(state(network)[name], value, rtol=1e-6)


def test_absent_weights_are_named(tmp_path):
    with pytest.raises(UserError, match="EVAL.x: there is no file .*g.pdparams"):
        weight_files.load_weights(functions.WganGpToyGenerator(4), str(tmp_path / "g"), "EVAL.x")


def test_weights_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    network = functions.WganGpToyGenerator(4)
    weight_files.save_weights(network, str(tmp_path / "w.pdparams"))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(weight_files, "open", refuse, raising=False)  # root may read everything
    with pytest.raises(UserError, match="SETTING: .*w.pdparams can't be read .*Permission denied"):
        weight_files.load_weights(network, str(tmp_path / "w"), "SETTING")
