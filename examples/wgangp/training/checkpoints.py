# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: a training as it is at a moment, in one file, from which it goes on bit for bit."""

from __future__ import annotations

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

from support import npz
from support import weight_files
from support.errors import UserError
from support.errors import require
from support.settings import flatten

BEST = "best.npz"
# The tensors of Paddle's optimisers, by their class.
OPTIMIZER_TENSORS = {
    "Adam": ("moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc"),
    "RMSProp": ("momentum", "mean_square", "mean_grad"),
    "Momentum": ("velocity",),
}
# What a checkpoint tells beside its arrays.
CONTENTS = {
    "iteration": int,
    "rollbacks": int,
    "seconds": float,
    "best": (float, int, type(None)),
    "journal": str,
    "data": str,
    "settings": dict,
    "machine": dict,
    "random": dict,
    "scalers": dict,
}
# What the best figure so far depends on: figures by other settings do not compare.
MEASURE = ("TRAIN.best_metric", "TRAIN.eval_num_samples", "EVAL.batch_size", "EVAL.batch_norm")
MEASURE += ("EVAL.classifier_weights", "EVAL.inception_sha256")


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


def write(run: Run, path: str) -> None:
    """Writes a checkpoint, a file of `npz.write_npz`; with several processes, the first does.

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
            "settings": OmegaConf.to_container(run.cfg, resolve=True),
            "machine": machine(),
            "random": random_states(),
            "scalers": {
                role: {key: np.asarray(value).tolist() for key, value in state.items()}
                for role, solver in run.solvers.items()
                if solver.scaler is not None and (state := solver.scaler.state_dict())
            },
        }
        arrays["contents"] = np.frombuffer(json.dumps(contents).encode(), "uint8")
        npz.write_npz(path, arrays)
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


def save_best(run: Run) -> None:
    """Writes the checkpoint of the best generator; that of the interval is there already.

    So whatever is interrupted, no best is newer than the newest checkpoint.
    """
    write(run, osp.join(checkpoint_folder(run.cfg), BEST))


def abandon_later(run: Run) -> None:
    """Renames checkpoints that are further than a run is: it has gone back behind them."""
    for path in by_age(checkpoint_folder(run.cfg)):
        if _number(path) > run.iteration:
            os.replace(path, f"{path}.abandoned")


def checkpoint_folder(cfg) -> str:
    """Where a run's checkpoints are."""
    return osp.join(osp.abspath(cfg.output_dir), "checkpoints")


def by_age(folder: str) -> List[str]:
    """Checkpoints of intervals in a folder, the newest first."""
    names = os.listdir(folder) if osp.isdir(folder) else []
    found = [name for name in names if re.fullmatch(r"iteration_\d+\.npz", name)]
    return [osp.join(folder, name) for name in sorted(found, key=_number, reverse=True)]


def _number(path: str) -> int:
    return int(re.findall(r"\d+", osp.basename(path))[0])


