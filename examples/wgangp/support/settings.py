# SPDX-License-Identifier: Apache-2.0
"""Settings of the scripts and their checks."""

from __future__ import annotations

import difflib
import math
import os
import re
from os import path as osp
from typing import Any
from typing import Dict
from typing import List
from typing import Optional
from typing import Sequence

from support.errors import UserError
from support.errors import fail
from support.errors import require
from support.signals import end_on_signals
from support.storage import check_writable

CONF = osp.join(osp.dirname(osp.dirname(osp.abspath(__file__))), "conf")


def shipped_settings(script: str) -> Dict[str, Any]:
    """The configuration of a script as it is shipped, references unresolved.

    Args:
        script: Name of its file in conf/, without the suffix.
    """
    from omegaconf import OmegaConf

    settings = OmegaConf.to_container(OmegaConf.load(osp.join(CONF, f"{script}.yaml")))
    return {name: value for name, value in settings.items() if name not in ("defaults", "hydra")}


def check_command_line(script: str, choices: Dict[str, Sequence]) -> None:
    """Refuses, in one line and before Paddle is loaded, a slip in the settings typed.

    What only Hydra can tell (files of the user's own, sweeps, references) is checked by
    `launch`, when it is composed. Exits with status 2 after saying what is wrong.

    Args:
        script: Name of the script's file in conf/, without the suffix.
        choices: What some of the script's settings may be.
    """
    from hydra._internal.utils import get_args_parser
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    arguments = get_args_parser().parse_args()
    if arguments.shell_completion:
        return
    default, parser = shipped_settings(script), OverridesParser.create()
    folder, resumes = None, False
    end_on_signals()
    try:
        for text in arguments.overrides:
            override = parser.parse_override(text)
            key = override.key_or_group
            if key in ("hydra.run.dir", "output_dir"):
                folder = str(override.value())
            resumes = resumes or text == "TRAIN.resume=auto"
            if osp.isdir(osp.join(CONF, key)) or re.match(r"hydra([./]|$)", key):
                if not (override.is_delete() or override.is_sweep_override()):
                    _check_choice(key, override.value(), choices)
                continue  # the rest is Hydra's to judge
            if key in _groups(default):
                names = [name for name in flatten(default) if name.startswith(f"{key}.")]
                require(
                    isinstance(override.value(), dict),
                    f"{key} is a group of settings. Set one of {', '.join(names)}.",
                )
            elif override.is_delete() or override.is_sweep_override():
                require(key in flatten(default), unknown_key(key, default))
            else:
                check_setting(key, override.value(), default, choices)
        require(
            folder is not None or not resumes,
            "TRAIN.resume=auto goes on in a folder that is named: give hydra.run.dir=.",
        )
        check_folder(folder)
    except HydraException as error:
        reason = str(error).split("\n")[0]
        fail(
            f"{text} can't be read ({reason}). A text with special characters wants "
            "quotes inside quotes: KEY=\"'a=b'\"."
        )
    except UserError as error:
        fail(str(error))


def check_folder(folder: Optional[str]) -> None:
    """Refuses an output folder that can't be made or written to, before Hydra tries to.

    Args:
        folder: What hydra.run.dir is set to, if it is.

    Raises:
        UserError: Says what stands in the way.
    """
    require(
        folder is not None or int(os.environ.get("PADDLE_TRAINERS_NUM", 1)) == 1,
        "several processes need one folder for all: name it by hydra.run.dir=.",
    )
    known = (folder or "${").partition("${")
    place = osp.abspath(osp.dirname(known[0]) if known[1] else known[0])
    check_writable(place, "Name another output folder by hydra.run.dir=.")


def flatten(settings: Dict[str, Any], prefix: str = "") -> Dict[str, Any]:
    """Nested settings as {"TRAIN.epochs": 3, ...}."""
    flat = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _groups(settings: Dict[str, Any]) -> List[str]:
    return sorted({key.rpartition(".")[0] for key in flatten(settings)} - {""})


def unknown_key(key: str, default: Dict[str, Any]) -> str:
    """A sentence that refuses a key, with near misses and the names that exist beside it."""
    known = flatten(default)
    near = difflib.get_close_matches(key, known, 1, 0.7)
    hint = f" Did you mean {near[0]}?" if near else ""
    group = key.rpartition(".")[0]
    while group and group not in _groups(default):
        group = group.rpartition(".")[0]
    names = [name for name in known if name.startswith(group + "." if group else "")]
    return f"unknown setting {key}.{hint} Valid here: {', '.join(names)}."


