# SPDX-License-Identifier: Apache-2.0
"""The command line's check: what Hydra would refuse, or compose wrong, and what it lets pass."""

import importlib
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from support import command_line
from support import meanings
from support import settings
from support.errors import UserError


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Checks overrides, written as one string, of a script; returns what is wrong, or None."""
    monkeypatch.chdir(tmp_path)  # where output folders are made
    monkeypatch.delenv("PADDLE_TRAINERS_NUM", raising=False)

    def call(text, script="wgangp_toy"):
        choices = importlib.import_module(script).CHOICES
        try:
            command_line.check(script, choices, text.split())
        except UserError as error:
            assert r"\n" not in str(error)
            return str(error)
        return None

    return call


@pytest.fixture
def own(tmp_path):
    """A folder of a user's own configurations."""
    folder = tmp_path / "own"
    texts = {
        "fixed": "defaults: [wgangp_toy, _self_]\nhydra: {run: {dir: fixed}}",
        "typo": "defaults: [wgangp_toy, _self_]\nTRAIN: {epochz: 3}",
        "former": "defaults: [wgangp_toy, _self_]\nTRAIN: {penalty_weight: 3}",
        "damaged": "defaults: [wgangp_toy, _self_]\n\nTRAIN: {epochs: [3",
        "with_pace": "defaults: [wgangp_toy, pace: quick, _self_]",
        "pace/quick": "# @package _global_\nTRAIN: {epochs: 3}",
        "pace/wrong": "# @package _global_\nTRAIN: {epochs: 0}",
    }
    for name, text in texts.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("TRAIN.epochz=3", ["TRAIN.epochz. Did you mean TRAIN.epochs? Valid", "TRAIN.n_critic"]),
        ("+TRAIN.foo=1", ["unknown setting TRAIN.foo. Valid here: TRAIN.epochs", "--help=TRAIN."]),
        ("++TRAIN.foo=1", ["unknown setting TRAIN.foo. Valid here: TRAIN.epochs"]),
        ("foo=1", ["unknown setting foo. Valid here: mode, seed", "DATA.mode"]),
        ("+hydraulics=3", ["unknown setting hydraulics. Valid here: mode, seed"]),
        ("TRAIN.emma.decay=0.9", ["TRAIN.emma.decay. Did you mean TRAIN.ema.decay?"]),
        ("TRAIN.epochs.x=3", ["unknown setting TRAIN.epochs.x. Did you mean TRAIN.epochs?"]),
        ("TRAIN.epochs=abc", ["TRAIN.epochs=abc is not a whole number"]),
        ("TRAIN.epochs=true", ["TRAIN.epochs=true is not a whole number"]),
        ("TRAIN.epochs='3'", ["TRAIN.epochs=3 is not a whole number"]),
        ("TRAIN.epochs=", ["TRAIN.epochs= is not a whole number"]),
        ("TRAIN.epochs=???", ["TRAIN.epochs has no value yet"]),
        ("TRAIN.learning_rate=nan", ["TRAIN.learning_rate=nan must be at least 0"]),
        ("TRAIN.learning_rate=inf", ["TRAIN.learning_rate=inf must be at least 0 and finite"]),
        ("TRAIN.learning_rate=-inf", ["TRAIN.learning_rate=-inf must be at least 0 and finite"]),
        ("TRAIN.epochs=inf", ["TRAIN.epochs=inf is not a whole number"]),
        ("TRAIN.epochs=100000000000000000000", ["at least 1 and below 9223372036854775808"]),
        ("device=gpu:1", ["null, cpu, gpu, xpu, sdaa. For one", "CUDA_VISIBLE_DEVICES=1 in the"]),
        ("device=cuda", ["device=cuda is unknown", "Give device=gpu."]),
        ("device=cuda:0", ["set CUDA_VISIBLE_DEVICES=0", "give device=gpu."]),
        ("device=GPU", ["Give device=gpu."]),
        ("device=1", ["set CUDA_VISIBLE_DEVICES=1"]),
        ("device=npu", ["has no device npu"]),
        ("device=mps", ["give device=cpu"]),
        ("DATA=3", ["DATA is a group of settings. Set one of DATA.mode."]),
        ("DATA.mode=8gaussian", ["choose one of 8gaussians, 25gaussians, swissroll"]),
        ("~TRAIN.epochs", ["the configuration lacks TRAIN.epochs."]),
        ("~TRAIN.foo", ["'TRAIN.foo' does not exist"]),
        ("EVAL.pretrained_gen_model_path=3", ["is not a path"]),
        ("EVAL.pretrained_gen_model_path=/a=c", ["=/a=c can't be read", "_path='/a=c'\"."]),
        ("TRAIN.epochs=[1", ["TRAIN.epochs=[1 can't be read"]),
        ("epochs", ["epochs is not a setting: write KEY=VALUE"]),
        ("mode==eval", ["mode==eval is not a setting: write KEY=VALUE"]),
        ("DATA.data_path=/图片", ["needs quotes inside quotes: \"DATA.data_path='/图片'\"."]),
        ("train.epochs=5", ["unknown setting train.epochs. Did you mean TRAIN.epochs?"]),
        ("TRAIN.resume=true", ["TRAIN.resume=true is not a path: give auto or a path."]),
        ("hydra.run.dir=2024_11", ["read as 202411", "\"hydra.run.dir='2024_11'\"."]),
        ("hydra.run.dir=true", ["would be read as True. Put it in quotes"]),
        ("图=3", ["图=3 is not a setting: write KEY=VALUE"]),
        ("TRAIN.checkpoint_path=a", ["is TRAIN.resume here."]),
        ("output_dir=a hydra.run.dir=b", ["output_dir=a is the folder", "run.dir has no effect"]),
        ("-m output_dir=a seed=1,2", ["output_dir=a is the folder", "all jobs would share it"]),
        ("TRAIN.epochs=${TRAIN.beta1}", ["TRAIN.epochs=0.5 is not a whole number"]),
        ("TRAIN.epochs=${nothing}", ["TRAIN.epochs=${nothing} can't be resolved"]),
        ("DATA.mode=${oc.env:NOWHERE}", ["DATA.mode=${oc.env:NOWHERE} can't be resolved"]),
        ("DATA.mode=${hydra:job.name}", ["DATA.mode=wgangp_toy is unknown"]),
        # options of groups
        (
            "preset=null",
            ["preset=null: Hydra has no such option: give preset=authors, which adds nothing."],
        ),
        ("LOSS=null", ["LOSS=null: Hydra has no such option: leave it out."]),
        ("~preset", ["~preset: a script has one: give preset=authors, which adds nothing."]),
        ("-m preset=authors,null", ["preset=null: Hydra has no such option"]),
        ("-m preset=authors,wgan_lab", ["preset=wgan_lab is unknown: choose one of short, a"]),
        ("LOSS=foo", ["LOSS=foo is unknown: choose one of gan, hinge, wgan,", "--help=LOSS"]),
        ("preset=foo", ["short, authors. --help=preset explains them."]),
        ("preset=wgan_lab", ["preset=wgan_lab is unknown: choose one of short, a"]),
        ("preset=authors TRAIN.epochz=3", ["unknown setting TRAIN.epochz"]),
        ("+preset=authors", ["Multiple values for preset"]),
        ("hydra/launcher=foo", ["hydra/launcher=foo is unknown: choose one of basic."]),
        # Hydra's own settings
        ("hydra.run.foo=x", ["Could not override 'hydra.run.foo'", "foo"]),
        ("hydra.run.dir=[1]", ["hydra.run.dir=[1]", "Cannot convert"]),
        ("hydra.run.dir=${oc.env:NOWHERE}", ["'NOWHERE' not found"]),
        ("hydra.run.dir=", ["hydra.run.dir= is empty, as after a shell variable"]),
        ("hydra.run.dir='~/a'", ["has to be a plain path: give hydra.run.dir=/"]),
        ("hydra.run.dir=~/a", ["the shell left ~ as it is. Give hydra.run.dir=/"]),
        ("output_dir=", ["output_dir= is empty"]),
        ("output_dir=file:///a", ["give output_dir=/a."]),
        ("-m seed=1,2 hydra.sweep.dir=", ["hydra.sweep.dir= is empty"]),
        ("-m seed=1,2 hydra.sweep.subdir=", ["hydra.sweep.subdir= is empty"]),
        ("-m seed=1,2 hydra.run.dir=a", ["no effect in a sweep: name the folder by hydra.sweep"]),
        ("hydra.sweep.dir=a", ["no effect without --multirun: name the folder by hydra.run.dir"]),
        # several values
        ("seed=1 -m LOSS=gan,wgan", ["LOSS=gan,wgan can't be read, since a flag stands between"]),
        ("TRAIN.epochs=1,2", ["TRAIN.epochs=1,2 names several values: --multirun"]),
        ("--multirun seed=range(5,1)", ["seed=range(5,1) has no value: name at least one."]),
        (f"seed=1{400 * '0'}", ["must be at least 0 and below"]),
        (f"TRAIN.epochs=1{400 * '0'}", ["must be at least 1 and below"]),
        ("TRAIN.epochs=range(1,3)", ["TRAIN.epochs=range(1,3) names several values"]),
        ("--multirun TRAIN.epoch=1,2", ["TRAIN.epoch. Did you mean TRAIN.epochs?"]),
        ("--multirun TRAIN.epochs=0,1", ["TRAIN.epochs=0 must be at least 1"]),
        ("--multirun TRAIN.epochs=range(0,2)", ["TRAIN.epochs=0 must be at least 1"]),
        ("--multirun TRAIN.epochs=1,2,0 seed=1,2", ["TRAIN.epochs=0 must be at least 1"]),
        ("--multirun DATA.mode=8gaussians,typo", ["DATA.mode=typo is unknown"]),
        ("-m TRAIN.epochs=${hydra:job.num} seed=1,2", ["TRAIN.epochs=0 must be at least 1"]),
        ("hydra.mode=MULTIRUN TRAIN.epochs=0,1", ["TRAIN.epochs=0 must be at least 1"]),
        # files of the user's own
        ("--config-name nothing", ["Cannot find primary config 'nothing'"]),
        ("--config-dir nowhere", ["--config-dir=nowhere is not a folder."]),
        ("--config-path nowhere", ["Primary config directory not found"]),
        ("--config-dir own --config-name typo", ["TRAIN.epochz. Did you mean TRAIN.epochs?"]),
        ("-cd own -cn former", ["TRAIN.penalty_weight has a new name: LOSS.penalty_weight."]),
        ("-cd own -cn damaged", ["damaged.yaml can't be read: ", "in line 3."]),
        ("-cd own -cn with_pace pace=wrong", ["TRAIN.epochs=0 must be at least 1"]),
        ("-cd own -cn with_pace pace=foo", ["pace=foo is unknown: choose one of quick, wrong."]),
        ("-cd own +pace=wrong", ["TRAIN.epochs=0 must be at least 1"]),
        ("+pace=quick", ["pace"]),
    ],
)
def test_what_is_wrong_is_refused(check, own, text, parts):
    said = check(text)
    assert said is not None
    for part in parts:
        assert part in said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "preset=authors",
        "preset=authors LOSS=gan",
        "TRAIN.learning_rate=1 TRAIN.epochs=3 mode=eval",
        "TRAIN={epochs:3}",
        "TRAIN.critic_learning_rate=1 TRAIN.critic_optimizer=SGD",
        "TRAIN.critic_learning_rate=${TRAIN.learning_rate}",
        "EVAL.pretrained_gen_model_path=https://host/a.pdparams",
        "EVAL.pretrained_gen_model_path='/a/c=d.pdparams'",
        "EVAL.pretrained_gen_model_path=${output_dir}/model_generator",
        "INFER.export_path=${hydra:job.name}/${hydra:runtime.choices.LOSS}",
        "DATA.mode=${oc.env:MODE,8gaussians}",
        "device=cpu",
        "hydra.run.dir=somewhere",
        "--multirun seed=1,2 DATA.mode=8gaussians,swissroll",
        "--multirun preset=authors LOSS=choice(gan,wgan)",
        "--multirun preset=glob(p*)",
        "--multirun TRAIN.learning_rate=interval(1e-4,1e-3)",
        "--multirun INFER.export_path=job_${hydra:job.num} seed=1,2",
        "hydra.mode=MULTIRUN seed=range(3)",
        "--config-path conf",
        "--config-dir own",
        "--config-dir own --config-name fixed TRAIN.resume=auto",
        "-cd own -cn with_pace",
        "-cd own +pace=quick",
        "hydra.searchpath=[file://own] +pace=quick",
        "preset=authors",
        # Hydra answers these, or refuses them in its own words; --help is answered before
        "--help TRAIN.epochs=0",
        "--help=TRAIN.epochs",
        "--hydra-help",
        "--version",
        "--cfg job TRAIN.epochs=0",
        "-c all",
        "--info",
        "--info searchpath",
        "--shell-completion install=bash",
        "-sc query=bash",
        "--nonsense",
        "--config-path pkg://nothing",
    ],
)
def test_what_is_right_passes(check, own, text):
    assert check(text) is None


