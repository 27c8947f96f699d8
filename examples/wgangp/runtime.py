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

"""How a script starts: processor settings, configuration checks, a user's errors in one line."""

from __future__ import annotations

import difflib
import logging
import math
import os
import platform
import re
import sys
import warnings
from os import path as osp
from typing import Any
from typing import Callable
from typing import Dict
from typing import List
from typing import Sequence

SETTINGS = ("MKL_NUM_THREADS", "FLAGS_paddle_num_threads", "MKL_DEBUG_CPU_TYPE")


class UserError(Exception):
    """Something that the user can put right: wrong input, not a fault of the program.

    Its message says what was wrong, where, and what to do; scripts print it alone.
    """


# --8<-- [start:prepare]
def prepare() -> None:
    """Sets threads and matrix path, which Paddle reads once, while it is imported.

    Its wheel runs on ONE thread by default, and its matrix library takes a slow path on
    AMD processors unless told their type: together a factor of three. What the user's
    environment already says is left alone.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = str(len(os.sched_getaffinity(0)))
    else:
        cores = str(os.cpu_count() or 1)
    for name in SETTINGS[:2]:
        os.environ.setdefault(name, cores)
    if _is_amd_with_avx2():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    # said by paddle at each import, about building C++ extensions, which nobody does here
    warnings.filterwarnings("ignore", message="No ccache found")


# --8<-- [end:prepare]


def _is_amd_with_avx2() -> bool:
    if platform.system() != "Linux":
        return False
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return False
    return "AuthenticAMD" in text and " avx2 " in text


def check_command_line(config_name: str, choices: Dict[str, Sequence[str]]) -> None:
    """Refuses, in one line, settings that the script's configuration does not know.

    Composes the configuration as Hydra is about to, and compares it with the shipped one:
    every key must be there, and every value be of the kind of the default. Exits with
    status 2 after saying what is wrong.

    Args:
        config_name: Name of the script's file in conf/, without its suffix.
        choices: What some of the script's settings may be.
    """
    from hydra import compose
    from hydra import initialize_config_dir
    from hydra._internal.utils import get_args_parser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    arguments = get_args_parser().parse_args()
    if arguments.config_path:
        fail("--config-path hides the script's configuration; add a folder by --config-dir.")
    if arguments.hydra_help or arguments.help or arguments.info:
        return
    shipped = osp.join(osp.dirname(osp.abspath(__file__)), "conf")
    name = arguments.config_name or config_name
    # A folder of the user's own comes beside the shipped one, and may hold the first file.
    folders = [osp.abspath(arguments.config_dir or shipped), shipped]
    if not osp.isfile(osp.join(folders[0], f"{name.removesuffix('.yaml')}.yaml")):
        folders.reverse()
    path = [f"hydra.searchpath=['{folders[1]}']"]
    try:
        with initialize_config_dir(shipped, version_base=None):
            default = OmegaConf.to_container(compose(config_name))
        with initialize_config_dir(folders[0], version_base=None):
            for overrides in _single_runs(arguments):
                try:
                    chosen = compose(name, overrides + path)
                except HydraException as error:
                    raise UserError(_explain(error, overrides, default)) from None
                settings = OmegaConf.to_container(chosen)
                check_settings(settings, default)
                check_values(settings, {**CHOICES, **choices})
    except UserError as error:
        fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        fail(str(error))


def _single_runs(arguments) -> List[List[str]]:
    """The overrides of each run that a command starts, without Hydra's own settings."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    own = [t for t in arguments.overrides if not re.match(r"[+~]*hydra([./=@]|$)", t)]
    if not arguments.multirun:
        return [own]
    runs = []
    for override in OverridesParser.create().parse_overrides(own):
        if override.is_sweep_override():
            key = override.get_key_element()
            runs += [[f"{key}={value}"] for value in override.sweep_string_iterator()]
        else:
            runs.append([override.input_line])
    return runs or [[]]


def _explain(error: Exception, overrides: List[str], default: Dict[str, Any]) -> str:
    """Names the override that Hydra refused, and what it might have meant."""
    from hydra.errors import OverrideParseException

    known = _flatten(default)
    has_options = "Available options" in str(error)  # a config group's, by Hydra
    for text in overrides:
        key = text.lstrip("+~").split("=")[0]
        if key not in known and key not in _groups(default) and not has_options:
            return unknown_key(key, default)
    reason = str(error).split("\n")[0]
    if has_options:
        reason = " ".join(str(error).split("Config search path")[0].split())
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override} can't be read ({reason}). A text with special characters wants "
            "quotes inside quotes: KEY=\"'a=b'\"."
        )
    return reason


def _flatten(settings: Dict[str, Any], prefix: str = "") -> Dict[str, Any]:
    """Nested settings as {"TRAIN.epochs": 3, ...}."""
    flat = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _groups(settings: Dict[str, Any]) -> List[str]:
    return sorted({key.rpartition(".")[0] for key in _flatten(settings)} - {""})


