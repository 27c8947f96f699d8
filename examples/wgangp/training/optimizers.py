# SPDX-License-Identifier: Apache-2.0
"""Optimisers with their learning-rate schedules, and the tensors that an optimiser keeps."""

from __future__ import annotations

import re
from typing import Dict
from typing import Iterable
from typing import List
from typing import Tuple

import numpy as np
import paddle
import ppsci
from omegaconf import DictConfig
from paddle import nn

from support.errors import require

# Paddle's names of the tensors that an optimiser keeps for each weight, by its class.
STATE_NAMES = {
    "Adam": ("moment1", "moment2", "beta1_pow_acc", "beta2_pow_acc"),
    "RMSProp": ("momentum", "mean_square", "mean_grad"),
    "Momentum": ("velocity",),
}


def make_optimizer(
    network: nn.Layer, name: str, rate: float, train: DictConfig
) -> paddle.optimizer.Optimizer:
    """Makes an optimiser whose rate stays constant or falls to 0 over the run's own length.

    The rate falls once per iteration, as in the authors' code. ppsci calls that `by_epoch`.

    Args:
        network: The network to optimise.
        name: "Adam", "RMSProp" or "SGD".
        rate: The learning rate at the start.
        train: The section TRAIN (epochs, iters_per_epoch, lr_schedule, beta1, beta2, momentum).
    """
    # --8<-- [start:schedule]
    schedule = ppsci.optimizer.lr_scheduler.Linear(
        train.epochs * train.iters_per_epoch,
        1,
        rate,
        end_lr=rate if train.lr_schedule == "constant" else 0.0,
        by_epoch=True,
    )()
    if name == "RMSProp":
        # The papers name neither rho nor epsilon; these are TensorFlow's.
        return ppsci.optimizer.RMSProp(schedule, rho=0.9, epsilon=1e-10)(network)
    if name == "SGD":
        return ppsci.optimizer.Momentum(schedule, train.momentum)(network)
    return ppsci.optimizer.Adam(schedule, train.beta1, train.beta2)(network)
    # --8<-- [end:schedule]


def get_state(network: nn.Layer, optimizer: paddle.optimizer.Optimizer) -> Dict[str, np.ndarray]:
    """Returns an optimiser's tensors under names such as "layers.0.weight/moment1".

    Args:
        network: The network that it optimises.
        optimizer: The optimiser.
    """
    names = {weight.name: name for name, weight in network.named_parameters()}
    state = optimizer.state_dict()
    return {
        f"{names[weight]}/{kind}": state[key].numpy()
        for (weight, kind), key in _state_keys(names, optimizer).items()
    }


def first_state(
    network: nn.Layer, optimizer: paddle.optimizer.Optimizer, train: DictConfig
) -> Dict[str, np.ndarray]:
    """Returns what `get_state` would return before the first step, had it made its tensors.

    Args:
        network: The network that it optimises.
        optimizer: The optimiser.
        train: The section TRAIN (beta1, beta2).
    """
    powers = {"beta1_pow_acc": train.beta1, "beta2_pow_acc": train.beta2}
    return {
        f"{name}/{kind}": np.full(_shape(weight, kind), powers.get(kind, 0.0), "float32")
        for name, weight in network.named_parameters()
        for kind in STATE_NAMES[type(_unwrap(optimizer)).__name__]
    }


def match_state(
    network: nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    arrays: Dict[str, np.ndarray],
    where: str,
) -> Dict[str, paddle.Tensor]:
    """Returns tensors for `optimizer.set_state_dict`, if the arrays are exactly its own.

    Args:
        network: The network that it optimises.
        optimizer: The optimiser.
        arrays: What `get_state` returned.
        where: Where the arrays come from, for the message.

    Raises:
        UserError: If names, shapes or types differ, or a number is not finite.
    """
    weights = dict(network.named_parameters())
    kinds = STATE_NAMES[type(_unwrap(optimizer)).__name__]
    expected = {f"{name}/{kind}" for name in weights for kind in kinds}
    require(
        set(arrays) == expected,
        f"{where}: the optimiser's tensors are not those of this training's optimiser: "
        f"{', '.join(sorted(set(arrays) ^ expected)[:4])}.",
    )
    keys = _state_keys([weight.name for weight in weights.values()], optimizer)
    tensors = {}
    for name, value in arrays.items():
        weight, _, kind = name.rpartition("/")
        fits = value.dtype == np.float32 and list(value.shape) == _shape(weights[weight], kind)
        require(
            fits and bool(np.isfinite(value).all()),
            f"{where}: the optimiser's {name} has another shape, or is not finite.",
        )
        internal = weights[weight].name
        tensors[keys.get((internal, kind), f"{internal}_{kind}_0")] = paddle.to_tensor(value)
    return tensors


def _shape(weight: paddle.Tensor, kind: str) -> List[int]:
    """The shape of one of an optimiser's tensors for a weight: a power of beta is one number."""
    return [1] if kind.endswith("_pow_acc") else list(weight.shape)


def _state_keys(
    names: Iterable[str], optimizer: paddle.optimizer.Optimizer
) -> Dict[Tuple[str, str], str]:
    """Paddle's keys of an optimiser's tensors, by the weight's internal name and the kind."""
    keys = {}
    for key in optimizer.state_dict():
        match = re.fullmatch(r"(.+?\.[wb]_\d+)_(.+)_\d+", key)
        if match and match[1] in names:
            keys[match[1], match[2]] = key
    return keys


def _unwrap(optimizer: paddle.optimizer.Optimizer) -> paddle.optimizer.Optimizer:
    """The optimiser itself, which Paddle wraps where there are several processes."""
    return getattr(optimizer, "_inner_opt", optimizer)