@pytest.mark.parametrize("script", ["wgangp_mnist", "wgangp_cifar10", "wgangp_image64"])
def test_each_script_has_its_own_settings(check, script):
    assert check("", script) is None
    assert "Valid here: DATA." in check("DATA.mode=8gaussians", script)
    text = check("MODEL.dis_net.norm=instance", script)
    assert "choose one of null, layer, batch" in text
    text = check("MODEL.gen_net.batch_norm_statistics=both", script)
    assert "choose one of batch, running" in text


@pytest.mark.parametrize("script", ["wgangp_mnist", "wgangp_cifar10", "wgangp_image64"])
def test_the_authors_settings_are_the_default_but_for_the_toy_sets(script):
    own = settings.load_defaults(script)
    with hydra.initialize_config_dir(settings.CONF, version_base=None):
        assert OmegaConf.to_container(hydra.compose(script, ["preset=authors"])) == own


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_presets_of_other_scripts_are_refused(check, prefix):
    text = check(f"{prefix}preset=short", "wgangp_cifar10")
    assert text == (
        "preset=short is unknown: choose one of authors, laptop, demo. --help=preset explains them."
    )
    assert "choose one of short, authors." in check(f"{prefix}preset=laptop")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2e-4, "0.0002"),
        (0.00123456789, "0.00123456789"),
        (1234567.8, "1234567.8"),
        (10.0, "10"),
        (-0.5, "-0.5"),
        (0.0, "0"),
        (1e-8, "1e-08"),
        (float("inf"), "inf"),
        ([1e-3, None, True, "kid"], "[0.001, null, true, kid]"),
    ],
)
def test_values_are_written_in_full(value, text):
    assert meanings.show_value(value) == text