def optimizer_state(network: nn.Layer, solver) -> Dict[Any, paddle.Tensor]:
    """An optimiser's tensors by (name of the weight in its network, kind such as "moment1")."""
    names = {parameter.name: name for name, parameter in network.named_parameters()}
    state = solver.optimizer.state_dict()
    return {
        (names[parameter], kind): state[key]
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


def machine() -> Dict[str, str]:
    """What the arithmetic of a run depends on, beside its settings."""
    return {
        "python": platform.python_version(),
        "paddle": paddle.__version__,
        "ppsci": ppsci.__version__,
        "numpy": np.__version__,
        "device": paddle.get_device(),
        "threads": os.environ.get("MKL_NUM_THREADS", ""),
        "processes": str(dist.get_world_size()),
    }


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
    arrays = npz.read_npz(path)
    try:
        contents = json.loads(arrays.pop("contents").tobytes())
        for key, kind in CONTENTS.items():
            if not isinstance(contents[key], kind):
                raise ValueError(f"its {key} is a {type(contents[key]).__name__}")
        if min(contents["iteration"], contents["rollbacks"]) < 0:
            raise ValueError("it counts below 0")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no checkpoint of this suite ({error}).") from None
    return Checkpoint(path, contents, arrays)


def find(cfg) -> Optional[Checkpoint]:
    """The checkpoint that TRAIN.resume asks for; None for a training from the start.

    Scripts ask this before they read or measure anything.

    Args:
        cfg: The script's configuration.

    Raises:
        UserError: If the folder holds another training than the one to be resumed, or the
            checkpoint is absent, damaged, or of other networks.
    """
    resume = cfg.TRAIN.resume
    if resume is None:
        require_free(cfg)
        return None
    path = osp.abspath(osp.expanduser(cfg.output_dir if resume == "auto" else resume))
    if osp.isdir(path):
        checkpoint = newest(path)
        if checkpoint is None:
            # what a training writes last
            finished = osp.join(path, "model_discriminator.pdparams")
            require(
                resume == "auto" and not osp.exists(finished),
                f"{path} holds no checkpoint that could be resumed. Name another, or begin a "
                "new training in another folder.",
            )
            logger.info(f"There is no checkpoint in {path}: the training starts from the start.")
            return None
    else:
        checkpoint = read(path if path.endswith(".npz") else f"{path}.npz")
    if osp.realpath(osp.dirname(checkpoint.path)) != osp.realpath(checkpoint_folder(cfg)):
        require_free(cfg)
    check_settings(cfg, checkpoint)
    return checkpoint


def require_free(cfg) -> None:
    """Refuses an output folder that holds a training, which another one would overwrite.

    Raises:
        UserError: If it does.
    """
    # the first process's question only: it may have begun to write when others ask
    require(
        dist.get_rank() > 0 or not osp.exists(journal_path(cfg)),
        f"{cfg.output_dir} holds another training already. Continue it by TRAIN.resume=auto, "
        "name a new folder by hydra.run.dir=, or remove that one.",
    )


def newest(folder: str) -> Optional[Checkpoint]:
    """The newest intact checkpoint of a run's folder."""
    folder = osp.join(folder, "checkpoints")
    for path in [*by_age(folder), osp.join(folder, BEST)]:
        if osp.exists(path):
            try:
                return read(path)
            except UserError as error:
                logger.warning(f"{error} The one before it is tried.")
    return None


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
    # what neither the weights nor the records depend on
    harmless = ("mode", "output_dir", "device", "use_tbd", "use_vdl", "DATA.data_path")
    harmless += ("TRAIN.resume", "TRAIN.keep", "EVAL.num_samples", "EVAL.inception_weights")
    others = [
        text
        for key, text in changes.items()
        if key not in harmless and not key.startswith(("EVAL.pretrained", "INFER."))
    ]
    kept_machine = checkpoint.contents["machine"]
    others += [
        f"{name} was {kept_machine.get(name)} and is {value}"
        for name, value in machine().items()
        if kept_machine.get(name) != value
    ]
    if others:
        logger.warning(
            f"The training goes on with other settings than {checkpoint.path} was made with, so "
            f"it will not be what an uninterrupted one had been: {', '.join(others)}."
        )


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
        role: weight_files.fitting(network, checkpoint.part(role), where)
        for role, network in run.networks.items()
    }
    optimizers = {
        role: _fitting_optimizer(run, role, checkpoint.part(f"{role}_optimizer"), where)
        for role in run.solvers
    }
    try:
        set_random_states(contents["random"])
    except Exception as error:  # of many kinds, if they are not what they should be
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
    run.best = contents["best"] if _is_best_kept(run, checkpoint) else None


def is_best(run: Run) -> bool:
    """Whether a training is at an iteration whose record says that it is the best so far."""
    if not run.journal:
        return False
    record = json.loads(run.journal.splitlines()[-1])
    # it may have come further since: a stop is saved, but not always recorded
    return record.get("best", False) and record["step"] == run.iteration


def _is_best_kept(run: Run, checkpoint: Checkpoint) -> bool:
    """Whether the best weights in the folder are, or will be, those that a checkpoint knows of."""
    kept = flatten(checkpoint.contents["settings"])
    now = flatten(OmegaConf.to_container(run.cfg, resolve=True))
    if any(kept.get(key) != now.get(key) for key in MEASURE):
        return False
    if is_best(run):  # it may have been killed before they were written, which is made up for
        return True
    try:
        best = read(osp.join(checkpoint_folder(run.cfg), BEST))
    except UserError:
        return False
    return best.contents["iteration"] <= checkpoint.contents["iteration"]


def _fitting_optimizer(
    run: Run, role: str, arrays: Dict[str, np.ndarray], where: str
) -> Dict[str, paddle.Tensor]:
    """An optimiser's tensors by Paddle's keys, if they are just what it would have itself."""
    solver, network = run.solvers[role], run.networks[role]
    weights = dict(network.named_parameters())
    kinds = OPTIMIZER_TENSORS[type(_plain(solver.optimizer)).__name__]
    expected = {f"{name}/{kind}" for name in weights for kind in kinds}
    require(
        set(arrays) == expected,
        f"{where}: the tensors of the {role}'s optimiser are not those that it has: "
        f"{', '.join(sorted(set(arrays) ^ expected)[:4])}.",
    )
    keys = _optimizer_keys([weight.name for weight in weights.values()], solver)
    tensors = {}
    for name, value in arrays.items():
        weight, _, kind = name.rpartition("/")
        shapes = ([1], weights[weight].shape)
        fits = value.dtype == np.float32 and list(value.shape) in shapes
        require(
            fits and bool(np.isfinite(value).all()),
            f"{where}: the {role}'s optimiser's {name} is misshapen, or not finite.",
        )
        internal = weights[weight].name
        key = keys.get((internal, kind), f"{internal}_{kind}_0")
        tensors[key] = paddle.to_tensor(value)
    return tensors


def _plain(optimizer):
    """An optimiser without what Paddle wraps it in where there are several processes."""
    return getattr(optimizer, "_inner_opt", optimizer)


def best_name(cfg) -> str:
    """How the files of the best generator's weights begin."""
    return "best_average" if cfg.TRAIN.ema.use_ema else "best"
