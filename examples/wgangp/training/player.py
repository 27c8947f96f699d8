# SPDX-License-Identifier: Apache-2.0
"""A network in training together with the ppsci Solver that optimises it.

All contact with what ppsci does not publish (its training function, meters, iterators and
writers) is in this module.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING
from typing import Any
from typing import Callable
from typing import Dict
from typing import List
from typing import Optional

import numpy as np
import paddle
import paddle.distributed as dist
import ppsci

from data.streams import Stream
from functions import AdversarialLoss
from support import pictures
from support import weight_files
from support.errors import list_some
from support.errors import printable
from support.errors import require
from training import optimizers
from training.run_settings import RunSettings

if TYPE_CHECKING:
    from training.checkpoints import Checkpoint

# ppsci logs and stops after this many steps. Neither must happen.
UNREACHED = 10**12
# Figures that losses may keep (`keep` in functions.py), by the player's name.
FIGURES = {
    "critic": {
        *("critic_loss", "wasserstein", "gradient_penalty", "gradient_norm"),
        *("critic_class_loss", "accuracy_real", "accuracy_fake"),
    },
    "generator": {"generator_loss", "generator_class_loss"},
}


@dataclasses.dataclass
class PlayerState:
    """What `Player.read_state` found in a checkpoint, checked and ready to be set."""

    weights: Dict[str, np.ndarray]
    optimizer: Dict[str, paddle.Tensor]
    figures: Dict[str, np.ndarray]
    scaler: Optional[Dict]


class Player:
    """A network, its loss and its data, and the Solver that owns the network.

    Args:
        name: "critic" or "generator".
        prefix: How names of its arrays begin in a checkpoint.
        network: The network.
        loss: Its loss, which keeps figures for the log.
        inputs: Streams by input key, of equal length: what an epoch reads.
        batch_size: Rows of a batch.
        output_expr: What the loss needs in addition to the network's outputs, as functions of
            inputs and outputs.
        optimizer: The optimiser of its weights.
        steps: Steps in each iteration.
        settings: The run's settings.
        has_writers: Whether ppsci's writers (TensorBoard, VisualDL) are opened.
    """

    def __init__(
        self,
        name: str,
        prefix: str,
        network: ppsci.arch.Arch,
        loss: AdversarialLoss,
        inputs: Dict[str, Stream],
        batch_size: int,
        output_expr: Dict[str, Callable],
        optimizer: paddle.optimizer.Optimizer,
        steps: int,
        settings: RunSettings,
        has_writers: bool = False,
    ):
        self.name, self.prefix, self.network, self.loss = name, prefix, network, loss
        self.inputs, self.steps, self.train = inputs, steps, settings.train
        self.iters_per_epoch = settings.train.iters_per_epoch
        # --8<-- [start:constraint]
        self.constraint = ppsci.constraint.SupervisedConstraint(
            {
                # Streams draw their rows when they are read, so the order is random already.
                "dataset": {"name": "NamedArrayDataset", "input": inputs, "label": {}},
                "batch_size": batch_size,
                "sampler": {"name": "BatchSampler", "shuffle": False, "drop_last": True},
            },
            loss,
            output_expr,
            name=name,
        )
        # --8<-- [end:constraint]
        # --8<-- [start:solver]
        self.solver = ppsci.solver.Solver(
            network,
            {name: self.constraint},
            settings.output_dir,
            optimizer,
            # ppsci counts a step as an epoch, since the loop acts after each step.
            epochs=steps,
            iters_per_epoch=settings.train.update_freq,
            update_freq=settings.train.update_freq,
            log_freq=UNREACHED,  # The loop writes one line for both networks.
            seed=settings.seed,
            device=settings.device,
            use_amp=settings.use_amp,
            use_tbd=settings.use_tbd and has_writers,
            use_vdl=settings.use_vdl and has_writers,
        )
        # --8<-- [end:solver]
        if dist.get_world_size() > 1:
            for weight in network.parameters():
                # Paddle's fused reduction scrambles gradients that are transposed views.
                weight.register_hook(lambda gradient: gradient.contiguous())
        # Solver.train() would set max_steps. ppsci logs its first step, so this begins at 1.
        self.solver.max_steps, self.solver.global_step = UNREACHED, 1

    def step(self, iteration: int) -> None:
        """Takes the steps of an iteration, then the schedule's.

        Args:
            iteration: The generator iteration, from 1.

        Raises:
            Exception: What reading the data raised.
        """
        try:
            for _ in range(self.steps):
                ppsci.solver.train.train_epoch_func(self.solver, iteration, UNREACHED)
                self.loss.after_step()
        except StopIteration:
            failures = [stream.failure for stream in self.inputs.values() if stream.failure]
            raise failures[0] if failures else RuntimeError("a data stream ended early") from None
        self.solver.lr_scheduler.step()
        # Meters keep every number that they get: a kilobyte in each iteration.
        solver = self.solver
        for meters in (solver.train_output_info, solver.train_loss_info, solver.train_time_info):
            for meter in meters.values():
                meter.reset()

    def seek(self, iteration: int, attempt: int = 0) -> None:
        """Makes the next batch that of an iteration, counted from 0.

        Args:
            iteration: Generator iterations done.
            attempt: How often the run was rolled back; another attempt draws other numbers.
        """
        for stream in self.inputs.values():
            stream.seek(iteration * (len(stream) // self.iters_per_epoch), attempt)
        self.constraint.data_iter = iter(self.constraint.data_loader)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.solver.optimizer.get_lr()

    @property
    def batches(self) -> int:
        """Batches that it reads in an iteration."""
        return self.steps * self.solver.iters_per_epoch

    def sums(self) -> List[paddle.Tensor]:
        """Sums of its weights, its optimiser's tensors, its last losses and estimates.

        The estimate may be infinite where the loss is not, as that of LOSS=gan. A sum is NaN or
        infinite where a part is. The powers of Adam's betas are always finite, and each would be
        copied to a GPU, since its build of Paddle keeps them in the CPU's memory.
        """
        parts = [value.sum() for value in self.network.state_dict().values()]
        parts += [
            value.sum()
            for name, value in self.solver.optimizer.state_dict().items()
            if isinstance(value, paddle.Tensor) and "_pow_acc" not in name
        ]
        names = (f"{self.name}_loss", "wasserstein")
        figures = [self.loss.figures.get(name, [])[-self.batches :] for name in names]
        return [*parts, *figures[0], *figures[1]]

    def last_figures(self) -> Dict[str, float]:
        """Means of its loss's figures over the last iteration."""
        figures = self.loss.figures.items()
        return {n: float(paddle.stack(kept[-self.batches :]).mean()) for n, kept in figures}

    def describe_divergence(self) -> List[str]:
        """Describes what is not finite: figures and weights, or else the optimiser's tensors."""
        figures = self.last_figures().items()
        texts = [f"{name} is {value}" for name, value in figures if not math.isfinite(value)]
        names = list_not_finite(self.network.state_dict())
        if names:
            texts.append(f"weights of the {self.name} are not finite: {names}")
        names = list_not_finite(optimizers.get_state(self.network, self.solver.optimizer))
        if names and not texts:
            texts.append(
                f"gradients were too large: tensors of the {self.name}'s optimiser are not finite: "
                f"{names}"
            )
        return texts

    def arrays(self) -> Dict[str, np.ndarray]:
        """What a checkpoint keeps of it: weights, the optimiser's tensors, unrecorded figures."""
        parts = {f"{self.prefix}/{n}": v.numpy() for n, v in self.network.state_dict().items()}
        optimizer = self.solver.optimizer
        state = optimizers.get_state(self.network, optimizer)  # empty before the first step
        state = state or optimizers.first_state(self.network, optimizer, self.train)
        parts.update({f"{self.prefix}_optimizer/{n}": value for n, value in state.items()})
        for name, values in self.loss.figures.items():
            parts[f"{self.prefix}_figures/{name}"] = paddle.stack(values).numpy()
        return parts

    def scaler_state(self) -> Dict[str, List]:
        """The state of mixed precision's loss scaler, for JSON; empty without one."""
        if self.solver.scaler is None:
            return {}
        state = self.solver.scaler.state_dict()
        return {key: np.asarray(value).tolist() for key, value in state.items()}

    def read_state(self, checkpoint: Checkpoint) -> PlayerState:
        """Reads its part of a checkpoint, and changes nothing yet.

        Raises:
            UserError: If it is of another network, optimiser or loss.
        """
        where = checkpoint.path
        optimizer = self.solver.optimizer
        tensors = checkpoint.part(f"{self.prefix}_optimizer")
        figures = checkpoint.part(f"{self.prefix}_figures")
        scaler = checkpoint.contents["scalers"].get(self.prefix)
        require(
            self._has_form(figures),
            f"{printable(where)}, {self.name}: its figures are not equally long lists of finite "
            f"numbers, named {', '.join(sorted(FIGURES[self.name]))}.",
        )
        own = self.scaler_state()
        require(
            not scaler or not own or _form(scaler) == _form(own),
            f"{printable(where)}, {self.name}: its loss scaler is not one of Paddle's.",
        )
        return PlayerState(
            weight_files.match_weights(self.network, checkpoint.part(self.prefix), where),
            optimizers.match_state(self.network, optimizer, tensors, f"{where}, {self.name}"),
            figures,
            scaler,
        )

    def _has_form(self, figures: Dict[str, np.ndarray]) -> bool:
        """Whether arrays can be figures that are not recorded yet."""
        return (
            set(figures) <= FIGURES[self.name]
            and len({values.shape for values in figures.values()}) <= 1
            and all(
                values.ndim == 1
                and values.size > 0
                and values.dtype in (np.float16, np.float32, np.float64)
                and np.isfinite(values).all()
                for values in figures.values()
            )
        )

    def set_state(self, state: PlayerState, iteration: int) -> None:
        """Sets what `read_state` returned.

        Args:
            state: The state.
            iteration: Generator iterations done; the rate follows this run's own schedule.
        """
        self.network.set_state_dict(state.weights)
        schedule = {"last_epoch": iteration, "last_lr": 0.0}
        self.solver.optimizer.set_state_dict({**state.optimizer, "LR_Scheduler": schedule})
        self.solver.lr_scheduler.step(iteration)
        if self.solver.scaler is not None and state.scaler:
            scale = np.array(state.scaler["scale"], "float32")
            self.solver.scaler.load_state_dict({**state.scaler, "scale": scale})
        self.loss.figures = {
            name: [paddle.to_tensor(value) for value in values]
            for name, values in state.figures.items()
        }

    def write_figures(self, figures: Dict[str, float], iteration: int) -> None:
        """Writes figures to TensorBoard and VisualDL, where they are asked for."""
        solver = self.solver
        ppsci.utils.logger.scalar(figures, iteration, solver.vdl_writer, None, solver.tbd_writer)
        if solver.tbd_writer is not None:  # VisualDL writes at once.
            solver.tbd_writer.flush()

    def write_picture(self, path: str, iteration: int) -> None:
        """Writes a picture of samples to TensorBoard and VisualDL, where they are asked for."""
        for writer in (self.solver.tbd_writer, self.solver.vdl_writer):
            if writer is not None:
                picture = pictures.read_picture(path)
                writer.add_image("samples", picture, iteration, dataformats="HWC")


def list_not_finite(arrays: Dict[str, Any]) -> str:
    """Lists the names of arrays or tensors with NaN or infinity; empty if there are none."""
    names = [name for name, array in arrays.items() if not np.isfinite(np.asarray(array)).all()]
    return list_some(names, 3)


def _form(state: Dict[str, Any]) -> Dict[str, Any]:
    """Shape and kind of each value of a loss scaler's state."""
    arrays = {name: np.asarray(value) for name, value in state.items()}
    return {name: (array.shape, array.dtype.kind) for name, array in arrays.items()}
