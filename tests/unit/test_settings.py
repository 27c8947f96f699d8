# SPDX-License-Identifier: Apache-2.0
"""Settings: what there are, their checks, and that each is read."""

import contextlib
import importlib
import math
import shlex

import hydra
import numpy as np
import pytest
from helpers import SCRIPTS
from omegaconf import DictConfig
from omegaconf import OmegaConf
from PIL import Image

from modes.experiment import Experiment
from modes.runner import run_mode
from support.errors import UserError
from support.settings import CHOICES
from support.settings import FORMER_VALUES
from support.settings import MEASURES
from support.settings import RANGES
from support.settings import RENAMED
from support.settings import check_drawn_batches
from support.settings import check_settings
from support.settings import flatten
from support.settings import load_defaults

NAMES = ("wgangp_toy", "wgangp_mnist", "wgangp_cifar10", "wgangp_image64")
MODULES = {name: importlib.import_module(name) for name in NAMES}
DEFAULTS = {name: flatten(load_defaults(name)) for name in NAMES}
KEYS = {key for flat in DEFAULTS.values() for key in flat}


def change(cfg, key, value):
    """A copy of a configuration with a setting that may be new to it."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    OmegaConf.update(cfg, key, value)
    return cfg


def refuse(cfg, script="wgangp_toy"):
    """What `check_settings` says about a configuration, or None."""
    try:
        check_settings(cfg, script, MODULES[script].CHOICES)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("script", NAMES)
def test_load_defaults_composes_what_hydra_composes(script):
    with hydra.initialize_config_dir(str(SCRIPTS / "conf"), version_base=None):
        composed = hydra.compose(script)
        # also while Hydra runs, which goes on with its own configurations afterwards
        assert load_defaults(script) == OmegaConf.to_container(composed)
        assert hydra.compose(script) == composed


@pytest.mark.parametrize(
    "words",
    [
        "toy",
        "toy LOSS=wgan preset=authors TRAIN.critic_learning_rate=3 DATA.mode=swissroll",
        "image64 LOSS.name=hinge LOSS=wgan_div EVAL.measures=[fid,kid] TRAIN.optimizer=SGD",
        "mnist preset=laptop TRAIN.resume=null 'INFER.export_path=a b' TRAIN.ema.use_ema=false",
    ],
)
def test_tests_compose_what_hydra_composes(words, configure, tmp_path):
    name, *overrides = shlex.split(words)
    with hydra.initialize_config_dir(str(SCRIPTS / "conf"), version_base=None):
        more = ["device=cpu", f"output_dir={tmp_path}"]
        expected = hydra.compose(f"wgangp_{name}", [*overrides, *more])
    found = configure(name, *map(shlex.quote, overrides))
    for resolve in (False, True):
        assert OmegaConf.to_container(found, resolve=resolve) == OmegaConf.to_container(
            expected, resolve=resolve
        )
    assert OmegaConf.is_struct(found)


def test_defaults_of_each_script_pass(configure):
    for script in NAMES:
        assert refuse(configure(script.partition("_")[2]), script) is None


@pytest.mark.parametrize(
    ("key", "value", "parts"),
    [
        ("TRAIN.epochz", 3, ["unknown setting TRAIN.epochz. Did you mean TRAIN.epochs? Valid"]),
        (
            "TRAIN.foo",
            1,
            ["unknown setting TRAIN.foo. Valid here: TRAIN.epochs", "TRAIN.ema.decay"],
        ),
        ("foo", 1, ["unknown setting foo. Valid here: mode, seed", "DATA.mode"]),
        ("foo.bar", 1, ["unknown setting foo.bar. Valid here: mode, seed", "DATA.mode"]),
        (
            "TRAIN.ema.x",
            1,
            ["setting TRAIN.ema.x.", "Valid here: TRAIN.ema.use_ema, TRAIN.ema.decay."],
        ),
        ("DATA", 3, ["DATA is a group of settings. Set one of DATA.mode."]),
        ("TRAIN.ema", True, ["is a group of settings. Set one of TRAIN.ema.use_ema, TRAIN.ema.de"]),
        ("TRAIN.epochs", {"x": 1}, ["unknown setting TRAIN.epochs.x. Did you mean TRAIN.epochs?"]),
        (
            "TRAIN.epochs",
            "abc",
            ["TRAIN.epochs=abc is not a whole number, such as the default, 16."],
        ),
        ("TRAIN.epochs", 1.5, ["TRAIN.epochs=1.5 is not a whole number"]),
        ("TRAIN.epochs", True, ["TRAIN.epochs=true is not a whole number"]),
        ("TRAIN.epochs", [1, 2], ["TRAIN.epochs=[1, 2] is not a whole number"]),
        ("TRAIN.epochs", "3", ["TRAIN.epochs=3 is not a whole number"]),
        ("TRAIN.epochs", "???", ["TRAIN.epochs has no value yet: give TRAIN.epochs=VALUE."]),
        ("TRAIN.save_freq", None, ["TRAIN.save_freq=null is not a whole number"]),
        (
            "TRAIN.learning_rate",
            math.nan,
            ["learning_rate=nan must be at least 0 and finite"],
        ),
        (
            "TRAIN.learning_rate",
            math.inf,
            ["learning_rate=inf must be at least 0 and finite"],
        ),
        ("TRAIN.beta1", math.nan, ["TRAIN.beta1=nan must be at least 0 and below 1."]),
        ("TRAIN.critic_learning_rate", "fast", ["is not a number, such as the default, 0.01."]),
        ("TRAIN.critic_learning_rate", None, ["TRAIN.critic_learning_rate=null is not a number"]),
        ("TRAIN.critic_learning_rate", -1, ["TRAIN.critic_learning_rate=-1 must be at least 0."]),
        ("TRAIN.critic_optimizer", "Adamw", ["is unknown: choose one of Adam, RMSProp, SGD."]),
        (
            "TRAIN.eval_during_train",
            "maybe",
            ["maybe is not true or false, such as the default, t"],
        ),
        ("TRAIN.eval_during_train", 1, ["TRAIN.eval_during_train=1 is not true or false"]),
        ("TRAIN.lr_schedule", "cosine", ["choose one of constant, linear."]),
        ("mode", "exports", ["choose one of train, eval, export, infer."]),
        ("device", "tpu", ["device=tpu is unknown: choose one of null, cpu, gpu"]),
        ("DATA.mode", "8gaussian", ["choose one of 8gaussians, 25gaussians, swissroll."]),
        ("DATA.mode", None, ["DATA.mode=null is unknown"]),
        ("EVAL.pretrained_gen_model_path", 3, ["=3 is not a path: put it in quotes."]),
        ("INFER.export_path", None, ["INFER.export_path=null is not a path"]),
        ("TRAIN.resume", 5, ["TRAIN.resume=5 is not a path"]),
        ("EVAL.pretrained_gen_sha256", "12ab", ["=12ab is not a SHA-256: give its 64 hexadecimal"]),
        ("EVAL.pretrained_dis_sha256", "g" * 64, ["is not a SHA-256"]),
        ("INFER.pretrained_sha256", 7, ["=7 is not a SHA-256", "digits, in quotes."]),
        ("INFER.pretrained_sha256", "0aB9" * 16 + "0", ["is not a SHA-256"]),
        ("INFER.pretrained_sha256", "0aB9" * 16, None),
        ("output_dir", None, ["output_dir=null is not a path"]),
        ("MODEL.arch", "published", ["MODEL.arch=published is for mode=eval"]),
        # references
        ("TRAIN.epochs", "${TRAIN.beta1}", ["TRAIN.epochs=0.5 is not a whole number"]),
        ("DATA.mode", "${oc.env:NOWHERE,8gaussian}", ["DATA.mode=8gaussian is unknown"]),
        ("TRAIN.epochs", "${nothing}", ["TRAIN.epochs=${nothing} can't be resolved", "'nothing'"]),
        ("DATA.mode", "${oc.env:NOWHERE}", ["DATA.mode=${oc.env:NOWHERE} can't be resolved"]),
        ("TRAIN.epochs", "${TRAIN.epochs}", ["TRAIN.epochs=${TRAIN.epochs} can't be resolved"]),
        ("TRAIN.epochs", "${seed}", None),
        ("TRAIN.learning_rate", 1, None),
        ("TRAIN.critic_learning_rate", 1, None),
        ("TRAIN.critic_learning_rate", "${TRAIN.learning_rate}", None),
        ("DATA.mode", "${oc.env:NOWHERE,8gaussians}", None),
        ("EVAL.pretrained_gen_model_path", "https://host/a.pdparams", None),
    ],
)
def test_check_settings(configure, key, value, parts):
    text = refuse(change(configure("toy"), key, value))
    if parts is None:
        assert text is None
    else:
        assert text is not None and "\n" not in text
        for part in parts:
            assert part in text


def test_check_settings_names_what_is_absent(configure):
    cfg = configure("toy")
    OmegaConf.set_struct(cfg, False)
    del cfg.TRAIN.epochs
    del cfg.DATA
    assert refuse(cfg) == "the configuration lacks TRAIN.epochs, DATA.mode."


@pytest.mark.parametrize("hidden", [0, 9, 2.5])
def test_the_toy_generators_depth_is_one_of_its_choices(hidden, configure):
    message = refuse(configure("toy", f"MODEL.gen_net.hidden={hidden}"), "wgangp_toy")
    assert "choose one of 1, 2, 3, 4, 5, 6, 7, 8." in message


def test_published_networks_are_for_evaluation(configure):
    assert "is for mode=eval" in refuse(configure("toy", "MODEL.arch=published"))
    assert refuse(configure("toy", "MODEL.arch=published mode=eval")) is None


@pytest.mark.parametrize("script", NAMES)
def test_each_number_has_a_range_and_its_ends_hold(script, configure):
    cfg = configure(script.partition("_")[2], "mode=eval")  # a training's batches have groups
    numbers = {
        key: value
        for key in DEFAULTS[script]
        if isinstance(value := OmegaConf.select(cfg, key), (int, float))
        and not isinstance(value, bool)
        and key not in MODULES[script].CHOICES  # which say all
    }
    assert len(numbers) > 20 and set(numbers) <= set(RANGES)
    for key, default in numbers.items():
        least, bound = RANGES[key]
        kind = type(default)
        step = 1 if kind is int else 1e-13
        assert refuse(change(cfg, key, kind(least)), script) is None
        assert f"must be at least {least}" in refuse(change(cfg, key, least - step), script)
        if bound is None:
            assert refuse(change(cfg, key, kind(10**9)), script) is None
        else:
            assert refuse(change(cfg, key, bound - step), script) is None
            assert f"and below {bound}." in refuse(change(cfg, key, kind(bound)), script)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["kid", "prdc"], None),
        (["memorisation", "memorisation"], None),
        ("kid", "EVAL.measures=kid must be a list of some of score, frechet, kid, prdc, memo"),
        (None, "EVAL.measures=null must be a list of some of score,"),
        ([], "EVAL.measures=[] must be a list of some of"),
        (["score", "fid"], "EVAL.measures has fid, which is unknown: choose among score, frechet"),
        ([["kid"]], "EVAL.measures has ['kid'], which is unknown: choose among score,"),
        ([None], "EVAL.measures has null, which is unknown: choose among score,"),
    ],
)
def test_measures_are_a_list_of_known_names(configure, value, message):
    text = refuse(change(configure("mnist", "mode=eval"), "EVAL.measures", value), "wgangp_mnist")
    if message is None:
        assert text is None
    else:
        assert text.startswith(message) and "\n" not in text
        assert "as in EVAL.measures=[score,fre" in text.replace("such as EVAL", "as in EVAL")


def test_the_best_metric_is_among_the_measures(configure):
    cfg = configure("mnist", "TRAIN.best_metric=recall")
    assert refuse(cfg, "wgangp_mnist") == (
        "TRAIN.best_metric=recall is a figure of prdc, which is not among EVAL.measures: give "
        "EVAL.measures=[score,frechet,prdc], or another TRAIN.best_metric."
    )
    for key, value in (
        *(("EVAL.measures", ["prdc"]), ("TRAIN.best_metric", "classifier_score")),
        *(("TRAIN.eval_during_train", False), ("mode", "eval")),
    ):
        assert refuse(change(cfg, key, value), "wgangp_mnist") is None
    for name in NAMES[1:]:  # Each best metric belongs to a measure, or is always there.
        metrics = set(MODULES[name].CHOICES["TRAIN.best_metric"]) - {"class_frechet_distance"}
        assert metrics <= {figure for figures in MEASURES.values() for figure in figures}


def test_a_training_batch_is_a_multiple_of_its_groups(configure):
    cfg = configure("cifar10", "TRAIN.batch_size=9")
    assert refuse(cfg, "wgangp_cifar10") == (
        "TRAIN.batch_size=9 can't be split into MODEL.gen_net.batch_norm_groups=2 equal groups: "
        "set a multiple of 2, or MODEL.gen_net.batch_norm_groups=1."
    )
    for key, value in (("MODEL.gen_net.batch_norm_groups", 3), ("mode", "eval")):
        assert refuse(change(cfg, key, value), "wgangp_cifar10") is None


@pytest.mark.parametrize("size", [1, 2])
def test_a_single_sample_is_not_normalised_in_training(configure, size):
    settings = f"MODEL.arch=wgan_lab TRAIN.batch_size={size} MODEL.gen_net.batch_norm_groups={size}"
    cfg = configure("mnist", settings)
    assert refuse(cfg, "wgangp_mnist") == (
        f"TRAIN.batch_size={size} leaves a single sample in each group that MODEL.arch=wgan_lab "
        f"normalises, so all would be alike: set more than {size}."
    )
    for key, value in (("TRAIN.batch_size", 2 * size), ("mode", "eval")):
        assert refuse(change(cfg, key, value), "wgangp_mnist") is None


@pytest.mark.parametrize(
    ("mode", "section"), [("train", "EVAL"), ("eval", "EVAL"), ("infer", "INFER")]
)
def test_a_single_sample_is_not_normalised_in_other_modes(configure, mode, section):
    cfg = configure("mnist", f"MODEL.arch=wgan_lab mode={mode} {section}.batch_size=1")
    with pytest.raises(UserError) as error:
        check_drawn_batches(cfg)
    assert str(error.value).startswith(
        f"{section}.batch_size=1 leaves a single sample in each batch that MODEL.arch=wgan_lab "
        "normalises, so all would be alike: set 2 or more, or "
    )
    # The settings of the weights are not known yet.
    assert (refuse(cfg, "wgangp_mnist") is None) == (mode != "train")
    for key, value in (
        (f"{section}.batch_size", 2),
        ("MODEL.gen_net.batch_norm_statistics", "running"),
        ("MODEL.arch", "paper"),
        *([("TRAIN.eval_during_train", False)] if mode == "train" else []),
    ):
        check_drawn_batches(change(cfg, key, value))


def test_ranges_choices_and_new_names_are_of_keys_that_exist():
    assert set(RANGES) <= KEYS
    assert {name for key, (other, _) in FORMER_VALUES.items() for name in (key, other)} <= KEYS
    assert set(RENAMED.values()) <= KEYS and not set(RENAMED) & KEYS
    groups = {path.name for path in (SCRIPTS / "conf").iterdir() if path.is_dir()}
    assert set(CHOICES) <= KEYS | groups
    for name in NAMES:
        own = MODULES[name].CHOICES
        assert set(own) <= set(DEFAULTS[name]) | groups
        for key, value in DEFAULTS[name].items():
            choices = {**CHOICES, **own}.get(key)
            values = value if isinstance(value, list) else [value]
            known = choices is None or set(values) <= set(choices)
            assert known or str(value).startswith("${"), key


@pytest.mark.parametrize("former", RENAMED)
@pytest.mark.parametrize("script", NAMES)
def test_a_former_name_is_refused_with_the_new_one(configure, script, former):
    text = refuse(change(configure(script.partition("_")[2]), former, 1), script)
    if RENAMED[former] in DEFAULTS[script]:
        assert text == f"{former} has a new name: {RENAMED[former]}."
    else:
        assert f"unknown setting {former}." in text


# Runs that, together, read each setting. Some end with an error of the user's.
TINY = "TRAIN.epochs=1 TRAIN.iters_per_epoch=1 TRAIN.eval_num_samples=20 EVAL.num_samples=20 "
TINY += "TRAIN.batch_size=2 EVAL.batch_size=10 INFER.num_samples=2 INFER.batch_size=2 "
TINY += "MODEL.gen_net.dim=2 MODEL.dis_net.dim=2"
MODES = [
    "mode=eval EVAL.pretrained_gen_model_path={0}/model_generator "
    "EVAL.pretrained_dis_model_path={0}/model_discriminator",
    "mode=export INFER.pretrained_model_path={0}/model_generator INFER.export_path={0}/exported",
    "mode=infer INFER.export_path={0}/exported",
]
EVALUATION = MODES[:1]  # All scripts share the settings of the other modes.
DIVERGING = "MODEL.gen_net.dim=16 MODEL.dis_net.dim=16 TRAIN.learning_rate=1e30 TRAIN.epochs=3"
OTHER_DATA = "DATA.data_path={1}/a/0.png"  # a file of another kind
LABELS = "DATA.data_path={1} MODEL.use_label=true MODEL.num_classes=2"
NO_INCEPTION = "EVAL.inception_weights=/nowhere/none.pth"
RUNS = {
    "wgangp_toy": {
        "TRAIN.ema.use_ema=false": MODES,
        f"{DIVERGING} TRAIN.on_nan=roll_back TRAIN.max_rollbacks=1": [],
        "LOSS=gan": [],
        "LOSS=wgan_div": [],
    },
    "wgangp_mnist": {
        OTHER_DATA: [],
        "DATA.source=digits MODEL.arch=wgan_lab MODEL.use_label=true": EVALUATION,
        "DATA.source=digits preset=wgan_lab TRAIN.epochs=1 TRAIN.iters_per_epoch=1": [],
    },
    "wgangp_cifar10": {
        OTHER_DATA: [],
        f"DATA.source=synthetic {NO_INCEPTION}": [],
        "DATA.source=synthetic EVAL.inception=false": EVALUATION,
    },
    "wgangp_image64": {
        f"DATA.data_path={{1}} MODEL.arch=resnet {NO_INCEPTION}": [],
        f"{LABELS} EVAL.inception=false": EVALUATION,
    },
}


class Recorder:
    """Makes configurations whose values are computed when they are read, and keeps their keys."""

    def __init__(self):
        self.read, self.is_paused, self.values = set(), False, {}
        OmegaConf.register_new_resolver("recorded", self.resolve, replace=True)

    def resolve(self, key):
        if not self.is_paused:
            self.read.add(key)
        return self.values[key]

    def wrap(self, cfg):
        """A copy of a configuration whose reads are kept."""
        self.values = flatten(OmegaConf.to_container(cfg, resolve=True))
        cfg = cfg.copy()
        for key in self.values:
            OmegaConf.update(cfg, key, f"${{recorded:{key}}}")
        return cfg

    @contextlib.contextmanager
    def pause(self):
        self.is_paused = True
        try:
            yield
        finally:
            self.is_paused = False

    def pausing(self, function):
        """A function that reads all values at once, which counts for nothing."""

        def call(*arguments, **options):
            with self.pause():
                result = function(*arguments, **options)
                return list(result) if function is DictConfig.items else result

        return call


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    for owner, name in ((OmegaConf, "to_container"), (OmegaConf, "save"), (DictConfig, "items")):
        function = getattr(owner, name)
        wrapped = recorder.pausing(function)
        monkeypatch.setattr(owner, name, wrapped if owner is DictConfig else staticmethod(wrapped))
    yield recorder
    OmegaConf.clear_resolver("recorded")


def run(script, cfg):
    """Runs a script's experiment as the script does; an error of the user's may end it."""
    (experiment,) = (
        value
        for value in vars(MODULES[script]).values()
        if isinstance(value, type) and issubclass(value, Experiment) and value is not Experiment
    )
    try:
        run_mode(experiment(cfg))
    except UserError as error:
        return str(error)
    return None


def draw_pictures(folder):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            picture = Image.fromarray(rng.integers(256, size=(64, 64, 3), dtype="uint8"))
            picture.save(folder / name / f"{number}.png")


def test_each_setting_is_read(configure, recorder, tmp_path):
    """Shared settings are read by one of the scripts, a script's own by that script."""
    draw_pictures(tmp_path / "pictures")
    shared = set(flatten(OmegaConf.to_container(OmegaConf.load(SCRIPTS / "conf" / "base.yaml"))))
    read, errors = {}, []
    for script, trainings in RUNS.items():
        recorder.read = set()
        for number, (training, modes) in enumerate(trainings.items()):
            folder = tmp_path / f"{script}_{number}"
            for mode in ("mode=train", *modes):
                words = f"{TINY} {training} {mode}".format(folder, tmp_path / "pictures")
                cfg = configure(script.partition("_")[2], words)
                cfg.output_dir = str(folder)
                error = run(script, recorder.wrap(cfg))
                errors += [] if error is None else [f"{script}: {error}"]
        read[script] = recorder.read
    unread = [key for key in shared - set().union(*read.values()) if not key.startswith("hydra.")]
    unread += [key for name in NAMES for key in set(DEFAULTS[name]) - shared - read[name]]
    assert unread == [], errors
    # the runs that were to end well did
    assert len(errors) == 5, errors
