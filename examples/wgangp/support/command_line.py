# SPDX-License-Identifier: Apache-2.0
"""The command line of a script: what Hydra will make of it, checked before Paddle is imported."""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import re
from os import path as osp
from typing import Iterator
from typing import List
from typing import Mapping
from typing import Optional
from typing import Sequence
from typing import Tuple

import hydra
import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.override_parser.types import ValueType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.errors import MissingConfigException
from hydra.errors import OverrideParseException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf import OmegaConf
from omegaconf import open_dict
from omegaconf import read_write
from omegaconf.errors import ConfigAttributeError
from omegaconf.errors import ConfigKeyError
from omegaconf.errors import OmegaConfBaseException

from support import paths
from support import processes
from support.errors import UserError
from support.errors import require
from support.settings import CHOICES
from support.settings import CONF
from support.settings import check_choice
from support.settings import check_settings
from support.settings import describe_unknown
from support.settings import flatten
from support.settings import load_defaults
from support.storage import check_writable

REFERENCE = "${hydra:runtime.output_dir}"  # the default of output_dir
MAX_VALUES = 100  # values of a setting in a multirun that are checked before the first job


class ConfigDir(SearchPathPlugin):
    """Makes Hydra look for configurations in the folder of --config-dir, after the suite's own."""

    folder: Optional[str] = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if self.folder is not None:
            search_path.append("command-line", f"file://{self.folder}")


def check(script: str, choices: Mapping[str, Sequence], arguments: Sequence[str]) -> None:
    """Refuses a command line whose settings are wrong, or whose output folder is.

    Where settings have several values (--multirun), each value is checked once. Each job is
    checked again when it starts.

    Args:
        script: Name of the script's file in conf/, without the suffix.
        choices: Values of the script's own settings, in addition to `settings.CHOICES`.
        arguments: What follows the script's name.

    Raises:
        UserError: Says what is wrong and what would be right.
    """
    flags, overrides = _read_flags(arguments), []
    if flags is None:
        return
    try:
        overrides += OverridesParser.create().parse_overrides(flags.overrides)
        _check_options(overrides, choices)
        for texts in _expand(overrides):
            cfg = _compose(script, flags, texts)
            is_sweep = flags.multirun or cfg.hydra.mode == RunMode.MULTIRUN
            _check_sweeps(overrides, is_sweep)
            _check_folder_keys(overrides, is_sweep)
            with _as_job(cfg, is_sweep) as settings:
                check_settings(settings, script, choices)
                _check_processes(settings.mode)
                resumes = settings.TRAIN.resume == "auto"
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise UserError(_explain(error, script, overrides)) from None
    raw, key = OmegaConf.to_container(cfg), "hydra.sweep.dir" if is_sweep else "hydra.run.dir"
    folders = {key: raw["hydra"]["sweep" if is_sweep else "run"]["dir"]}
    if is_sweep:
        folders["hydra.sweep.subdir"] = raw["hydra"]["sweep"]["subdir"]
    for name, folder in folders.items():  # Hydra makes these folders.
        paths.check_plain(name, str(folder))
    folder = raw["output_dir"]
    if folder == REFERENCE:
        folder = folders[key]
    else:
        paths.check_plain("output_dir", str(folder))
        if osp.abspath(folder) != osp.abspath(folders[key]):
            _check_fixed_folder(folder, key, overrides, is_sweep)
        key = "output_dir"
    check_folder(str(folder), resumes, key)


def _check_fixed_folder(
    folder: str, key: str, overrides: Sequence[Override], is_sweep: bool
) -> None:
    """Refuses another folder next to an output_dir that is fixed, as in a run's config.yaml."""
    named = "${hydra:" not in folder and key in {o.key_or_group for o in overrides}
    swept = [o.key_or_group for o in overrides if o.is_sweep_override()]
    shared = is_sweep and "${" not in folder and "output_dir" not in swept
    require(
        not named and not shared,
        f"output_dir={folder} is the folder of all files"
        + (f", so {key} has no effect" if named else ", so all jobs would share it")
        + f". A run's config.yaml holds its folder, too. Add 'output_dir={REFERENCE}' to use "
        f"{key} instead.",
    )


def _check_processes(mode: str) -> None:
    require(
        not processes.has_others() or mode in ("train", "eval"),
        f"mode={mode} runs in one process: start it with python alone, without a launcher.",
    )


def only_prints(arguments: Sequence[str]) -> bool:
    """Whether Hydra prints something, such as --cfg, and runs nothing."""
    return _read_flags(arguments) is None


