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


"""Checkpoints: a training as it is at a moment, in one file, from which it goes on bit for bit."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import random
import re
from os import path as osp
from typing import Any
from typing import Dict
from typing import List
from typing import Optional

import numpy as np
import paddle
import paddle.distributed as dist
import ppsci
from omegaconf import OmegaConf
from paddle import nn
from ppsci.utils import logger

import files
from runtime import UserError
from runtime import flatten
from runtime import require

# What a checkpoint tells beside its arrays.
CONTENTS = {
    "iteration": int,
    "rollbacks": int,
    "seconds": float,
    "best": (float, int, type(None)),
    "journal": str,
    "data": str,
    "processes": int,
    "settings": dict,
    "versions": dict,
    "random": dict,
    "scalers": dict,
}


# --8<-- [start:run]
@dataclasses.dataclass
class Run:
    """A training, and how far it has come.

    Args:
        cfg: The script's configuration.
        critic_solver: Owns the critic.
        generator_solver: Owns the generator.
        average: The generator's `MovingAverage`.
        data: Tells the data set from others.
        iteration: Generator iterations done.
        rollbacks: How often it went back to a checkpoint because it had diverged.
        seconds: How long it has run.
        best: The best figure so far, of TRAIN.best_metric.
        journal: The text of metrics.jsonl.
        checkpoint: Path of the newest checkpoint.
    """

    cfg: Any
    critic_solver: Any
    generator_solver: Any
    average: Any
    data: str
    iteration: int = 0
    rollbacks: int = 0
    seconds: float = 0.0
    best: Optional[float] = None
    journal: str = ""
    checkpoint: Optional[str] = None

    @property
    def solvers(self) -> Dict[str, Any]:
        return {"discriminator": self.critic_solver, "generator": self.generator_solver}

    @property
    def losses(self) -> Dict[str, Any]:
        return {
            "discriminator": self.critic_solver.constraint["critic"].loss,
            "generator": self.generator_solver.constraint["generator"].loss,
        }

    @property
    def networks(self) -> Dict[str, nn.Layer]:
        """The critic, the generator, and the latter's moving average where there is one."""
        networks = {
            "discriminator": self.losses["generator"].critic,
            "generator": self.average.source,
        }
        if self.average.decay is not None:
            networks["average"] = self.average.network
        return networks


# --8<-- [end:run]


# --8<-- [start:write]
def write(run: Run, path: str) -> None:
    """Writes a checkpoint, a file of `files.write_npz`; with several processes, the first does.

    Args:
        run: The training.
        path: Where to.
    """
    if dist.get_rank() == 0:
        arrays = {}
        for role, network in run.networks.items():
            for name, value in network.state_dict().items():
                arrays[f"{role}/{name}"] = value.numpy()
        for role, solver in run.solvers.items():
            for (name, kind), value in optimizer_state(run.networks[role], solver).items():
                arrays[f"{role}_optimizer/{name}/{kind}"] = value.numpy()
            # what was remembered since the last record of metrics.jsonl
            for name, values in run.losses[role].figures.items():
                arrays[f"{role}_figures/{name}"] = paddle.stack(values).numpy()
        contents = {
            "iteration": run.iteration,
            "rollbacks": run.rollbacks,
            "seconds": run.seconds,
            "best": run.best,
            "journal": run.journal,
            "data": run.data,
            "processes": dist.get_world_size(),
            "settings": OmegaConf.to_container(run.cfg, resolve=True),
            "versions": versions(),
            "random": random_states(),
            "scalers": {
                role: {key: np.asarray(value).tolist() for key, value in state.items()}
                for role, solver in run.solvers.items()
                if solver.scaler is not None and (state := solver.scaler.state_dict())
            },
        }
        arrays["contents"] = np.frombuffer(json.dumps(contents).encode(), "uint8")
        files.write_npz(path, arrays)
    if dist.get_world_size() > 1:
        dist.barrier()  # from here on, each may read it


def save(run: Run) -> None:
    """Writes the checkpoint of an interval, and removes those beyond TRAIN.keep."""
    folder = checkpoint_folder(run.cfg)
    width = len(str(run.cfg.TRAIN.epochs * run.cfg.TRAIN.iters_per_epoch))
    path = osp.join(folder, f"iteration_{run.iteration:0{width}d}.npz")
    write(run, path)
    run.checkpoint = path
    if dist.get_rank() == 0 and run.cfg.TRAIN.keep:
        for path in by_age(folder)[run.cfg.TRAIN.keep :]:
            os.remove(path)


# --8<-- [end:write]


def checkpoint_folder(cfg) -> str:
    """Where a run's checkpoints are."""
    return osp.join(osp.abspath(cfg.output_dir), "checkpoints")


def by_age(folder: str) -> List[str]:
    """Checkpoints of intervals in a folder, the newest first."""
    names = os.listdir(folder) if osp.isdir(folder) else []
    numbers = {name: re.fullmatch(r"iteration_(\d+)\.npz", name) for name in names}
    found = sorted((int(match[1]), name) for name, match in numbers.items() if match)
    return [osp.join(folder, name) for _, name in reversed(found)]


