# SPDX-License-Identifier: Apache-2.0
"""A training and how far it has come."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from typing import List
from typing import Optional
from typing import Tuple

import paddle
import paddle.distributed as dist
from paddle import nn

from networks.base import frozen
from training.average import MovingAverage
from training.player import Player
from training.run_settings import RunSettings

if TYPE_CHECKING:
    from training.checkpoints import Checkpoint


class Run:
    """A training and how far it has come.

    Args:
        settings: Its settings.
        critic: The critic's player.
        generator: The generator's player.
        average: The generator's moving average.
        data: Text that sets the data set apart from others.

    Attributes:
        iteration: Generator iterations done.
        rollbacks: How often it was rolled back to a checkpoint after it had diverged.
        seconds: How long it has run.
        best: The best figure of TRAIN.best_metric so far, if there is one.
        best_iteration: The iteration of that figure.
        journal: The text of metrics.jsonl.
        checkpoint: Path of the newest checkpoint, if there is one.
        start: The training's start, if it may be rolled back before there is a checkpoint.
    """

    def __init__(
        self,
        settings: RunSettings,
        critic: Player,
        generator: Player,
        average: MovingAverage,
        data: str,
    ):
        self.settings, self.critic, self.generator = settings, critic, generator
        self.average, self.data = average, data
        self.iteration = self.rollbacks = 0
        self.seconds = 0.0
        self.best: Optional[float] = None
        self.best_iteration: Optional[int] = None
        self.journal = ""
        self.checkpoint: Optional[str] = None
        self.start: Optional[Checkpoint] = None

    @property
    def players(self) -> Tuple[Player, Player]:
        return self.critic, self.generator

    @property
    def networks(self) -> List[nn.Layer]:
        """The critic, the generator, and its moving average where one is kept."""
        networks = [self.critic.network, self.generator.network]
        return [*networks, self.average.network] if self.average.is_kept else networks

    @property
    def is_best(self) -> bool:
        """Whether the best figure so far is that of this very iteration."""
        return self.best_iteration is not None and self.best_iteration == self.iteration

    # --8<-- [start:step]
    def step(self) -> None:
        """Does an iteration: `n_critic` critic steps, then one generator step."""
        self.critic.step(self.iteration + 1)
        # Without this the critic would keep the generator's gradients, and its next step would
        # add them to its own.
        with frozen(self.critic.network):
            self.generator.step(self.iteration + 1)
        self.iteration += 1

    # --8<-- [end:step]

    def seek(self) -> None:
        """Makes the players' next batches those of the run's iteration."""
        for player in self.players:
            player.seek(self.iteration, self.rollbacks)

    def agree(self, signals: int) -> Tuple[bool, bool]:
        """Asks all processes about the last iteration.

        A gradient that is not finite makes weights, optimiser tensors or losses that are not.
        One number, their sum, decides for all processes.

        Args:
            signals: How many stop signals this process got.

        Returns:
            Whether any process has diverged, and whether any got a stop signal.
        """
        total = paddle.add_n([*self._average_sums(), *self._player_sums()])
        if dist.get_world_size() == 1:
            return not math.isfinite(float(total)), signals > 0
        both = paddle.stack([total, paddle.to_tensor(float(signals), total.dtype)])
        dist.all_reduce(both)
        return not math.isfinite(float(both[0])), float(both[1]) > 0

    def _player_sums(self) -> List[paddle.Tensor]:
        return [total for player in self.players for total in player.sums()]

    def _average_sums(self) -> List[paddle.Tensor]:
        if not self.average.is_kept:
            return []
        return [value.sum() for value in self.average.network.state_dict().values()]

    def share_buffers(self) -> None:
        """Replaces running statistics, which each process takes of its own batches, by means."""
        count = dist.get_world_size()
        if count > 1:
            for network in self.networks:
                for buffer in network.buffers():
                    dist.all_reduce(buffer)
                    paddle.assign(buffer / count, buffer)