def check_folder(folder: str, resumes: bool, key: str) -> None:
    """Refuses an output folder that can't be made or written to, before Hydra makes it.

    Args:
        folder: Its path, references unresolved. A path with the time in it is a new folder.
        resumes: Whether the newest checkpoint in it is asked for.
        key: The setting that names another folder.

    Raises:
        UserError: Says what stands in the way.
    """
    is_new = "${now:" in folder
    require(
        not (is_new and resumes),
        f"TRAIN.resume=auto continues in a folder that is named: give {key}=FOLDER.",
    )
    require(
        not (is_new and processes.has_others()),
        f"several processes need one folder for all: name it with {key}=FOLDER.",
    )
    known, reference, _ = folder.partition("${")
    place = osp.abspath(osp.dirname(known) if reference else known)
    check_writable(place, f"Choose another output folder with {key}=FOLDER.")


def find_topic(arguments: Sequence[str]) -> Optional[str]:
    """Returns what --help or --help=TOPIC asks for: "" for an overview; None without the flag."""
    topic = _parse(arguments)[0].topic
    return None if topic is None else topic.partition("=")[0].lstrip("+~")


def _parse(arguments: Sequence[str]) -> Tuple[argparse.Namespace, List[str]]:
    """Reads the flags; returns them, with overrides, and what is unknown."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("overrides", nargs="*")
    for name, short in (("name", "cn"), ("path", "cp"), ("dir", "cd")):
        parser.add_argument(f"--config-{name}", f"-{short}")
    for name, short in (("multirun", "m"), ("run", "r")):
        parser.add_argument(f"--{name}", f"-{short}", action="store_true")
    parser.add_argument("--help", "-h", nargs="?", const="", dest="topic")
    for names in (["--shell-completion", "-sc"], ["--hydra-help"], ["--version"]):
        parser.add_argument(*names, action="store_true", dest="prints")
    for names in (["--cfg", "-c"], ["--experimental-rerun"]):
        parser.add_argument(*names, dest="shows")
    parser.add_argument("--info", "-i", nargs="?", const="all", dest="shows")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--package", "-p")
    return parser.parse_known_args(arguments)


def _read_flags(arguments: Sequence[str]) -> Optional[argparse.Namespace]:
    """Separates Hydra's flags from overrides; None where something is only printed."""
    flags, unknown = _parse(arguments)
    stray = next((text for text in unknown if not text.startswith("-") and "=" in text), None)
    require(
        stray is None,
        f"{stray} can't be read, since a flag stands between settings: put flags such as "
        "--multirun before or behind all of them.",
    )
    # Hydra itself refuses what is unknown. Configurations in a Python package (pkg://) are
    # checked when they run.
    in_package = (flags.config_path or "").startswith("pkg://")
    prints = flags.prints or flags.shows or flags.topic is not None
    return None if prints or unknown or in_package else flags


def _check_options(overrides: Sequence[Override], choices: Mapping[str, Sequence]) -> None:
    """Checks options of the suite's config groups, which Hydra would refuse in other words."""
    for override in overrides:
        group = override.key_or_group
        advice = "give preset=authors, which adds nothing" if group == "preset" else "leave it out"
        require(
            group != "preset" or not override.is_delete(), f"~preset: a script has one: {advice}."
        )
        if override.is_delete() or not osp.isdir(osp.join(CONF, group)):
            continue
        for option in _read_values(override):
            require(option != "null", f"{group}=null: Hydra has no such option: {advice}.")
            check_choice(group, option, {**CHOICES, **choices})


def _check_sweeps(overrides: Sequence[Override], is_sweep: bool) -> None:
    for override in overrides:
        key, _, text = override.input_line.partition("=")
        advice = ""
        if key == "EVAL.measures":
            advice = f" A list needs brackets: {key}=[{text}]."
        elif paths.is_path(key):
            advice = f" A path with a comma needs quotes inside quotes: {paths.quote(key, text)}."
        require(
            is_sweep or not override.is_sweep_override(),
            f"{override.input_line} names several values: --multirun makes a run of each.{advice}",
        )


def _check_folder_keys(overrides: Sequence[Override], is_sweep: bool) -> None:
    """Refuses a folder that Hydra would ignore, or take for a number: 2024_11 becomes 202411."""
    named = {override.key_or_group: override for override in overrides}
    used, other = "hydra.run.dir", "hydra.sweep.dir"
    for key in {used, other} & named.keys():
        value, typed = named[key].value(), named[key].input_line.partition("=")[2]
        require(
            isinstance(value, str) or str(value) == typed or named[key].is_sweep_override(),
            f"{key}={typed} would be read as {value}. Put it in quotes: \"{key}='{typed}'\".",
        )
    if is_sweep:
        used, other = other, used
    require(
        other not in named or used in named,
        f"{other} has no effect {'in a sweep' if is_sweep else 'without --multirun'}: name the "
        f"folder by {used}=.",
    )


