# SPDX-License-Identifier: Apache-2.0
"""Settings that weights bring along, from their notes or the names and shapes of their arrays."""

from __future__ import annotations

import copy
import itertools
from os import path as osp
from typing import Any
from typing import Dict
from typing import List
from typing import Mapping
from typing import Optional
from typing import Sequence
from typing import Set
from typing import Tuple

from omegaconf import OmegaConf
from ppsci.utils import logger

from modes.experiment import Experiment
from support.errors import UserError
from support.errors import require
from support.settings import CHOICES
from support.settings import as_yaml
from support.settings import check_drawn_batches
from support.settings import check_value
from support.settings import flatten
from support.settings import list_given
from support.weight_files import SavedWeights
from support.weight_notes import FREE_KEYS
from support.weight_notes import HARMLESS_KEYS

ROLES = ("generator", "discriminator")
KEYS = {"generator": "pretrained_gen_model_path", "discriminator": "pretrained_dis_model_path"}
SECTIONS = {"generator": "MODEL.gen_net.", "discriminator": "MODEL.dis_net."}
BASE = 2  # the value of whole numbers, such as widths, in the networks that are tried

Files = Mapping[str, SavedWeights]  # by role
Shapes = Dict[str, Dict[str, Tuple[int, ...]]]  # by role and by name of the array
NO_NETWORK = (
    "No MODEL.* settings of this script build a network with such arrays. Do the weights belong to "
    "another script, or are they incomplete?"
)


def adopt_settings(
    experiment: Experiment, files: Files, sections: Sequence[str] = ("MODEL", "DATA")
) -> None:
    """Sets the settings that weights bring along, and says so in one line.

    What weights keep of their training comes first; names and shapes of their arrays give the
    rest. A setting that the user has given stays as it is.

    Args:
        experiment: Its networks do not exist yet.
        files: The weights to load, of one network or both.
        sections: The sections to set. A training that starts from weights has its own data.

    Raises:
        UserError: If a setting that was given is not that of the weights, or the generator and
            the critic are of different trainings.
    """
    cfg, script = experiment.cfg, experiment.script
    now = flatten({section: cfg[section] for section in sections})
    given = list_given(cfg, script)
    kept = _join_notes(files, now)
    first = next(iter(files.values()))
    where = first.where
    found, fits = {}, True
    if first.arrays is not None:
        found, fits = recognise(experiment, files, {**now, **kept}, given)
    if fits:
        _require_agreement(kept, found, where)
    else:
        # The networks refuse the arrays. The message is clearest for the most similar networks.
        kept = {key: value for key, value in kept.items() if key.startswith("DATA.")}
        found = {key: value for key, value in found.items() if key not in given}
    taken = []
    for key, value in {**kept, **found}.items():
        verb = "was trained with" if key in kept else "holds a network of"
        if value != now[key] and _is_taken(key, value, now[key], given, f"{where} {verb}"):
            _check_value(key, value, experiment, where)
            OmegaConf.update(cfg, key, value)
            taken.append(f"{key}={as_yaml(value)} instead of {as_yaml(now[key])}")
    check_drawn_batches(cfg)
    if taken and fits:
        logger.info(f"{where}: these settings are taken from it: {', '.join(taken)}.")
    if found and fits and first.notes is None:
        _describe_unknown(experiment, where, sections)


def load_all(files: Files, networks: Mapping[str, Any]) -> None:
    """Loads weights into the networks of the same roles, all of their arrays or none."""
    for role, saved in files.items():
        saved.load_into(networks[role], NO_NETWORK)


def _is_taken(key: str, value: Any, current: Any, given: Set[str], source: str) -> bool:
    """Whether a setting is taken from the weights; refuses another one that was given.

    Args:
        key: The setting.
        value: Its value that the weights bring along.
        current: Its value in the configuration, which differs.
        given: The settings that the user has given.
        source: The file and a verb, such as "FILE was trained with".
    """
    if key not in given:
        return key != "DATA.data_path" or (
            isinstance(value, str) and osp.exists(osp.expanduser(value))
        )
    require(
        key in FREE_KEYS,
        f"{key}={as_yaml(current)} was given, but {source} {key}={as_yaml(value)}. Leave "
        f"{key} out (and a preset or file that sets it), or name other weights.",
    )
    logger.info(f"{source} {key}={as_yaml(value)}; it is {as_yaml(current)} here, as given.")
    return False


def _join_notes(files: Files, known: Mapping[str, Any]) -> Dict[str, Any]:
    """Joins the settings that files keep of their trainings, as far as this version knows them."""
    joined: Dict[str, Any] = {}
    for role, saved in files.items():
        others = tuple(section for name, section in SECTIONS.items() if name != role)
        settings = {} if saved.notes is None else saved.notes.settings
        for key, value in settings.items():
            if key not in known or key.startswith(others):
                continue
            require(
                key in FREE_KEYS or joined.setdefault(key, value) == value,
                f"{saved.where} is of another training than the generator's weights: "
                f"{key} was {as_yaml(value)} there, and {as_yaml(joined.get(key))} in the "
                "generator's.",
            )
            joined.setdefault(key, value)
    return joined


