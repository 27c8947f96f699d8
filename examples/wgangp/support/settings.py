# SPDX-License-Identifier: Apache-2.0
"""What settings there are, and their checks."""

from __future__ import annotations

import difflib
import functools
import importlib.util
import math
import os
import re
from os import path as osp
from typing import Any
from typing import Dict
from typing import Mapping
from typing import Optional
from typing import Sequence
from typing import Set
from typing import Tuple

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf import ListConfig
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from omegaconf.errors import OmegaConfBaseException

from support import paths
from support.errors import UserError
from support.errors import printable
from support.errors import require

CONF = osp.join(osp.dirname(osp.dirname(osp.abspath(__file__))), "conf")

# Values of settings and options of groups, for every script; a script adds its own.
CHOICES: Dict[str, Sequence] = {
    "mode": ("train", "eval", "export", "infer"),
    "preset": ("authors", "laptop"),
    "device": (None, "cpu", "gpu", "xpu", "sdaa"),
    "DATA.label_distribution": ("uniform", "data"),
    "MODEL.arch": ("paper", "published"),
    "MODEL.gen_net.batch_norm_statistics": ("batch", "running"),
    "MODEL.dis_net.norm": (None, "layer", "batch", "spectral"),
    "LOSS.name": tuple(sorted(name[: -len(".yaml")] for name in os.listdir(f"{CONF}/LOSS"))),
    "LOSS.penalty_gradient": ("auto", "first_order", "double_backward"),
    "TRAIN.optimizer": ("Adam", "RMSProp", "SGD"),
    "TRAIN.critic_optimizer": ("Adam", "RMSProp", "SGD"),
    "TRAIN.lr_schedule": ("constant", "linear"),
    "TRAIN.on_nan": ("stop", "roll_back"),
    "INFER.engine": ("native", "onnx"),
}
# What EVAL.measures may hold, and those of each one's figures that TRAIN.best_metric may be.
MEASURES: Dict[str, Tuple[str, ...]] = {
    "score": ("inception_score", "classifier_score"),
    "frechet": ("fid", "frechet_distance"),
    "kid": ("kid", "kernel_distance"),
    "prdc": ("precision", "recall", "density", "coverage"),
    "memorisation": (),
}
CHOICES["EVAL.measures"] = tuple(MEASURES)
# The smallest value of a number, and the bound below which it must be (None: there is none).
RANGES: Dict[str, Tuple[float, Optional[float]]] = {
    "seed": (0, 2**32),
    "log_freq": (1, None),
    "DATA.jitter": (0, 1),
    "DATA.max_pixels": (1, None),
    "DATA.max_unpacked": (1, None),
    "MODEL.num_classes": (1, None),
    "MODEL.gen_net.dim": (1, None),
    "MODEL.gen_net.noise_dim": (1, None),
    "MODEL.gen_net.batch_norm_groups": (1, None),
    "MODEL.dis_net.dim": (1, None),
    "LOSS.penalty_weight": (0, None),
    "LOSS.clip": (1e-12, None),
    "LOSS.k": (0, None),
    "LOSS.p": (0, None),
    "LOSS.critic_class_weight": (0, None),
    "LOSS.generator_class_weight": (0, None),
    "TRAIN.epochs": (1, None),
    "TRAIN.iters_per_epoch": (1, None),
    "TRAIN.n_critic": (1, None),
    "TRAIN.batch_size": (1, None),
    "TRAIN.update_freq": (1, None),
    "TRAIN.generator_batch_factor": (1, None),
    "TRAIN.learning_rate": (0, None),
    "TRAIN.beta1": (0, 1),
    "TRAIN.beta2": (0, 1),
    "TRAIN.momentum": (0, 1),
    "TRAIN.critic_learning_rate": (0, None),
    "TRAIN.save_freq": (0, None),
    "TRAIN.keep": (0, None),
    "TRAIN.max_rollbacks": (0, None),
    "TRAIN.eval_freq": (1, None),
    "TRAIN.eval_num_samples": (1, None),
    "TRAIN.ema.decay": (1e-6, 1),
    "EVAL.num_samples": (1, None),
    "EVAL.batch_size": (1, None),
    "EVAL.truncation": (0, 0.5),
    "INFER.num_samples": (1, None),
    "INFER.batch_size": (1, None),
    "INFER.frames": (0, None),
    "INFER.truncation": (0, 0.5),
}
# Settings that need a package.
WRITERS: Dict[str, str] = {"use_tbd": "tensorboardX", "use_vdl": "visualdl"}
LARGEST = 2**63  # a bound of all whole numbers
# Former names of settings. Checkpoints and config.yaml of earlier versions hold them.
RENAMED: Dict[str, str] = {
    "TRAIN.penalty_weight": "LOSS.penalty_weight",
    "TRAIN.penalty_gradient": "LOSS.penalty_gradient",
    "TRAIN.critic_class_weight": "LOSS.critic_class_weight",
    "TRAIN.generator_class_weight": "LOSS.generator_class_weight",
    "EVAL.batch_norm": "MODEL.gen_net.batch_norm_statistics",
}
# Settings of PaddleScience's other examples, and what does the same here.
PPSCI_KEYS: Dict[str, str] = {
    "TRAIN.checkpoint_path": "TRAIN.resume",
    "TRAIN.pretrained_model_path": "TRAIN.pretrained_gen_model_path",
    "EVAL.pretrained_model_path": "EVAL.pretrained_gen_model_path",
}
# What a setting was before it had a key, by a key that earlier versions have in its place.
FORMER_VALUES: Dict[str, Tuple[str, Any]] = {
    "MODEL.use_label": ("MODEL.gen_net.noise_dim", False),
    "MODEL.dis_net.projection": ("MODEL.gen_net.noise_dim", False),
    "LOSS.critic_class_weight": ("MODEL.gen_net.noise_dim", 1.0),
    "LOSS.generator_class_weight": ("MODEL.gen_net.noise_dim", 0.1),
    "DATA.label_distribution": ("MODEL.use_label", "uniform"),
    "MODEL.gen_net.hidden": ("DATA.mode", 3),
    "MODEL.gen_net.batch_norm_groups": ("MODEL.gen_net.noise_dim", 1),
    "EVAL.measures": ("MODEL.gen_net.noise_dim", ["score", "frechet"]),
    "EVAL.truncation": ("DATA.mode", 0.0),
    "INFER.truncation": ("DATA.mode", 0.0),
    "MODEL.attention": ("MODEL.num_classes", False),
}