def unknown_key(key: str, default: Dict[str, Any]) -> str:
    """A sentence that refuses a key, with near misses and the names that exist beside it."""
    known = _flatten(default)
    near = difflib.get_close_matches(key, known, 1, 0.7)
    hint = f" Did you mean {near[0]}?" if near else ""
    group = key.rpartition(".")[0]
    while group and group not in _groups(default):
        group = group.rpartition(".")[0]
    names = [name for name in known if name.startswith(group + "." if group else "")]
    return f"unknown setting {key}.{hint} Valid here: {', '.join(names)}."


def check_settings(settings: Dict[str, Any], default: Dict[str, Any]) -> None:
    """Compares a configuration with the shipped one.

    Args:
        settings: The configuration of a run.
        default: The script's configuration as it is shipped.

    Raises:
        UserError: Names an unknown key, a group where a value belongs, or a value that is
            not of the kind of its default.
    """
    known = _flatten(default)
    for key, value in _flatten(settings).items():
        if key not in known:
            raise UserError(unknown_key(key, default))
        expected = known[key]
        if key.endswith("_path") and value is not None:
            require(isinstance(value, str), f"{key}={value} is not a path: put it in quotes.")
        kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        # A default of null says nothing about the kind; a resolver is computed later.
        if expected is None or (isinstance(value, str) and "${" in value):
            continue
        kind = (int, float) if isinstance(expected, float) else type(expected)
        # a bool is an int in Python, but not to a user
        fits = isinstance(value, kind) and isinstance(value, bool) == isinstance(expected, bool)
        # a text may be any word: `DATA.mode=3` is refused by its choices
        if value is None or not (fits or isinstance(expected, str)):
            shown = "null" if value is None else value
            raise UserError(
                f"{key}={shown} is not {kinds[type(expected)]}, such as the default, {expected}."
            )
    missing = [key for key in known if key not in _flatten(settings)]
    if missing:
        raise UserError(f"the configuration lacks {', '.join(missing)}.")


def check_values(settings: Dict[str, Any], choices: Dict[str, Sequence]) -> None:
    """Refuses values outside their range, or not among their choices.

    Raises:
        UserError: Names the setting and what it may be.
    """
    for key, value in _flatten(settings).items():
        if key in choices:
            shown = ", ".join("null" if choice is None else choice for choice in choices[key])
            require(value in choices[key], f"{key}={value} is unknown: choose one of {shown}.")
        least, bound = RANGES.get(key.rpartition(".")[2], (None, None))
        if least is None or isinstance(value, str):
            continue
        upper = "" if bound == math.inf else f" and below {bound}"
        require(least <= value < bound, f"{key}={value} must be at least {least}{upper}.")


CHOICES = {
    "mode": ("train", "eval"),
    "device": (None, "cpu", "gpu", "xpu", "sdaa"),
    "MODEL.dis_net.norm": (None, "layer"),
    "TRAIN.lr_schedule": ("constant", "linear"),
}
RANGES = {
    **dict.fromkeys(("epochs", "iters_per_epoch", "n_critic", "eval_freq"), (1, math.inf)),
    **dict.fromkeys(("batch_size", "generator_batch_factor", "num_samples"), (1, math.inf)),
    **dict.fromkeys(("dim", "noise_dim", "log_freq"), (1, math.inf)),
    **dict.fromkeys(("save_freq", "learning_rate", "penalty_weight"), (0, math.inf)),
    "seed": (0, 2**32),
    **dict.fromkeys(("critic_class_weight", "generator_class_weight"), (0, math.inf)),
    **dict.fromkeys(("beta1", "beta2"), (0, 1)),
}


def fail(message: str) -> None:
    """Prints an error in one piece, without a traceback, and exits with status 2."""
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(2)


def require(holds: bool, message: str) -> None:
    """Raises `UserError(message)` unless something holds."""
    if not holds:
        raise UserError(message)


# --8<-- [start:launch]
def launch(cfg, **modes: Callable) -> None:
    """Runs the function of `cfg.mode` and turns a UserError into one line and status 2.

    Args:
        cfg: The script's configuration.
        **modes: A function of the configuration for each mode, by name.
    """
    from ppsci.utils import logger

    try:
        settings = ", ".join(f"{name}={os.environ.get(name, 'unset')}" for name in SETTINGS)
        logger.info(f"Processor settings: {settings}")
        modes[cfg.mode](cfg)
    except UserError as error:
        # into the log, too, but not to the terminal twice
        for log in logger._logger.handlers:
            if isinstance(log, logging.FileHandler):
                log.emit(logging.LogRecord("ppsci", logging.ERROR, "", 0, str(error), None, None))
        fail(str(error))


# --8<-- [end:launch]
