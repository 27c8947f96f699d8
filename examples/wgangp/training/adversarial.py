# SPDX-License-Identifier: Apache-2.0
"""The adversarial loop: two ppsci Solvers, each of which owns the network that it optimises."""

from __future__ import annotations

import contextlib
import copy
import errno
import importlib.util
import json
import math
import os
import signal
import sys
import time
from os import path as osp
from typing import Any
from typing import Callable
from typing import Dict
from typing import List
from typing import Mapping
from typing import Optional
from typing import Sequence
from typing import Tuple

import paddle
import paddle.distributed as dist
import ppsci
from omegaconf import OmegaConf
from paddle import nn
from ppsci.utils import logger
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

import functions
from data import streams
from measures import evaluation
from measures.evaluation import NEVER
from support import pictures
from support import storage
from support import weight_files
from support.errors import UserError
from support.errors import require
from support.progress import SILENCE
from training import checkpoints
from training import objectives

LOSS_NAMES = {"discriminator": "critic", "generator": "generator"}


# --8<-- [start:optimizer]
def make_optimizer(cfg, network: nn.Layer, name: str, rate: float):
    """An optimiser, with a rate that stays or falls to 0 over the run's own length.

    The rate falls once an iteration (`by_epoch`, as ppsci calls it), as in the authors' code.

    Args:
        cfg: The script's configuration.
        network: The network to optimise.
        name: "Adam", "RMSProp" or "SGD".
        rate: The learning rate at the start.
    """
    settings = cfg.TRAIN
    schedule = ppsci.optimizer.lr_scheduler.Linear(
        settings.epochs * settings.iters_per_epoch,
        1,
        rate,
        end_lr=rate if settings.lr_schedule == "constant" else 0.0,
        by_epoch=True,
    )()
    if name == "RMSProp":
        # rho and epsilon as in TensorFlow, by which the clipping variants were published
        return ppsci.optimizer.RMSProp(schedule, rho=0.9, epsilon=1e-10)(network)
    if name == "SGD":
        return ppsci.optimizer.Momentum(schedule, settings.momentum)(network)
    return ppsci.optimizer.Adam(schedule, settings.beta1, settings.beta2)(network)


# --8<-- [end:optimizer]


# --8<-- [start:constraint]
def make_constraint(
    name: str, inputs: Mapping, batch_size: int, loss, output_expr: Dict[str, Callable]
):
    """A SupervisedConstraint that reads whole batches of `inputs` in their order.

    Args:
        name: The constraint's name.
        inputs: Array-likes of equal length, by input key.
        batch_size: Rows of a batch.
        loss: A FunctionalLoss; it gets the model's outputs and those of `output_expr`.
        output_expr: What else the loss needs, as functions of inputs and model's outputs.
    """
    return ppsci.constraint.SupervisedConstraint(
        {
            # Rows are drawn when they are read (streams.py), so their order is random already.
            "dataset": {"name": "NamedArrayDataset", "input": inputs, "label": {}},
            "batch_size": batch_size,
            "sampler": {"name": "BatchSampler", "shuffle": False, "drop_last": True},
        },
        loss,
        output_expr,
        name=name,
    )


# --8<-- [end:constraint]