@pytest.mark.parametrize("script", ["mnist", "cifar10", "image64"])
def test_the_preset_laptop_is_each_scripts_own(script, configure, check):
    path = Path(settings.CONF) / "preset" / f"wgangp_{script}" / "laptop.yaml"
    values, cfg = meanings.read_option(path), configure(script, "preset=laptop")
    assert values and values == {key: OmegaConf.select(cfg, key) for key in values}
    # The objective brings its optimiser, and what is named in the command wins.
    cfg = configure(script, "preset=laptop LOSS=gan TRAIN.epochs=3")
    assert (cfg.TRAIN.optimizer, cfg.TRAIN.n_critic, cfg.TRAIN.epochs) == ("SGD", 1, 3)
    assert check("preset=laptop", f"wgangp_{script}") is None


@pytest.mark.parametrize("prefix", ["", "+", "++"])
def test_a_former_name_is_refused_with_the_new_one(check, prefix):
    text = check(f"{prefix}TRAIN.penalty_weight=3")
    assert text == "TRAIN.penalty_weight has a new name: LOSS.penalty_weight."


def test_the_check_leaves_hydra_as_it_was(check, own):
    former = HydraConfig.instance().cfg
    for text in ("-cd own -cn with_pace", "-cd own -cn with_pace pace=foo"):
        check(text)
        assert not GlobalHydra.instance().is_initialized()
        assert HydraConfig.instance().cfg is former
        assert check("+pace=quick") is not None  # the folder of --config-dir is forgotten