def load_defaults(script: str) -> Dict[str, Any]:
    """Returns the configuration of a script as it is shipped, references unresolved.

    Args:
        script: Name of its file in conf/, without the suffix.
    """
    return OmegaConf.to_container(_compose_defaults(script))


@functools.cache
def _compose_defaults(script: str) -> DictConfig:
    current = GlobalHydra.instance().hydra  # set while a script runs
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(CONF, job_name=script, version_base=None):
            return hydra.compose(script)
    finally:
        if current is not None:
            GlobalHydra.instance().initialize(current)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Dict[str, Any]:
    """Returns nested settings as {"TRAIN.epochs": 3, ...}."""
    flat = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def flatten_current(settings: Mapping[str, Any]) -> Dict[str, Any]:
    """Flattens settings that may be of an earlier version; their keys become the present ones."""
    flat = {RENAMED.get(key, key): value for key, value in flatten(settings).items()}
    for key, (other, value) in FORMER_VALUES.items():
        if other in flat:
            flat.setdefault(key, value)
    return flat


def check_settings(cfg: DictConfig, script: str, choices: Mapping[str, Sequence]) -> None:
    """Checks a composed configuration: names, kinds, ranges and choices.

    The options of config groups (preset) are checked, too, where Hydra's own configuration is
    set (`HydraConfig`): in a job, and by `command_line.check`.

    Args:
        cfg: The configuration.
        script: Name of the script's file in conf/, without the suffix.
        choices: Values of the script's own settings, in addition to `CHOICES`.

    Raises:
        UserError: Says what is wrong and what would be right.
    """
    known, choices = flatten(load_defaults(script)), {**CHOICES, **choices}
    if HydraConfig.initialized():
        for group, option in HydraConfig.get().runtime.choices.items():
            check_choice(group, None if option == "null" else option, choices)
    given = _resolve(cfg)
    for key, value in given.items():
        _check_setting(key, value, known, choices)
    missing = [key for key in known if key not in given]
    require(not missing, f"the configuration lacks {', '.join(missing)}.")
    for key, package in WRITERS.items():
        require(
            not given[key] or cfg.mode != "train" or importlib.util.find_spec(package) is not None,
            f"{key}=true needs the package {package}: pip install {package}.",
        )
    require(
        not cfg.MODEL.dis_net.get("projection") or cfg.MODEL.use_label,
        "MODEL.dis_net.projection=true needs MODEL.use_label=true.",
    )
    require(
        script != "wgangp_mnist" or not cfg.MODEL.use_label or cfg.MODEL.arch == "wgan_lab",
        "MODEL.use_label=true needs MODEL.arch=wgan_lab: the paper's networks take no labels.",
    )
    require(
        cfg.mode != "train" or cfg.MODEL.arch != "published",
        "MODEL.arch=published is for mode=eval, export and infer: it can't be trained.",
    )
    require(
        cfg.mode != "train" or not cfg.MODEL.get("attention") or cfg.MODEL.arch == "resnet",
        f"MODEL.attention=true is for MODEL.arch=resnet, not for {cfg.MODEL.arch}.",
    )
    _check_best_metric(cfg)
    groups, batch_size = cfg.MODEL.gen_net.get("batch_norm_groups", 1), cfg.TRAIN.batch_size
    require(
        cfg.mode != "train" or batch_size % groups == 0,
        f"TRAIN.batch_size={batch_size} can't be split into MODEL.gen_net.batch_norm_groups="
        f"{groups} equal groups: set a multiple of {groups}, or MODEL.gen_net.batch_norm_groups=1.",
    )
    require(
        cfg.mode != "train" or cfg.MODEL.arch != "wgan_lab" or batch_size > groups,
        f"TRAIN.batch_size={batch_size} leaves a single sample in each group that "
        f"MODEL.arch=wgan_lab normalises, so all would be alike: set more than {groups}.",
    )
    if cfg.mode == "train":  # Other modes check it once the weights have brought their settings.
        check_drawn_batches(cfg)