# --8<-- [start:solvers]
def make_solvers(
    cfg,
    generator,
    critic,
    real: Callable[[int, Sequence[int]], Dict[str, streams.Stream]],
):
    """The critic's Solver and the generator's.

    The critic's sees real batches, and noise from which its constraint draws fakes of the
    frozen generator; the generator's sees noise (and labels), and its loss asks the frozen
    critic.

    Args:
        cfg: The script's configuration.
        generator: The generator G.
        critic: The critic D.
        real: Makes the streams of real samples (and labels), of a number of rows and a seed.

    Returns:
        (critic's Solver, generator's Solver).
    """
    settings, use_label = cfg.TRAIN, "labels" in generator.input_keys
    noise_dim, objective = generator.noise_dim, objectives.make_objective(cfg)
    if objective.penalty is not None and cfg.MODEL.dis_net.get("norm") == "batch":
        logger.warning(
            "MODEL.dis_net.norm=batch ties samples together, while the gradient penalty of "
            f"LOSS={cfg.LOSS.name} holds for each sample on its own: the critic is penalised for "
            "what its neighbours do. Choose layer or null (section 4 of the paper)."
        )
    # what all processes read in an epoch; each gets its own batches of it
    batches = settings.iters_per_epoch * settings.update_freq * dist.get_world_size()

    rows = batches * settings.n_critic * settings.batch_size
    real_inputs = real(rows, (cfg.seed, streams.REAL))
    critic_inputs = {
        **{key: stream for key, stream in real_inputs.items() if use_label or key != "labels"},
        "noise": streams.normal_stream(rows, (cfg.seed, streams.CRITIC_NOISE), noise_dim),
        "alpha": streams.uniform_stream(rows, (cfg.seed, streams.ALPHA)),
    }

    def draw_fakes(inputs):
        # No graph through the generator: a critic step has no use for its gradient. As in
        # the authors' code, these fakes carry the labels of the real batch.
        with paddle.no_grad():
            return generator(inputs)["fake"]

    passed_on = [key for key in critic_inputs if key != "noise"]
    critic_constraint = make_constraint(
        "critic",
        critic_inputs,
        settings.batch_size,
        functions.CriticLoss(
            critic,
            objective,
            settings.get("critic_class_weight", 0.0),
            settings.penalty_gradient,
        ),
        {
            **{key: lambda data, key=key: data[key] for key in passed_on},
            "fake": draw_fakes,
        },
    )

    batch_size = settings.generator_batch_factor * settings.batch_size
    rows = batches * batch_size
    generator_inputs = {
        "noise": streams.normal_stream(rows, (cfg.seed, streams.GENERATOR_NOISE), noise_dim)
    }
    if use_label:
        generator_inputs["labels"] = streams.label_stream(
            rows, (cfg.seed, streams.LABELS), generator.num_classes
        )
    generator_constraint = make_constraint(
        "generator",
        generator_inputs,
        batch_size,
        functions.GeneratorLoss(critic, objective, settings.get("generator_class_weight", 0.0)),
        {"labels": lambda data: data["labels"]} if use_label else {},
    )

    for key, package in (("use_tbd", "tensorboardX"), ("use_vdl", "visualdl")):
        require(
            not cfg[key] or importlib.util.find_spec(package) is not None,
            f"{key}=true needs pip install {package}.",
        )
    is_first = dist.get_rank() == 0

    def make_solver(network, constraint, steps, optimizer, **writers):
        solver = ppsci.solver.Solver(
            network,
            {constraint.name: constraint},
            cfg.output_dir,
            optimizer,
            # a step is an epoch to ppsci, since something may be due after each
            epochs=steps,
            iters_per_epoch=settings.update_freq,
            update_freq=settings.update_freq,
            log_freq=NEVER,  # one line for both networks is written by the loop
            seed=cfg.seed,
            device=cfg.device,
            use_amp=cfg.use_amp,
            **writers,
        )
        # train_epoch_func is called without Solver.train(), which would set max_steps; from
        # step 1 on, it does not write lines of its own
        solver.max_steps, solver.global_step = NEVER, 1
        return solver

    critic_optimizer = make_optimizer(
        cfg, critic, settings.critic_optimizer, settings.critic_learning_rate
    )
    optimizer = make_optimizer(cfg, generator, settings.optimizer, settings.learning_rate)
    return (
        make_solver(critic, critic_constraint, settings.n_critic, critic_optimizer),
        make_solver(
            generator,
            generator_constraint,
            1,
            optimizer,
            # ppsci's own writers, which only the first process can have
            use_tbd=cfg.use_tbd and is_first,
            use_vdl=cfg.use_vdl and is_first,
        ),
    )


# --8<-- [end:solvers]


