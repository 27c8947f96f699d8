# SPDX-License-Identifier: Apache-2.0
"""Weights of networks: loaded completely if they fit exactly, and not at all otherwise."""

import gzip
import pickle

import numpy as np
import paddle
import pytest

import functions
from support import archives
from support import npz
from support import weight_files
from support.errors import UserError


def state(network):
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def assert_states_equal(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(two[name], value)


@pytest.fixture
def network():
    return functions.WganGpToyGenerator(4)


@pytest.mark.parametrize("suffix", ["", ".pdparams"])
def test_load_weights_reads_files_of_paddle_with_or_without_the_suffix(tmp_path, suffix):
    saved, loaded = (functions.WganGpCifar10Generator(4) for _ in range(2))
    paddle.save(saved.state_dict(), str(tmp_path / "g.pdparams"))
    weight_files.load_weights(loaded, f"{tmp_path}/g{suffix}", "EVAL.x")
    assert_states_equal(state(saved), state(loaded))


def test_save_weights_adds_a_checksum_that_load_weights_checks(tmp_path, network):
    other = functions.WganGpToyGenerator(4)
    path = tmp_path / "g.pdparams"
    weight_files.save_weights(network, str(path))
    content = path.read_bytes()
    # Paddle reads the file, too.
    assert_states_equal(paddle.load(str(path), return_numpy=True), state(network))
    # A bit changes in a number of the first weight.
    place = content.index(state(network)["layers.0.weight"].tobytes()) + 9
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    before = state(other)
    with pytest.raises(UserError, match="damaged: its checksum does not match"):
        weight_files.load_weights(other, str(path), "EVAL.x")
    assert_states_equal(before, state(other))
    path.write_bytes(content)
    weight_files.load_weights(other, str(path), "EVAL.x")
    assert_states_equal(state(network), state(other))


def test_load_weights_reads_the_part_of_a_checkpoint_that_its_role_names(tmp_path, network):
    path, own = str(tmp_path / "c.npz"), state(network)
    parts = {"generator": 1, "average": 2, "discriminator": 3}
    arrays = {f"{p}/{n}": np.full_like(a, v) for p, v in parts.items() for n, a in own.items()}
    npz.write_npz(path, arrays)
    weight_files.load_weights(network, path, "EVAL.x", "discriminator")
    assert all((array == 3).all() for array in state(network).values())
    weight_files.load_weights(network, path, "EVAL.x", "generator")
    assert all((array == 2).all() for array in state(network).values())  # the moving average
    npz.write_npz(path, {n: array for n, array in arrays.items() if not n.startswith("average/")})
    weight_files.load_weights(network, path, "EVAL.x", "generator")
    assert all((array == 1).all() for array in state(network).values())


def test_load_weights_lists_what_does_not_fit_and_loads_nothing(tmp_path, network):
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
        f"EVAL.pretrained_gen_model_path: {path}",
        "does not fit WganGpToyGenerator",
        "missing: layers.2.bias",
        "unexpected: extra",
        "layers.0.weight [2, 5] where [2, 4] is expected",
        "not finite: layers.4.bias, layers.6.bias",
        "other MODEL.* settings?",
    ):
        assert part in str(error.value)
    assert_states_equal(before, state(network))


def test_require_fit_abbreviates_long_lists():
    own = {f"w{number}": np.zeros(1) for number in range(6)}
    with pytest.raises(UserError, match="missing: w0, w1, w2, w3 and 2 more"):
        weight_files.require_fit(own, {}, "network", "here")


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
        (lambda mark: pickle.dumps({1: np.zeros(3)}), "arrays by name"),
        (lambda mark: pickle.dumps({"layers.0.weight": "text"}), "not arrays of .*layers.0"),
        (lambda mark: pickle.dumps({"layers.0.weight": [1, [2]]}), "not arrays of .*layers.0"),
        (lambda mark: b"", "does not hold weights: it is an empty file; "),
        (lambda mark: b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (lambda mark: b"<!DOCTYPE html><html>", "it is a web page; "),
        (lambda mark: gzip.compress(b"x" * 99)[:9], "is not a pickle"),
        (lambda mark: b"\xfd7zXZ\0xxxx", "is not a pickle"),
        # A memo with the index 10^9 would take 16 GB.
        (
            lambda mark: b"\x80\x02Nr" + (10**9).to_bytes(4, "little") + b".",
            "memo index larger than its own size",
        ),
    ],
)
def test_load_weights_refuses_other_files(tmp_path, network, content, message):
    mark, path = tmp_path / "mark", tmp_path / "g.pdparams"
    path.write_bytes(content(str(mark)))
    with pytest.raises(UserError, match=message):
        weight_files.load_weights(network, str(path), "EVAL.x")
    assert not mark.exists()


def test_load_weights_refuses_files_that_are_too_large(tmp_path, network, monkeypatch):
    weight_files.save_weights(network, str(tmp_path / "g.pdparams"))
    size = (tmp_path / "g.pdparams").stat().st_size
    monkeypatch.setattr(archives, "MAX_BYTES", size)
    weight_files.load_weights(network, str(tmp_path / "g"), "EVAL.x")
    monkeypatch.setattr(archives, "MAX_BYTES", size - 1)
    with pytest.raises(UserError, match="EVAL.x: .*g.pdparams is larger than [0-9.]+ (KiB|bytes)"):
        weight_files.load_weights(network, str(tmp_path / "g"), "EVAL.x")


def test_load_weights_converts_double_precision(tmp_path, network):
    arrays = {name: value.astype("float64") + 1 for name, value in state(network).items()}
    (tmp_path / "g.pdparams").write_bytes(pickle.dumps(arrays))
    weight_files.load_weights(network, str(tmp_path / "g"), "EVAL.x")
    for name, value in arrays.items():
        np.testing.assert_allclose(state(network)[name], value, rtol=1e-6)


def test_load_weights_names_an_absent_file(tmp_path, network):
    with pytest.raises(UserError, match="EVAL.x: there is no file .*g.pdparams"):
        weight_files.load_weights(network, str(tmp_path / "g"), "EVAL.x")


def test_load_weights_names_a_file_that_it_cannot_open(tmp_path, network, monkeypatch):
    weight_files.save_weights(network, str(tmp_path / "w.pdparams"))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(archives, "open", refuse, raising=False)  # root may read everything
    with pytest.raises(UserError, match="SETTING: .*w.pdparams can't be read .*Permission denied"):
        weight_files.load_weights(network, str(tmp_path / "w"), "SETTING")