def _require_agreement(kept: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    for key in kept.keys() & found.keys():
        require(
            kept[key] == found[key],
            f"{where} contradicts itself: it says {key}={as_yaml(kept[key])}, but its arrays are "
            f"those of {key}={as_yaml(found[key])}. Copy the file again.",
        )


def _check_value(key: str, value: Any, experiment: Experiment, where: str) -> None:
    try:
        check_value(key, value, experiment.script, experiment.choices)
    except UserError as error:
        raise UserError(
            f"{where} keeps a setting that is not valid here: {error} Do the weights belong to "
            "another script?"
        ) from None


def _describe_unknown(experiment: Experiment, where: str, sections: Sequence[str]) -> None:
    """Logs settings that names and shapes do not show, so that they stay as configured."""
    hidden: Tuple[str, ...] = ("DATA.", "MODEL.gen_net.batch_norm_statistics")
    if experiment.cfg.MODEL.arch == "published":  # Its networks have running statistics only.
        hidden = ("DATA.",)
    settings = flatten({section: experiment.cfg[section] for section in sections})
    unknown = [
        f"{key}={as_yaml(value)}"
        for key, value in settings.items()
        if key.startswith(hidden) and key not in (*HARMLESS_KEYS, "DATA.data_path")
    ]
    if unknown:
        logger.info(
            f"{where} does not say how it was trained; these settings are as configured: "
            f"{', '.join(unknown)}."
        )


def recognise(
    experiment: Experiment, files: Files, preferred: Mapping[str, Any], given: Set[str]
) -> Tuple[Dict[str, Any], bool]:
    """Finds the settings MODEL.* whose networks have the names and shapes of weights.

    It builds the networks of a script in tiny widths: with each choice of architecture,
    normalisation and labels, until the names are those of the weights; then with each whole number
    raised by one. That shows which sizes grow with it, and so what it is.

    Args:
        experiment: Makes the networks.
        files: The weights.
        preferred: Settings, by full key. Of several that fit, the most similar ones are found.
        given: Settings that the user has given; those of `preferred` are tried first.

    Returns:
        The settings, and whether they fit. If none do, those of the most similar names, without
        numbers.
    """
    trial = copy.copy(experiment)
    trial.cfg = copy.deepcopy(experiment.cfg)
    model = flatten({"MODEL": trial.cfg.MODEL})
    numbers = [
        key for key, value in model.items() if type(value) is int and key not in experiment.choices
    ]
    closest: Dict[str, Any] = {}
    most = 0
    for settings in _list_candidates(model, experiment.choices, preferred, given):
        shapes = _build(trial, {**settings, **dict.fromkeys(numbers, BASE)}, files)
        common, all_names = _count_names(shapes, files)
        if common == all_names:
            values = _solve(trial, shapes, numbers, files)
            if values is not None:
                return {**settings, **values}, True
        if common > most:
            closest, most = settings, common
    return closest, False


def _list_candidates(
    model: Mapping[str, Any],
    choices: Mapping[str, Sequence],
    preferred: Mapping[str, Any],
    given: Set[str],
) -> List[Dict[str, Any]]:
    """Lists combinations of choices, the most similar to the preferred settings first."""
    options: Dict[str, Sequence] = {}
    for key, value in model.items():
        if key not in FREE_KEYS and (isinstance(value, bool) or key in {**CHOICES, **choices}):
            is_switch = isinstance(value, bool)
            options[key] = (True, False) if is_switch else {**CHOICES, **choices}[key]

    def rank(settings: Mapping[str, Any]) -> Tuple[int, int]:
        other = [key for key, value in settings.items() if value != preferred[key]]
        return len(given.intersection(other)), len(other)

    combined = [dict(zip(options, values)) for values in itertools.product(*options.values())]
    return sorted(combined, key=rank)


def _build(trial: Experiment, settings: Mapping[str, Any], files: Files) -> Shapes:
    """Builds the networks of some settings; returns the shapes of those that there are files of."""
    for key, value in settings.items():
        OmegaConf.update(trial.cfg, key, value)
    networks = dict(zip(ROLES, trial.make_networks()))
    return {
        role: {name: tuple(value.shape) for name, value in networks[role].state_dict().items()}
        for role in files
    }


def _count_names(shapes: Shapes, files: Files) -> Tuple[int, int]:
    """Counts the names that networks and files share, and all of their names."""
    pairs = [(shapes[role].keys(), saved.arrays.keys()) for role, saved in files.items()]
    return sum(len(own & kept) for own, kept in pairs), sum(len(own | kept) for own, kept in pairs)


def _solve(
    trial: Experiment, base: Shapes, numbers: Sequence[str], files: Files
) -> Optional[Dict[str, int]]:
    """Finds the whole numbers that give networks the shapes of files.

    Args:
        trial: An experiment whose whole numbers are all `BASE`.
        base: The shapes of its networks.
        numbers: The keys of the numbers.
        files: Weights of the same names.

    Returns:
        The numbers that the shapes depend on, by key; None if there are none that fit.
    """
    grown = {}
    for key in numbers:
        grown[key] = _build(trial, {key: BASE + 1}, files)
        OmegaConf.update(trial.cfg, key, BASE)
    values: Dict[str, int] = {}
    for role, saved in files.items():
        for name, array in saved.arrays.items():
            sizes, start = getattr(array, "shape", ()), base[role][name]
            if len(sizes) != len(start):
                return None
            for axis, size in enumerate(sizes):
                steps = {key: grown[key][role][name][axis] - start[axis] for key in numbers}
                steps = {key: step for key, step in steps.items() if step}
                if len(steps) > 1 or (not steps and size != start[axis]):
                    return None  # a product of two numbers, or a fixed size that differs
                for key, step in steps.items():
                    more, rest = divmod(size - start[axis], step)
                    if rest or values.setdefault(key, BASE + more) != BASE + more:
                        return None
    return values if all(value >= 1 for value in values.values()) else None