def seek(cfg, solvers: Sequence, iteration: int, attempt: int = 0) -> None:
    """Makes the next batch that Solvers read that of an iteration, counted from 0."""
    for solver in solvers:
        for constraint in solver.constraint.values():
            for stream in constraint.data_loader.dataset.input.values():
                stream.seek(iteration * (len(stream) // cfg.TRAIN.iters_per_epoch), attempt)
            constraint.data_iter = iter(constraint.data_loader)


def set_trainable(network: nn.Layer, trainable: bool) -> None:
    """Thaws or freezes a network's weights: frozen ones get no gradient."""
    for weight in network.parameters():
        weight.stop_gradient = not trainable


# --8<-- [start:average]
class MovingAverage:
    """A generator whose weights are the exponential moving average of another's.

    Per step `average += (1 - decay) * (weights - average)`, where the decay starts lower,
    at most (1 + step) / (10 + step), so that the first weights are soon forgotten. Buffers
    (running statistics) are copied: averages of averages lag twice.

    Args:
        generator: The generator that is trained.
        decay: In [0, 1); None for no average: then `network` is that generator itself.
    """

    def __init__(self, generator: nn.Layer, decay: Optional[float]):
        self.source, self.decay = generator, decay
        self.network = generator if decay is None else copy.deepcopy(generator)

    @paddle.no_grad()
    def update(self, step: int) -> None:
        """Steps the average, after `step` steps of the generator."""
        if self.decay is None:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, current in zip(self.network.parameters(), self.source.parameters()):
            paddle.assign(average + (1 - decay) * (current - average), average)
        for average, current in zip(self.network.buffers(), self.source.buffers()):
            paddle.assign(current, average)


def make_average(cfg, generator: nn.Layer) -> MovingAverage:
    """The moving average that TRAIN.ema asks for."""
    return MovingAverage(generator, cfg.TRAIN.ema.decay if cfg.TRAIN.ema.use_ema else None)


# --8<-- [end:average]


# --8<-- [start:step]
def train_iteration(critic_solver, generator_solver, iteration: int) -> None:
    """`n_critic` critic steps, then one generator step.

    Args:
        critic_solver: Owns the critic.
        generator_solver: Owns the generator.
        iteration: The generator iteration, from 1.
    """
    train = ppsci.solver.train.train_epoch_func
    try:
        for _ in range(critic_solver.epochs):
            train(critic_solver, iteration, NEVER)
            critic_solver.constraint["critic"].loss.after_step()
        # Else the critic would keep the generator's gradients, and add them to its next step's.
        set_trainable(critic_solver.model, False)
        train(generator_solver, iteration, NEVER)
        set_trainable(critic_solver.model, True)
    except StopIteration:
        raise streams.failures[0] from None
    for solver in (critic_solver, generator_solver):
        solver.lr_scheduler.step()
        # which keep every number they were ever given: a kilobyte an iteration
        for meters in (solver.train_output_info, solver.train_loss_info, solver.train_time_info):
            for meter in meters.values():
                meter.reset()


# --8<-- [end:step]


# --8<-- [start:loop]
def train(
    run: checkpoints.Run,
    validators: Dict[str, Any],
    draw: Callable[[str], None],
    checkpoint: Optional[checkpoints.Checkpoint] = None,
) -> None:
    """Trains both networks, and leaves a run's files in the output folder.

    With several processes, all train and evaluate, and the first one writes.

    Args:
        run: The training.
        validators: Evaluate its average at intervals; none if TRAIN.eval_during_train is false.
        draw: Writes a picture of samples to a path.
        checkpoint: Where to go on.

    Raises:
        UserError: If the training diverges, or its folder can't be written to any more.
        SystemExit: After SIGINT or SIGTERM, having saved a checkpoint.
    """
    cfg, settings = run.cfg, run.cfg.TRAIN
    solvers, network = (run.critic_solver, run.generator_solver), run.average.network
    iterations = settings.epochs * settings.iters_per_epoch
    if checkpoint is not None:
        checkpoints.restore(run, checkpoint)
        logger.info(f"Going on from {checkpoint.path}, after iteration {run.iteration}.")
    if settings.resume is not None:
        require_same(run)
    evaluator = evaluation.make_solver(cfg, network, validators) if validators else None
    seek(cfg, solvers, run.iteration, run.rollbacks)
    start = told = time.perf_counter() - run.seconds
    with writing(run), stop_signals() as signals, progress_bar(run.iteration, iterations) as bar:
        open_folder(run)
        if run.iteration == 0:
            draw_samples(run, draw)
        while run.iteration < iterations:
            rate = run.generator_solver.optimizer.get_lr()
            train_iteration(*solvers, run.iteration + 1)
            run.iteration += 1
            has_diverged, is_stopped = ask_all(probe(run), len(signals))
            if has_diverged:
                roll_back(run, rate)
                continue
            run.average.update(run.iteration)
            bar.update(run.iteration - bar.n)

            epoch, rest = divmod(run.iteration, settings.iters_per_epoch)
            ends_epoch, is_last = rest == 0, run.iteration == iterations
            is_due = ends_epoch or run.iteration == 1 or run.iteration % cfg.log_freq == 0
            now = time.perf_counter()
            run.seconds = now - start
            if is_due or now - told >= SILENCE:
                told = now
                record = {"step": run.iteration, "seconds": round(run.seconds, 3)}
                for loss in run.losses.values():
                    record.update(loss.mean_figures())
                record["learning_rate"] = rate
                bar.set_postfix(wasserstein=f"{record['wasserstein']:.3f}", refresh=False)
                logger.info(describe(record, iterations))
            # Else it was a sign of life only: what is recorded does not depend on the clock.
            if ends_epoch or is_stopped:
                share_buffers(run)
            if is_due:
                for loss in run.losses.values():
                    loss.figures.clear()
                if ends_epoch:
                    draw_samples(run, draw)
                    if evaluator is not None and (epoch % settings.eval_freq == 0 or is_last):
                        evaluate(run, evaluator, record)
                add_record(run, record)
            is_best = is_due and record.get("best", False)
            is_saved = settings.save_freq and ends_epoch
            is_saved = is_saved and (epoch % settings.save_freq == 0 or is_last)
            # the first iteration's, too, where a training may want to go back
            wants_first = run.iteration == 1 and settings.on_nan == "roll_back"
            if is_saved or wants_first or is_stopped or is_best:
                checkpoints.save(run)
            if is_best:
                keep_best(run)
            if is_stopped and not is_last:
                leave(run, signals)
            if ends_epoch and not is_last:  # a data set is as long as an epoch
                seek(cfg, solvers, run.iteration, run.rollbacks)

        if settings.ema.use_ema:
            save_networks(cfg, "model_average", network)
        save_networks(cfg, "model", run.average.source, run.networks["discriminator"])


# --8<-- [end:loop]


def open_folder(run) -> None:
    """Makes a run's folder what it was at the run's iteration; the first process does."""
    is_first = dist.get_rank() == 0
    if is_first:
        os.makedirs(osp.join(run.cfg.output_dir, "samples"), exist_ok=True)
        for folder in (run.cfg.output_dir, checkpoints.checkpoint_folder(run.cfg)):
            storage.remove_partial(folder)  # of a run that was killed while it wrote
        checkpoints.abandon_later(run)
    # by all, since they wait for each other in it
    if checkpoints.is_best(run):
        keep_best(run)  # it may have been killed before that, or have been in another folder
    if is_first:
        OmegaConf.save(run.cfg, osp.join(run.cfg.output_dir, "config.yaml"), resolve=True)
        with storage.replacing(checkpoints.journal_path(run.cfg)) as file:
            file.write(run.journal.encode())


def require_same(run) -> None:
    """Refuses to go on if processes have not found the same checkpoint.

    Raises:
        UserError: Where they don't see the same folder.
    """
    if dist.get_world_size() > 1:
        found: List[paddle.Tensor] = []
        state = [run.iteration, run.rollbacks, len(run.journal)]
        dist.all_gather(found, paddle.to_tensor(state, "int64"))
        require(
            all(other.tolist() == state for other in found),
            f"the processes have found checkpoints of the iterations "
            f"{', '.join(str(int(other[0])) for other in found)} (0 where there is none): all "
            "must see the same folder.",
        )


def share_buffers(run) -> None:
    """Makes running statistics, which each process takes of its own batches, the mean of all."""
    count = dist.get_world_size()
    if count > 1:
        for network in run.networks.values():
            for buffer in network.buffers():
                dist.all_reduce(buffer)
                paddle.assign(buffer / count, buffer)


def draw_samples(run, draw: Callable[[str], None]) -> None:
    """Writes the picture of an iteration."""
    if dist.get_rank() == 0:
        width = len(str(run.cfg.TRAIN.epochs * run.cfg.TRAIN.iters_per_epoch))
        name = f"iteration_{run.iteration:0{width}d}.png"
        path = osp.join(run.cfg.output_dir, "samples", name)
        draw(path)
        for writer in (run.generator_solver.tbd_writer, run.generator_solver.vdl_writer):
            if writer is not None:
                image = pictures.read_picture(path)
                writer.add_image("samples", image, run.iteration, dataformats="HWC")


def add_record(run, record: Dict[str, Any]) -> None:
    """Adds a line to metrics.jsonl, and draws its curves where an epoch ends."""
    line = json.dumps(record, allow_nan=False) + "\n"
    run.journal += line
    if dist.get_rank() > 0:
        return
    path = checkpoints.journal_path(run.cfg)
    if not osp.exists(path):  # which opening it for more would make anew
        raise FileNotFoundError(errno.ENOENT, "was removed while the training ran", path)
    with open(path, "a", encoding="utf-8") as file:
        file.write(line)
    solver = run.generator_solver
    figures = {k: v for k, v in record.items() if isinstance(v, float) and k != "seconds"}
    logger.scalar(figures, run.iteration, solver.vdl_writer, None, solver.tbd_writer)
    if run.iteration % run.cfg.TRAIN.iters_per_epoch == 0:
        pictures.draw_losses(run.cfg.output_dir)
        if solver.tbd_writer is not None:  # VisualDL's writes at once
            solver.tbd_writer.flush()


def evaluate(run, evaluator, record: Dict[str, Any]) -> None:
    """Evaluates the average, adds the figures to a record, and whether it is the best so far."""
    settings = run.cfg.TRAIN
    figures = evaluation.evaluate(evaluator)
    record.update(figures)
    record["evaluated"] = "average" if settings.ema.use_ema else "generator"
    logger.info(
        f"[{run.iteration}] evaluated the {record['evaluated']}: {evaluation.describe(figures)}"
    )
    value = figures.get(settings.best_metric)
    if value is not None and dist.get_world_size() > 1:
        shared = paddle.to_tensor([value], "float64")
        dist.broadcast(shared, 0)  # the decision below is one for all
        value = float(shared)
    if value is None:
        logger.warning(
            f"TRAIN.best_metric={settings.best_metric} is not among what is measured here: no "
            "best generator is kept."
        )
    elif run.best is None or evaluation.is_better(settings.best_metric, value, run.best):
        run.best, record["best"] = value, True


def keep_best(run) -> None:
    """Writes the weights of the best generator, of the critic beside it, and their checkpoint."""
    name = f"checkpoints/{checkpoints.best_name(run.cfg)}"
    save_networks(run.cfg, name, run.average.network, run.networks["discriminator"])
    checkpoints.save_best(run)


def probe(run) -> paddle.Tensor:
    """A number that is NaN or infinite if a loss of the last iteration or a weight is.

    A gradient that is not finite makes weights that are not, or an optimiser's tensors. One
    number is read instead of dozens, so that a GPU is waited for once.
    """
    parts = [value.sum() for n in run.networks.values() for value in n.state_dict().values()]
    for solver in run.solvers.values():
        state = solver.optimizer.state_dict()
        parts += [value.sum() for value in state.values() if isinstance(value, paddle.Tensor)]
    for role, loss in run.losses.items():
        steps = run.solvers[role].epochs * run.solvers[role].iters_per_epoch
        parts += loss.figures[f"{LOSS_NAMES[role]}_loss"][-steps:]
    return paddle.add_n(parts)


def ask_all(probed: paddle.Tensor, signals: int) -> Tuple[bool, bool]:
    """Whether any process has diverged, and whether any was told to stop."""
    if dist.get_world_size() == 1:
        return not math.isfinite(float(probed)), signals > 0
    both = paddle.stack([probed, paddle.to_tensor(float(signals), probed.dtype)])
    dist.all_reduce(both)
    return not math.isfinite(float(both[0])), float(both[1]) > 0


def roll_back(run, rate: float) -> None:
    """Goes back to the newest checkpoint, to continue with other draws; or stops.

    Raises:
        UserError: If TRAIN.on_nan says so, or it happened too often; names the iteration, the
            values, and the checkpoint.
    """
    settings = run.cfg.TRAIN
    lost = {}
    for role, loss in run.losses.items():
        steps = run.solvers[role].epochs * run.solvers[role].iters_per_epoch
        last = {name: float(paddle.stack(v[-steps:]).mean()) for name, v in loss.figures.items()}
        lost.update({name: value for name, value in last.items() if not math.isfinite(value)})
    texts = [f"{name} is {value}" for name, value in lost.items()]
    for role, network in run.networks.items():
        finite = all(bool(value.isfinite().all()) for value in network.state_dict().values())
        texts += [] if finite else [f"weights of the {role} are not finite"]
    message = (
        f"the training diverged in iteration {run.iteration}, at a learning rate of {rate:g}: "
        f"{', '.join(texts) or 'gradients too large for the optimiser, or another process did'}."
    )
    if settings.on_nan == "stop":
        raise UserError(
            f"{message} Nothing of it was saved. {last_checkpoint(run)} Try a smaller "
            "TRAIN.learning_rate, or TRAIN.on_nan=roll_back."
        )
    require(
        run.checkpoint is not None and run.rollbacks < settings.max_rollbacks,
        f"{message} It went back {run.rollbacks} times before, of TRAIN.max_rollbacks="
        f"{settings.max_rollbacks}. {last_checkpoint(run)} Try a smaller TRAIN.learning_rate.",
    )
    rollbacks = run.rollbacks + 1
    checkpoints.restore(run, checkpoints.read(run.checkpoint))
    run.rollbacks = rollbacks
    logger.warning(f"{message} Back to {run.checkpoint}, with other draws ({rollbacks}. time).")
    open_folder(run)
    seek(run.cfg, list(run.solvers.values()), run.iteration, rollbacks)


def last_checkpoint(run) -> str:
    """A sentence that names the newest checkpoint."""
    if run.checkpoint is None or not osp.exists(run.checkpoint):
        return "There is no checkpoint yet."
    return f"The last checkpoint is {run.checkpoint}; TRAIN.resume=PATH goes on from there."


@contextlib.contextmanager
def writing(run):
    """Turns a file that can't be written into a `UserError` that names the last checkpoint."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{run.cfg.output_dir} can't be written to any more ({error}); the training ended "
            f"at iteration {run.iteration}. {last_checkpoint(run)}"
        ) from None


@contextlib.contextmanager
def stop_signals():
    """Notes SIGINT and SIGTERM in a list, for the loop to end well; a second Ctrl-C ends at once.

    A second SIGTERM does not: Paddle's launcher sends three within a second.
    """
    noted, former = [], {}

    def note(number, _):
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not noted:
            logger.info(
                f"{signal.Signals(number).name}: this iteration is finished and saved; Ctrl-C "
                "ends at once."
            )
        noted.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        former[number] = signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def leave(run, signals: List[int]) -> None:
    """Ends a training that was told to stop and is saved, with the status that shells expect."""
    logger.info(
        f"Stopped after iteration {run.iteration}; saved {run.checkpoint}. To go on, give the "
        f"same command with hydra.run.dir={osp.abspath(run.cfg.output_dir)} TRAIN.resume=auto"
    )
    sys.exit(128 + (signals or [signal.SIGTERM])[0])


@contextlib.contextmanager
def progress_bar(done: int, iterations: int):
    """A bar on a terminal; elsewhere nothing, since the log's lines tell the same."""
    terminal = sys.stderr.isatty() and dist.get_rank() == 0
    with logging_redirect_tqdm([logger._logger]) if terminal else contextlib.nullcontext():
        with tqdm(initial=done, total=iterations, unit="it", disable=not terminal) as bar:
            yield bar


def describe(record: Dict[str, float], iterations: int) -> str:
    """A record of metrics.jsonl as a line for people."""
    speed = record["step"] / max(record["seconds"], 1e-9)
    left = (iterations - record["step"]) / speed
    text = (
        f"[{record['step']}/{iterations}] "
        f"wasserstein {record['wasserstein']:.4f}, "
        f"critic {record['critic_loss']:.4f}, generator {record['generator_loss']:.4f}"
    )
    if "gradient_norm" in record:
        text += f", gradient norm {record['gradient_norm']:.3f}"
    if "accuracy_real" in record:
        text += (
            f", class accuracy real {record['accuracy_real']:.2f} "
            f"fake {record['accuracy_fake']:.2f}"
        )
    clock = time.strftime("%H:%M:%S", time.gmtime(left % 86400))
    days = f"{int(left // 86400)} d " if left >= 86400 else ""
    return f"{text}, {speed:.2f} it/s, {days}{clock} left"


def save_networks(cfg, name: str, generator: nn.Layer, critic: Optional[nn.Layer] = None) -> None:
    """Writes weights as NAME_generator.pdparams and NAME_discriminator.pdparams."""
    for network, role in ((generator, "generator"), (critic, "discriminator")):
        if network is not None and dist.get_rank() == 0:
            path = osp.join(cfg.output_dir, f"{name}_{role}.pdparams")
            weight_files.save_weights(network, path)
            logger.info(f"Saved {path}")