def check_setting(
    key: str, value: Any, default: Dict[str, Any], choices: Dict[str, Sequence]
) -> None:
    """Checks one setting: its name, its kind, its range, its choices.

    Args:
        key: The full name, such as "TRAIN.epochs".
        value: What it is set to; a text that refers to another setting passes.
        default: The script's configuration as it is shipped.
        choices: What some settings may be.

    Raises:
        UserError: Says what is wrong and what would be right.
    """
    known, shown = flatten(default), "null" if value is None else value
    require(key in known, unknown_key(key, default))
    if isinstance(value, str) and "${" in value:
        return
    _check_choice(key, value, choices)
    expected, (group, _, name) = known[key], key.rpartition(".")
    if isinstance(expected, str) and expected.startswith("${."):  # as a sibling unless it is set
        expected = known[f"{group}.{expected[3:-1]}"]
    if key.endswith(("_path", "_weights", ".resume")):
        is_path = isinstance(value, str) or (value is None and expected is None)
        require(is_path, f"{key}={shown} is not a path: put it in quotes.")
    # A default of null or a text says nothing about the kind.
    if expected is None or isinstance(expected, str):
        return
    kind = (int, float) if isinstance(expected, float) else type(expected)
    # a bool is an int in Python, but not to a user
    fits = isinstance(value, kind) and isinstance(value, bool) == isinstance(expected, bool)
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}[type(expected)]
    require(fits, f"{key}={shown} is not {wanted}, such as the default, {expected}.")
    least, bound = RANGES.get(name, (-math.inf, math.inf))
    upper = "" if bound == math.inf else f" and below {bound}"
    require(
        isinstance(value, bool) or least <= value < bound,
        f"{key}={shown} must be at least {least}{upper}.",
    )


def _check_choice(key: str, value: Any, choices: Dict[str, Sequence]) -> None:
    if key in choices:
        shown, *names = ("null" if name is None else name for name in (value, *choices[key]))
        hint = "choose one of" if len(names) > 1 else "here it can only be"
        require(value in choices[key], f"{key}={shown} is unknown: {hint} {', '.join(names)}.")


# What every script's settings may be; a script adds its own.
CHOICES = {
    "mode": ("train", "eval", "export", "infer"),
    "preset": (None,),
    "INFER.engine": ("native", "onnx"),
    "device": (None, "cpu", "gpu", "xpu", "sdaa"),
    "MODEL.arch": ("paper", "published"),
    "MODEL.dis_net.norm": (None, "layer", "batch"),
    "LOSS.name": ("wgan_gp", "wgan", "wgan_div", "gan"),
    **dict.fromkeys(("TRAIN.optimizer", "TRAIN.critic_optimizer"), ("Adam", "RMSProp", "SGD")),
    "TRAIN.lr_schedule": ("constant", "linear"),
    "TRAIN.on_nan": ("stop", "roll_back"),
    "TRAIN.penalty_gradient": ("auto", "first_order", "double_backward"),
}
RANGES = {
    **dict.fromkeys(("epochs", "iters_per_epoch", "n_critic", "eval_freq"), (1, math.inf)),
    **dict.fromkeys(("batch_size", "generator_batch_factor", "num_samples"), (1, math.inf)),
    **dict.fromkeys(("dim", "noise_dim", "log_freq", "update_freq"), (1, math.inf)),
    **dict.fromkeys(("keep", "max_rollbacks"), (0, math.inf)),
    **dict.fromkeys(("save_freq", "penalty_weight", "k", "p"), (0, math.inf)),
    **dict.fromkeys(("learning_rate", "critic_learning_rate"), (0, math.inf)),
    "num_classes": (1, math.inf),
    "frames": (0, math.inf),
    "jitter": (0, 1),
    "clip": (1e-12, math.inf),
    "eval_num_samples": (1, math.inf),
    "decay": (1e-6, 1),
    "seed": (0, 2**32),
    **dict.fromkeys(("critic_class_weight", "generator_class_weight"), (0, math.inf)),
    **dict.fromkeys(("beta1", "beta2", "momentum"), (0, 1)),
}