def check_drawn_batches(cfg: DictConfig) -> None:
    """Refuses batches of one sample that a generator would normalise by itself.

    Args:
        cfg: The configuration, with the networks of the weights if there are any.

    Raises:
        UserError: If all samples would be alike.
    """
    section = "INFER" if cfg.mode == "infer" else "EVAL"
    draws = cfg.TRAIN.eval_during_train if cfg.mode == "train" else cfg.mode != "export"
    statistics = cfg.MODEL.gen_net.get("batch_norm_statistics")
    is_alone = draws and cfg.MODEL.arch == "wgan_lab" and cfg[section].batch_size == 1
    require(
        not is_alone or statistics == "running",
        f"{section}.batch_size=1 leaves a single sample in each batch that MODEL.arch=wgan_lab "
        "normalises, so all would be alike: set 2 or more, or "
        "MODEL.gen_net.batch_norm_statistics=running.",
    )


def list_given(cfg: DictConfig, script: str) -> Set[str]:
    """Lists the settings that the user has chosen: named in the command, or not the default.

    Args:
        cfg: The configuration.
        script: Name of the script's file in conf/, without the suffix.
    """
    known, given = flatten(load_defaults(script)), flatten(OmegaConf.to_container(cfg))
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    named = tuple(f"{text.lstrip('+~').partition('=')[0]}." for text in overrides)
    return {
        key
        for key, value in given.items()
        if value != known.get(key) or f"{key}.".startswith(named)
    }