def _read_values(override: Override) -> Iterator[str]:
    """Reads the values of an override as texts; none where only a sweeper can list them.

    Raises:
        UserError: If it has none.
    """
    if not override.is_sweep_override():
        return iter([override.get_value_element_as_str()])
    if override.is_interval_sweep() or override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        return iter([])
    values = override.sweep_string_iterator()
    first = next(values, None)
    require(first is not None, f"{override.input_line} has no value: name at least one.")
    return itertools.chain([first], values)


def _expand(overrides: Sequence[Override]) -> Iterator[List[str]]:
    """Yields overrides as texts, so that each of several values is among them once.

    Where one override has more values than another, the other's last value is repeated.
    """
    columns = []
    for override in overrides:
        if not override.is_sweep_override():
            columns.append([override.input_line])
            continue
        values = list(itertools.islice(_read_values(override), MAX_VALUES))
        if values:
            columns.append([f"{override.get_key_element()}={value}" for value in values])
    for number in range(max(map(len, columns), default=1)):
        yield [column[min(number, len(column) - 1)] for column in columns]


def _compose(script: str, flags: argparse.Namespace, overrides: List[str]) -> DictConfig:
    """Composes what Hydra will compose, with Hydra's own configuration in it."""
    conf = osp.join(osp.dirname(CONF), flags.config_path or CONF)
    if flags.config_dir is not None:
        require(osp.isdir(flags.config_dir), f"--config-dir={flags.config_dir} is not a folder.")
        ConfigDir.folder = osp.abspath(flags.config_dir)
        Plugins.instance().register(ConfigDir)
    try:
        with hydra.initialize_config_dir(conf, job_name=script, version_base=None):
            name = flags.config_name or script
            return hydra.compose(name, overrides, return_hydra_config=True)
    finally:
        ConfigDir.folder = None


@contextlib.contextmanager
def _as_job(cfg: DictConfig, is_sweep: bool) -> Iterator[DictConfig]:
    """Yields the settings as a job gets them; inside the context, `${hydra:...}` resolves.

    Args:
        cfg: The configuration with Hydra's own in it. It gets what Hydra sets for a job.
        is_sweep: Whether there are several jobs. The settings are those of the first.
    """
    current = HydraConfig.instance()
    former = current.cfg
    try:
        if is_sweep:
            cfg.hydra.job.num, cfg.hydra.job.id = 0, "0"
        current.set_config(cfg)  # before folders are read, which may refer to it
        folder = cfg.hydra.run.dir
        if is_sweep:
            folder = osp.join(cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir)
        with read_write(cfg.hydra.runtime), open_dict(cfg.hydra.runtime):
            cfg.hydra.runtime.output_dir = osp.abspath(folder)
        current.set_config(cfg)
        settings = copy.deepcopy(cfg)
        with read_write(settings), open_dict(settings):
            del settings["hydra"]
        yield settings
    finally:
        current.cfg = former


def _explain(error: Exception, script: str, overrides: Sequence[Override]) -> str:
    """Writes one line about an error of Hydra's, or of what it calls."""
    text, cause = str(error).split("\n")[0], error.__cause__
    if isinstance(error, OverrideParseException):
        text, (key, _, value) = error.message.split("\n")[0], str(error.override).partition("=")
        if value.startswith("~"):
            path = osp.expanduser(value)
            return f"{error.override}: the shell left ~ as it is. Give {key}={path}."
        key, value = key.strip(), value.strip()
        is_key = re.fullmatch(r"[+~]*[\w./-]+(@[\w.]+)?", key, re.ASCII) and key[-1] != "."
        if not value or value.startswith("=") or not is_key:
            return f"{error.override} is not a setting: write KEY=VALUE, such as mode=eval."
        if f"{key}={value}" != str(error.override):
            return (
                f"{error.override} can't be read: write {paths.quote(key, value)}, without spaces "
                "around =."
            )
        return (
            f"{error.override} can't be read ({text}). A text with special characters needs "
            f"quotes inside quotes: {paths.quote(key, value)}."
        )
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        hint = f" --help={group} explains them." if osp.isdir(osp.join(CONF, group)) else ""
        return f"{group}={option} is unknown: choose one of {', '.join(error.options)}.{hint}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name} can't be read: {error.problem} in line {mark.line + 1}."
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        key = cause.full_key
        for override in overrides:  # The key may be the beginning of a longer one.
            if f"{override.key_or_group}.".startswith(f"{key}."):
                key = override.key_or_group
        if not key.startswith("hydra."):
            return describe_unknown(key, flatten(load_defaults(script)))
    reason = f" ({str(cause).split(chr(10))[0]})" if cause else ""
    return f"the settings can't be put together: {text}{reason}"