def optimizer_state(network: nn.Layer, solver) -> Dict[Any, paddle.Tensor]:
    """An optimiser's tensors by (name of the weight in its network, kind such as "moment1")."""
    names = {parameter.name: name for name, parameter in network.named_parameters()}
    return {
        (names[parameter], kind): solver.optimizer.state_dict()[key]
        for (parameter, kind), key in _optimizer_keys(names, solver).items()
    }


def _optimizer_keys(names, solver) -> Dict[Any, str]:
    """Paddle's keys of an optimiser's tensors: the weight's internal name, the kind, a number."""
    keys = {}
    for key in solver.optimizer.state_dict():
        match = re.fullmatch(r"(.+?\.[wb]_\d+)_(.+)_\d+", key)
        if match and match[1] in names:
            keys[match[1], match[2]] = key
    return keys


def random_states() -> Dict[str, Any]:
    """The states of all global random number generators, for JSON.

    A run draws from streams of its own (streams.py), which need no state; these are for what
    a user may add.
    """
    python, numpy = random.getstate(), np.random.get_state()
    states = [state.__getstate__() for state in paddle.get_rng_state()]
    return {
        "python": [python[0], list(python[1]), python[2]],
        "numpy": [numpy[0], numpy[1].tolist(), *numpy[2:]],
        "device": paddle.get_device().partition(":")[0],
        "paddle": [[*place, bytes(engine).decode("latin1")] for *place, engine in states],
    }


def set_random_states(states: Dict[str, Any]) -> None:
    """Sets what `random_states` gave."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, "uint32"), *rest))
    if states["device"] != paddle.get_device().partition(":")[0]:
        return
    kind, generators = type(paddle.get_rng_state()[0]), []
    for *place, engine in states["paddle"]:
        generators.append(kind.__new__(kind))
        generators[-1].__setstate__((*place, list(engine.encode("latin1"))))
    paddle.set_rng_state(generators)


def versions() -> Dict[str, str]:
    """What the arithmetic of a run depends on, beside its settings."""
    return {
        "python": platform.python_version(),
        "paddle": paddle.__version__,
        "ppsci": ppsci.__version__,
        "numpy": np.__version__,
    }


# --8<-- [start:read]
@dataclasses.dataclass
class Checkpoint:
    """What a file of `write` holds.

    Args:
        path: The file.
        contents: See `CONTENTS`.
        arrays: Weights, the optimisers' tensors, figures not yet recorded, by name.
    """

    path: str
    contents: Dict[str, Any]
    arrays: Dict[str, np.ndarray]

    def part(self, prefix: str) -> Dict[str, np.ndarray]:
        """Arrays below a prefix, by the rest of their names."""
        start = f"{prefix}/"
        return {n[len(start) :]: a for n, a in self.arrays.items() if n.startswith(start)}


def read(path: str) -> Checkpoint:
    """Reads a checkpoint and verifies it; nothing in it is executed.

    Args:
        path: The file.

    Raises:
        UserError: If it is absent, damaged, or no checkpoint.
    """
    if not osp.isfile(path):
        raise UserError(f"there is no checkpoint {path}.")
    arrays = files.read_npz(path)
    try:
        contents = json.loads(arrays.pop("contents").tobytes())
        for key, kind in CONTENTS.items():
            if not isinstance(contents[key], kind):
                raise ValueError(f"its {key} is a {type(contents[key]).__name__}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no checkpoint of this suite ({error}).") from None
    return Checkpoint(path, contents, arrays)


def find(cfg) -> Optional[Checkpoint]:
    """The checkpoint that TRAIN.resume asks for; None for a training from the start.

    Scripts ask this before they read or measure anything.

    Args:
        cfg: The script's configuration.

    Raises:
        UserError: If the folder holds another training and none is to be resumed, or the
            checkpoint is absent, damaged, or of other networks.
    """
    folder, resume = checkpoint_folder(cfg), cfg.TRAIN.resume
    if resume is None:
        # the first process's question only: it may have begun to write when others ask
        require(
            dist.get_rank() > 0 or not osp.exists(journal_path(cfg)),
            f"{cfg.output_dir} holds another training already. Continue it by TRAIN.resume=auto, "
            "name a new folder by hydra.run.dir=, or remove that one.",
        )
        return None
    if dist.get_rank() == 0:
        for name in os.listdir(folder) if osp.isdir(folder) else []:
            if name.endswith(files.PARTIAL):  # of a run that was killed while it wrote
                with contextlib.suppress(OSError):
                    os.remove(osp.join(folder, name))
    if resume != "auto":
        path = osp.abspath(osp.expanduser(resume))
        checkpoint = read(path if path.endswith(".npz") else f"{path}.npz")
    else:
        checkpoint = None
        for path in by_age(folder):
            try:
                checkpoint = read(path)
                break
            except UserError as error:
                logger.warning(f"{error} The one before it is tried.")
        if checkpoint is None:
            finished = osp.join(cfg.output_dir, "model_generator.pdparams")
            require(
                not osp.exists(finished),
                f"{cfg.output_dir} holds a training that is finished and left no checkpoint: "
                "nothing can be resumed. Name a new folder by hydra.run.dir=.",
            )
            logger.info(f"There is no checkpoint in {folder}: the training starts from the start.")
            return None
    check_settings(cfg, checkpoint)
    return checkpoint


def journal_path(cfg) -> str:
    """The path of a run's metrics.jsonl."""
    return osp.join(osp.abspath(cfg.output_dir), "metrics.jsonl")


