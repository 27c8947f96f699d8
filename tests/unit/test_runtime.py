# SPDX-License-Identifier: Apache-2.0
"""Processor settings, and settings of the command line."""

import importlib
import os
import re
import subprocess
import sys

import pytest
from helpers import SCRIPTS
from omegaconf import OmegaConf

from support import launch as launching
from support import processor
from support.processor import SETTINGS
from support.processor import prepare
from support.settings import check_command_line
from support.settings import flatten
from support.settings import shipped_settings

SCRIPT_NAMES = ("wgangp_toy", "wgangp_mnist", "wgangp_cifar10", "wgangp_image64")
MODULES = {name: importlib.import_module(name) for name in SCRIPT_NAMES}


def check(capsys, monkeypatch, *arguments, script="wgangp_toy"):
    """What the command line's check prints as it refuses, or None."""
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
    try:
        check_command_line(script, MODULES[script].CHOICES)
    except SystemExit as stop:
        assert stop.code == 2
        text = capsys.readouterr().err
        assert text.startswith("Error: ") and text.count("\n") == 1
        return text
    return None


def launch(capsys, cfg, script="wgangp_toy"):
    """What `launch` prints as it refuses, or None where it runs the mode."""
    ran = []
    try:
        launching.launch(cfg, script, MODULES[script].CHOICES, train=ran.append)
    except SystemExit as stop:
        assert stop.code == 2 and not ran
        return capsys.readouterr().err
    assert ran == [cfg]
    return None


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["TRAIN.epochz=3"], ["TRAIN.epochz", "Did you mean TRAIN.epochs?", "TRAIN.n_critic"]),
        (["+TRAIN.foo=1"], ["TRAIN.foo", "Valid here: TRAIN.epochs"]),
        (["foo=1"], ["unknown setting foo", "DATA.mode"]),
        (["TRAIN.epochs=abc"], ["TRAIN.epochs=abc is not a whole number"]),
        (["TRAIN.epochs=1.5"], ["is not a whole number"]),
        (["TRAIN.epochs=true"], ["is not a whole number"]),
        (["TRAIN.epochs=0"], ["TRAIN.epochs=0 must be at least 1"]),
        (["TRAIN.save_freq=null"], ["TRAIN.save_freq=null is not a whole number"]),
        (["TRAIN.beta1=1"], ["TRAIN.beta1=1 must be at least 0 and below 1"]),
        (["TRAIN.learning_rate=nan"], ["must be at least 0"]),
        (["TRAIN.critic_learning_rate=fast"], ["fast is not a number, such as the default, 0.01"]),
        (["TRAIN.critic_learning_rate=null"], ["null is not a number"]),
        (["TRAIN.critic_learning_rate=-1"], ["must be at least 0"]),
        (["TRAIN.critic_optimizer=Adamw"], ["choose one of Adam, RMSProp, SGD"]),
        (["TRAIN.eval_during_train=maybe"], ["is not true or false"]),
        (["TRAIN.lr_schedule=cosine"], ["choose one of constant, linear."]),
        (["mode=exports"], ["choose one of train, eval, export, infer"]),
        (["device=tpu"], ["null, cpu, gpu"]),
        (["DATA.mode=8gaussian"], ["choose one of 8gaussians, 25gaussians, swissroll"]),
        (["seed=4294967296"], ["seed=4294967296 must be at least 0 and below 4294967296"]),
        (["+hydraulics=3"], ["unknown setting hydraulics"]),
        (["EVAL.pretrained_gen_model_path=3"], ["is not a path"]),
        (["EVAL.pretrained_gen_model_path=/a/b=c"], ["can't be read", "quotes"]),
        (["preset=wgan_lab"], ["preset=wgan_lab is unknown: choose one of null, paper."]),
        (["preset=paper", "TRAIN.epochz=3"], ["unknown setting TRAIN.epochz"]),
        (["--multirun", "TRAIN.epoch=1,2"], ["Did you mean TRAIN.epochs?"]),
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
        ["TRAIN.critic_learning_rate=1", "TRAIN.critic_optimizer=SGD"],
        ["TRAIN.critic_learning_rate=${TRAIN.learning_rate}"],
        ["EVAL.pretrained_gen_model_path=https://host/a.pdparams"],
        ["--multirun", "seed=1,2", "DATA.mode=8gaussians,swissroll"],
        ["hydra.run.dir=somewhere"],
        ["device=cpu"],
        ["+preset=paper", "hydra.mode=MULTIRUN", "seed=range(3)"],
        ["DATA.mode=${oc.env:MODE,8gaussians}"],
        ["EVAL.pretrained_gen_model_path='/a b/c=d.pdparams'"],
        ["--shell-completion", "install=bash"],
    ],
)
def test_what_is_right_passes(capsys, monkeypatch, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)  # where the output folder is made
    assert check(capsys, monkeypatch, *arguments) is None


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("TRAIN.epochz", 3, "unknown setting TRAIN.epochz. Did you mean TRAIN.epochs?"),
        ("TRAIN.epochs", "${seed}", None),
        ("TRAIN.epochs", "${TRAIN.beta1}", "TRAIN.epochs=0.5 is not a whole number"),
        ("DATA.mode", "${oc.env:NOWHERE,8gaussian}", "DATA.mode=8gaussian is unknown"),
        ("DATA", 3, "unknown setting DATA"),
    ],
)
def test_what_hydra_composes_is_checked_as_well(capsys, configure, key, value, part):
    """Files of the user's own, references and sweeps come to light there only."""
    cfg = configure("toy")
    OmegaConf.set_struct(cfg, False)
    OmegaConf.update(cfg, key, value)
    text = launch(capsys, cfg)
    assert text is None if part is None else part in text