def check_value(key: str, value: Any, script: str, choices: Mapping[str, Sequence]) -> None:
    """Raises `UserError` if a setting can't have a value; see `check_settings`."""
    _check_setting(key, value, flatten(load_defaults(script)), {**CHOICES, **choices})


def check_choice(key: str, value: Any, choices: Mapping[str, Sequence]) -> None:
    """Raises `UserError` if a setting's value, or a group's option, is not among its choices."""
    if key in choices and value not in choices[key]:
        shown, *names = (as_yaml(name) for name in (value, *choices[key]))
        hint = "choose one of" if len(names) > 1 else "here it can only be"
        advice = f" --help={key} explains {'them' if len(names) > 1 else 'it'}."
        advice = _advise_device(str(value)) if key == "device" else advice
        raise UserError(f"{key}={shown} is unknown: {hint} {', '.join(map(str, names))}.{advice}")


def _advise_device(name: str) -> str:
    """Says what to give in place of another library's name of a device; "" for other texts."""
    kind, _, number = name.lower().partition(":")
    if kind.isdigit():
        kind, number = "gpu", kind
    kind = {"cuda": "gpu", "rocm": "gpu", "hip": "gpu"}.get(kind, kind)
    if kind == "gpu" and number.isdigit():
        return (
            f" For one of several GPUs, set CUDA_VISIBLE_DEVICES={number} in the environment and "
            "give device=gpu."
        )
    if kind in ("cpu", "gpu", "xpu", "sdaa"):
        return f" Give device={kind}."
    if kind == "npu":
        return " PaddleScience has no device npu."
    if kind in ("mps", "metal"):
        return " Paddle has no device for Apple's GPUs: give device=cpu."
    return " With null, Paddle takes a GPU where there is one." if kind == "auto" else ""


def describe_unknown(key: str, known: Mapping[str, Any]) -> str:
    """Writes a sentence about a key that does not exist: its new name, or similar and valid ones.

    Args:
        key: The full name.
        known: The script's settings as they are shipped, by full key.
    """
    if RENAMED.get(key) in known:
        return f"{key} has a new name: {RENAMED[key]}."
    if key in PPSCI_KEYS:
        return f"{key} of other examples of PaddleScience is {PPSCI_KEYS[key]} here."
    groups = _list_groups(known)
    if key in groups:
        return f"{key} is a group of settings. Set one of {_list_names(key, known)}."
    names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(key.casefold(), names, 1, 0.7)
    hint = f" Did you mean {names[near[0]]}?" if near else ""
    group = key.rpartition(".")[0]
    while group and group not in groups:
        group = group.rpartition(".")[0]
    flag = f"--help={group}" if group else "--help"
    return f"unknown setting {key}.{hint} Valid here: {_list_names(group, known)}. See {flag}."


def _resolve(node: DictConfig, prefix: str = "") -> Dict[str, Any]:
    """Flattens a configuration, with references resolved."""
    flat = {}
    for name in node:
        key = f"{prefix}{name}"
        try:
            value = node[name]
        except MissingMandatoryValue:
            raise UserError(f"{key} has no value yet: give {key}=VALUE.") from None
        except OmegaConfBaseException as error:
            text = OmegaConf.to_container(node)[name]
            reason = printable(str(error).split("\n")[0])
            raise UserError(f"{key}={printable(text)} can't be resolved ({reason}).") from None
        if isinstance(value, DictConfig):
            flat.update(_resolve(value, f"{key}."))
        else:
            flat[key] = value
    return flat