@pytest.mark.parametrize(
    "text",
    [
        "output_dir=${hydra:run.dir} hydra.run.dir=r",
        "output_dir=${hydra:runtime.output_dir}/sub hydra.run.dir=r",
        "output_dir=r hydra.run.dir=r",
        "-m output_dir=${hydra:sweep.dir}/${hydra:job.num} hydra.sweep.dir=s seed=1,2",
        "-m output_dir=a,b",
    ],
)
def test_an_output_dir_that_agrees_with_hydras_folder_is_accepted(check, text):
    assert check(text) is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", None),
        ("hydra.run.dir=runs/${now:%Y}", None),
        ("--multirun", None),
        ("hydra.run.dir=runs/a", "runs/a"),
        ("hydra.run.dir=runs/${seed}", "runs"),
        ("output_dir=runs/b", "runs/b"),
        ("--config-dir own --config-name fixed", "fixed"),
        ("--multirun hydra.sweep.dir=runs/c", "runs/c"),
    ],
)
def test_resuming_and_several_processes_need_a_named_folder(
    check, own, monkeypatch, tmp_path, text, named
):
    key = "hydra.sweep.dir" if "multirun" in text else "hydra.run.dir"
    resumed = check(f"{text} TRAIN.resume=auto")
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    shared = check(text)
    if named is None:
        assert (
            resumed == f"TRAIN.resume=auto continues in a folder that is named: give {key}=FOLDER."
        )
        assert shared == f"several processes need one folder for all: name it with {key}=FOLDER."
    else:
        assert resumed is None and shared is None
        assert (tmp_path / named).is_dir()


def test_a_wrong_setting_is_refused_before_the_folder_is_made(check, tmp_path):
    assert check("hydra.run.dir=runs/a TRAIN.epochs=0") is not None
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ["hydra.run.dir={0}/x", "output_dir={0}/x/${{seed}}"])
def test_a_folder_that_cannot_be_made_is_refused(check, tmp_path, text):
    (tmp_path / "file").write_bytes(b"")
    said = check(text.format(tmp_path / "file"))
    assert f"{tmp_path}/file/x can't be written to" in said
    key = text.partition("=")[0]
    assert f"Choose another output folder with {key}=FOLDER." in said