def test_a_lacking_setting_is_named(capsys, configure):
    cfg = configure("toy")
    OmegaConf.set_struct(cfg, False)
    del cfg.TRAIN.epochs
    assert "lacks TRAIN.epochs" in launch(capsys, cfg)


@pytest.mark.parametrize("script", ["wgangp_mnist", "wgangp_cifar10"])
def test_each_script_checks_its_own_keys(capsys, monkeypatch, script):
    assert check(capsys, monkeypatch, script=script) is None
    text = check(capsys, monkeypatch, "DATA.mode=8gaussians", script=script)
    assert "DATA.source" in text
    text = check(capsys, monkeypatch, "MODEL.dis_net.norm=instance", script=script)
    assert "choose one of null, layer, batch" in text


def test_presets_of_other_scripts_are_refused(capsys, monkeypatch):
    text = check(capsys, monkeypatch, "+preset=paper", script="wgangp_cifar10")
    assert "preset=paper is unknown: here it can only be null." in text


@pytest.mark.parametrize("script", SCRIPT_NAMES)
def test_every_key_of_the_configurations_is_read(script):
    """No dead keys: each is read somewhere else than where its range is checked."""
    shared = [
        path for path in SCRIPTS.rglob("*.py") if path.stem not in ("settings", *SCRIPT_NAMES)
    ]
    code = "".join(path.read_text() for path in [*shared, SCRIPTS / f"{script}.py"])
    for key in flatten(shipped_settings(script)):
        group, _, leaf = key.rpartition(".")
        if key in ("mode", "EVAL.pretrained_gen_model_path", "EVAL.pretrained_dis_model_path"):
            continue  # read by `launch`, and by the tests of mode=eval
        owner = {"": "cfg", "TRAIN": r"(settings|cfg\.TRAIN)", "MODEL": "model", "LOSS": "loss"}
        owner.update(INFER=r"(settings|INFER)", DATA="(DATA|data|settings)")
        owner = owner.get(group, group.rpartition(".")[2])
        assert re.search(rf"{owner}\.(get\(\")?{leaf}\b", code), key


def settings_of(environment):
    code = "import os; from support import processor as r; r.prepare(); "
    code += "print([os.environ.get(n) for n in r.SETTINGS])"
    base = {k: v for k, v in os.environ.items() if k not in SETTINGS}
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
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = str(len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count())
    assert settings_of({})[:2] == [cores, cores]
    assert settings_of({"MKL_NUM_THREADS": "7"})[:2] == ["7", cores]
    assert settings_of({"MKL_DEBUG_CPU_TYPE": "4"})[2] == "4"


@pytest.mark.parametrize(
    ("text", "is_told"),
    [
        ("vendor_id : AuthenticAMD\nflags : fma avx2 bmi2\n", True),
        ("vendor_id : AuthenticAMD\nflags : fma avx bmi2\n", False),
        ("vendor_id : GenuineIntel\nflags : fma avx2 bmi2\n", False),
    ],
)
def test_amd_processors_are_known_by_what_linux_tells(monkeypatch, tmp_path, text, is_told):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(processor.platform, "system", lambda: "Linux")
    monkeypatch.setattr(processor, "open", lambda *_, **__: path.open(), raising=False)
    monkeypatch.setattr(processor, "_keep_memory", lambda: None)
    monkeypatch.setattr(os, "environ", {})
    prepare()
    assert os.environ.get("MKL_DEBUG_CPU_TYPE") == ("5" if is_told else None)


@pytest.mark.parametrize(
    ("environment", "calls"),
    [({}, [(-4, 0), (-1, 2**31 - 1), (-2, 64 << 20)]), ({"MALLOC_ARENA_MAX": "1"}, [])],
)
def test_freed_memory_is_kept_unless_the_user_says_otherwise(monkeypatch, environment, calls):
    class Library:
        called = []

        def mallopt(self, *arguments):
            self.called.append(arguments)

    for name in list(os.environ):
        if name.startswith("MALLOC_"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processor.platform, "system", lambda: "Linux")
    monkeypatch.setattr(processor.ctypes, "CDLL", lambda _: Library())
    processor._keep_memory()
    assert Library.called == calls


def test_a_c_library_without_mallopt_does_no_harm(monkeypatch):
    monkeypatch.setattr(processor.platform, "system", lambda: "Linux")
    monkeypatch.setattr(processor.ctypes, "CDLL", lambda _: object())
    processor._keep_memory()