def _check_setting(
    key: str, value: Any, known: Mapping[str, Any], choices: Mapping[str, Sequence]
) -> None:
    """Checks one setting: its name, its kind, its range, its choices.

    Args:
        key: The full name, such as "TRAIN.epochs".
        value: What it is set to, with references resolved.
        known: The script's settings as they are shipped, by full key.
        choices: Values of some settings.

    Raises:
        UserError: Says what is wrong and what would be right.
    """
    require(key in known, describe_unknown(key, known))
    if isinstance(known[key], list):
        _check_list(key, value, choices[key])
        return
    check_choice(key, value, choices)
    require(
        key != "DATA.class_level" or value is None or type(value) is int,
        f"{key}={as_yaml(value)} must be a whole number, such as 1 or -1, or null.",
    )
    expected = known[key]
    if isinstance(expected, str) and expected.startswith("${."):  # the value of a sibling
        expected = known[f"{key.rpartition('.')[0]}.{expected[3:-1]}"]
    if not (value is None and expected is None):
        _check_text(key, value)
    # A default of null or a text does not say which kind of value is right.
    if expected is None or isinstance(expected, str):
        return
    kind = (int, float) if isinstance(expected, float) else type(expected)
    # A bool is an int in Python, but not to a user.
    fits = isinstance(value, kind) and isinstance(value, bool) == isinstance(expected, bool)
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}[type(expected)]
    default = as_yaml(expected)
    require(fits, f"{key}={as_yaml(value)} is not {wanted}, such as the default, {default}.")
    if not isinstance(value, bool):
        _check_range(key, value)


def _check_list(key: str, value: Any, choices: Sequence[str]) -> None:
    """Raises `UserError` if a setting is not a list of at least one of its choices."""
    names, example = ", ".join(choices), f"{key}=[{','.join(choices[:2])}]"
    require(
        isinstance(value, (list, ListConfig)) and len(value) > 0,
        f"{key}={as_yaml(value)} must be a list of some of {names}, such as {example}.",
    )
    for name in value:
        require(
            name in choices,
            f"{key} has {as_yaml(name)}, which is unknown: choose among {names}, as in {example}.",
        )


def _check_best_metric(cfg: DictConfig) -> None:
    """Raises `UserError` if a training chooses its best generator by what it does not measure."""
    metric, chosen = cfg.TRAIN.best_metric, cfg.EVAL.get("measures")
    if cfg.mode != "train" or not cfg.TRAIN.eval_during_train or chosen is None:
        return
    needed = next((name for name, figures in MEASURES.items() if metric in figures), None)
    wanted = ",".join([*chosen, str(needed)])
    require(
        needed is None or needed in chosen,
        f"TRAIN.best_metric={metric} is a figure of {needed}, which is not among EVAL.measures: "
        f"give EVAL.measures=[{wanted}], or another TRAIN.best_metric.",
    )


def _check_range(key: str, value: float) -> None:
    """Raises `UserError` if a number is out of its range or not finite."""
    least, bound = RANGES.get(key, (None, None))
    if bound is None and isinstance(value, int) and value >= LARGEST:
        bound = LARGEST
    limits = [] if least is None else [f"at least {least}"]
    if bound is not None:
        limits.append(f"below {bound}")
    # Python can't convert very large whole numbers.
    is_finite = isinstance(value, int) or math.isfinite(value)
    if not is_finite and bound is None:
        limits.append("finite")
    require(
        is_finite and (least is None or value >= least) and (bound is None or value < bound),
        f"{key}={value} must be {' and '.join(limits)}.",
    )


def _check_text(key: str, value: Any) -> None:
    """Raises `UserError` if a setting is a path or a checksum, and its value is not one."""
    if paths.is_path(key):
        paths.check_path(key, value, as_yaml(value))
    if key.endswith("_sha256"):
        require(
            isinstance(value, str) and bool(re.fullmatch("[0-9a-fA-F]{64}", value)),
            f"{key}={as_yaml(value)} is not a SHA-256: give its 64 hexadecimal digits, in quotes.",
        )


def as_yaml(value: Any) -> Any:
    """Returns a value as YAML writes it."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return printable(value)
    return str(value).lower() if isinstance(value, bool) else value


def _list_groups(known: Mapping[str, Any]) -> Set[str]:
    """Lists the groups, of all depths, that keys are in."""
    parts = [key.split(".") for key in known]
    return {".".join(key[:depth]) for key in parts for depth in range(1, len(key))}


def _list_names(group: str, known: Mapping[str, Any]) -> str:
    return ", ".join(key for key in known if key.startswith(f"{group}." if group else ""))