def check_settings(cfg, checkpoint: Checkpoint) -> None:
    """Refuses a checkpoint of other networks; warns of other settings.

    Raises:
        UserError: Names what differs.
    """
    kept = flatten(checkpoint.contents["settings"])
    now = flatten(OmegaConf.to_container(cfg, resolve=True))
    changes = {
        key: f"{key} was {kept.get(key)} and is {value}"
        for key, value in now.items()
        if kept.get(key) != value
    }
    whole = ("MODEL.", "LOSS.name", "TRAIN.ema.", "TRAIN.optimizer", "TRAIN.critic_optimizer")
    networks = [text for key, text in changes.items() if key.startswith(whole)]
    require(
        not networks,
        f"{checkpoint.path} is of another training: {', '.join(networks)}. Repeat its settings "
        "(config.yaml has them), or train anew in another folder.",
    )
    harmless = ("TRAIN.resume", "TRAIN.keep", "TRAIN.save_freq", "TRAIN.eval_during_train")
    others = [
        text
        for key, text in changes.items()
        if key.startswith(("seed", "TRAIN.", "LOSS.")) and key not in harmless
    ]
    kept_versions, processes = checkpoint.contents["versions"], checkpoint.contents["processes"]
    others += [
        f"{name} was {kept_versions.get(name)} and is {version}"
        for name, version in versions().items()
        if kept_versions.get(name) != version
    ]
    if processes != dist.get_world_size():
        others.append(f"processes were {processes} and are {dist.get_world_size()}")
    if others:
        logger.warning(
            f"The training goes on with other settings than {checkpoint.path} was made with, so "
            f"it will not be what an uninterrupted one had been: {', '.join(others)}."
        )


# --8<-- [end:read]


# --8<-- [start:restore]
def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Makes a training what it was when a checkpoint was written.

    Args:
        run: The training; its Solvers are fresh, or have come further.
        checkpoint: What `read` gave.

    Raises:
        UserError: If it is of another data set or of other networks; then nothing has changed.
    """
    contents, where = checkpoint.contents, checkpoint.path
    require(
        contents["data"] == run.data,
        f"{where} is of a training on other data: {contents['data']}; this is {run.data}. "
        "Name the data that it was made with, or train anew in another folder.",
    )
    states = {
        role: files.fitting(network, checkpoint.part(role), where)
        for role, network in run.networks.items()
    }
    optimizers = {}
    for role, solver in run.solvers.items():
        internal = {name: p.name for name, p in run.networks[role].named_parameters()}
        keys = _optimizer_keys(internal.values(), solver)
        tensors = {}
        for name, value in checkpoint.part(f"{role}_optimizer").items():
            weight, _, kind = name.rpartition("/")
            fits = weight in internal and np.isfinite(value).all()
            require(fits, f"{where}: the optimiser's {name} belongs to no weight of the {role}.")
            key = keys.get((internal[weight], kind), f"{internal[weight]}_{kind}_0")
            tensors[key] = paddle.to_tensor(value)
        optimizers[role] = tensors
    try:
        set_random_states(contents["random"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: its random states can't be read ({error}).") from None

    for role, network in run.networks.items():
        network.set_state_dict(states[role])
    for role, solver in run.solvers.items():
        scheduler = {"last_epoch": contents["iteration"], "last_lr": 0.0}
        solver.optimizer.set_state_dict({**optimizers[role], "LR_Scheduler": scheduler})
        solver.lr_scheduler.step(contents["iteration"])  # by this run's own settings
        if solver.scaler is not None and role in contents["scalers"]:
            solver.scaler.load_state_dict(
                {
                    key: np.array(value, "float32") if key == "scale" else value
                    for key, value in contents["scalers"][role].items()
                }
            )
        run.losses[role].figures = {
            name: [paddle.to_tensor(value) for value in values]
            for name, values in checkpoint.part(f"{role}_figures").items()
        }
    run.iteration, run.rollbacks = contents["iteration"], contents["rollbacks"]
    run.seconds, run.journal, run.checkpoint = contents["seconds"], contents["journal"], where
    measure = flatten(contents["settings"]).get("TRAIN.best_metric")
    # where its weights are not, there is no best so far
    kept = osp.join(checkpoint_folder(run.cfg), f"{best_name(run.cfg)}_generator.pdparams")
    has_best = measure == run.cfg.TRAIN.best_metric and osp.exists(kept)
    run.best = contents["best"] if has_best else None


def best_name(cfg) -> str:
    """How the files of the best generator's weights begin."""
    return "best_average" if cfg.TRAIN.ema.use_ema else "best"


# --8<-- [end:restore]
