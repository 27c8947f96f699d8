# SPDX-License-Identifier: Apache-2.0
"""TensorBoard gets a run's records and pictures."""

import importlib.util
import struct

import pytest
from trainings import read_records

import wgangp_mnist
from modes.train import train
from support.errors import UserError

TINY = (
    "DATA.source=digits MODEL.gen_net.dim=2 MODEL.dis_net.dim=2 TRAIN.batch_size=4 "
    "TRAIN.epochs=2 TRAIN.iters_per_epoch=2 TRAIN.eval_during_train=false"
)


def read_events(folder):
    """Tags and steps of TensorBoard's files; a record is length, checksum, bytes, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in folder.iterdir():
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            found += [(value.tag, event.step) for value in event.summary.value]
            content = content[16 + length :]
    return found


def test_tensorboard_has_the_records_and_the_pictures(configure, tmp_path):
    pytest.importorskip("tensorboardX")
    train(wgangp_mnist.Mnist(configure("mnist", TINY, "use_tbd=true")))
    found = read_events(tmp_path / "tensorboard")
    assert [step for tag, step in found if tag == "samples"] == [0, 2, 4]
    records = read_records(tmp_path)
    steps = [record["step"] for record in records]
    assert {tag for tag, _ in found} == {"samples", *records[-1]} - {"step", "seconds"}
    for tag in ("wasserstein", "critic_loss", "gradient_norm", "learning_rate"):
        assert [step for name, step in found if name == tag] == steps


@pytest.mark.parametrize(("key", "package"), [("use_vdl", "visualdl"), ("use_tbd", "tensorboardX")])
def test_a_writer_that_is_not_installed_is_named(check_command, monkeypatch, key, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"{key}=true needs the package {package}: pip install"):
        check_command(f"wgangp_mnist.py {key}=true")
    check_command(f"wgangp_mnist.py {key}=true mode=infer")
