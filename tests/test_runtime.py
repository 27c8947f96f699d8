# Copyright (c) 2026 The WGAN-GP example suite authors. All Rights Reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Processor settings, and settings of the command line."""

import os
import subprocess
import sys

import pytest
from conftest import SCRIPTS

import runtime

CHOICES = {"wgangp_toy": {"DATA.mode": ("8gaussians", "25gaussians", "swissroll")}}


def check(capsys, monkeypatch, *arguments, script="wgangp_toy"):
    """What the command line's check prints as it refuses, or None."""
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
    try:
        runtime.check_command_line(script, CHOICES.get(script, {}))
    except SystemExit as stop:
        assert stop.code == 2
        text = capsys.readouterr().err
        assert text.startswith("Error: ") and text.count("\n") == 1
        return text
    return None


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["TRAIN.epochz=3"], ["TRAIN.epochz", "Did you mean TRAIN.epochs?", "TRAIN.n_critic"]),
        (["+TRAIN.foo=1"], ["TRAIN.foo", "Valid here: TRAIN.epochs"]),
        (["foo=1"], ["unknown setting foo", "DATA.mode"]),
        (["~TRAIN.epochs"], ["lacks TRAIN.epochs"]),
        (["DATA=3"], ["DATA"]),
        (["TRAIN.epochs=abc"], ["TRAIN.epochs=abc is not a whole number"]),
        (["TRAIN.epochs=1.5"], ["is not a whole number"]),
        (["TRAIN.epochs=true"], ["is not a whole number"]),
        (["TRAIN.epochs=0"], ["TRAIN.epochs=0 must be at least 1"]),
        (["TRAIN.save_freq=null"], ["TRAIN.save_freq=null is not a whole number"]),
        (["TRAIN.beta1=1"], ["TRAIN.beta1=1 must be at least 0 and below 1"]),
        (["TRAIN.learning_rate=nan"], ["must be at least 0"]),
        (["TRAIN.eval_during_train=maybe"], ["is not true or false"]),
        (["TRAIN.lr_schedule=cosine"], ["choose one of constant, linear"]),
        (["mode=export"], ["choose one of train, eval"]),
        (["device=tpu"], ["null, cpu, gpu"]),
        (["preset=papre"], ["preset/papre", "Available options", "paper"]),
        (["DATA.mode=8gaussian"], ["choose one of 8gaussians, 25gaussians, swissroll"]),
        (["seed=4294967296"], ["seed=4294967296 must be at least 0 and below 4294967296"]),
        (["+hydraulics=3"], ["unknown setting hydraulics"]),
        (["EVAL.pretrained_gen_model_path=3"], ["is not a path"]),
        (["--config-path", "conf"], ["--config-dir"]),
        (["EVAL.pretrained_gen_model_path=/a/b=c"], ["can't be read", "quotes"]),
        (["--multirun", "seed=1,x"], ["seed=x is not a whole number"]),
        (["--multirun", "TRAIN.epoch=1,2"], ["Did you mean TRAIN.epochs?"]),
        (["--config-name", "nowhere"], ["nowhere"]),
    ],
)
def test_a_slip_is_refused_in_one_line(capsys, monkeypatch, arguments, parts):
    text = check(capsys, monkeypatch, *arguments)
    assert text is not None
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["preset=paper"],
        ["TRAIN.learning_rate=1", "TRAIN.epochs=3", "mode=eval"],
        ["EVAL.pretrained_gen_model_path=https://host/a.pdparams"],
        ["--multirun", "seed=1,2", "DATA.mode=8gaussians,swissroll"],
        ["hydra.run.dir=somewhere"],
        ["device=cpu"],
    ],
)
def test_what_is_right_passes(capsys, monkeypatch, arguments):
    assert check(capsys, monkeypatch, *arguments) is None


def test_a_configuration_of_ones_own(capsys, monkeypatch, tmp_path):
    text = "defaults:\n  - wgangp_toy\n  - _self_\nTRAIN:\n  {}: 7\n"
    (tmp_path / "mine.yaml").write_text(text.format("epochs"))
    (tmp_path / "slip.yaml").write_text(text.format("epochz"))
    own = [f"--config-dir={tmp_path}", "--config-name"]
    assert check(capsys, monkeypatch, *own, "mine") is None
    assert "Did you mean TRAIN.epochs?" in check(capsys, monkeypatch, *own, "slip")


@pytest.mark.parametrize("script", ["wgangp_mnist", "wgangp_cifar10"])
def test_each_script_checks_its_own_keys(capsys, monkeypatch, script):
    assert check(capsys, monkeypatch, script=script) is None
    text = check(capsys, monkeypatch, "DATA.mode=8gaussians", script=script)
    assert "DATA.source" in text
    assert "unknown setting preset" in check(capsys, monkeypatch, "preset=paper", script=script)
    text = check(capsys, monkeypatch, "MODEL.dis_net.norm=batch", script=script)
    assert "choose one of null, layer" in text


def test_every_key_of_the_configurations_is_read():
    """No dead keys: each leaf's name stands in the code."""
    import omegaconf

    code = "".join(path.read_text() for path in SCRIPTS.glob("*.py"))
    for path in SCRIPTS.glob("conf/wgangp_*.yaml"):
        settings = omegaconf.OmegaConf.to_container(omegaconf.OmegaConf.load(path))
        for key in ("defaults", "hydra"):
            settings.pop(key)
        for key in runtime._flatten(settings):
            leaf = key.rpartition(".")[2]
            # `seed` and `device` go to ppsci's callback as well
            assert f".{leaf}" in code or f'"{leaf}"' in code or leaf.startswith("pretrained"), key


def settings_of(environment):
    code = "import os, runtime as r; r.prepare(); print([os.environ.get(n) for n in r.SETTINGS])"
    base = {k: v for k, v in os.environ.items() if k not in runtime.SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=SCRIPTS,
        env={**base, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return eval(done.stdout)


def test_threads_follow_the_cores_and_a_users_setting_wins():
    cores = str(len(os.sched_getaffinity(0)))
    assert settings_of({})[:2] == [cores, cores]
    assert settings_of({"MKL_NUM_THREADS": "7"})[:2] == ["7", cores]
    assert settings_of({"MKL_DEBUG_CPU_TYPE": "4"})[2] == "4"
