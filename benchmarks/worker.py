# SPDX-License-Identifier: Apache-2.0
"""One side of a comparison: runs steps of an experiment on demand, and tells how long they took.

`python worker.py SIDE EXPERIMENT WIDTH BATCH` reads "critic", "generator", "iteration" or
"profile" from its standard input, a line each, and answers each by a line of JSON. speed.py
starts it.

Sides: "ours" (the script's own Solvers), "plain" (the same networks and loss in Paddle,
written down plainly, in Paddle's default environment), "torch" (torch_reference.py).
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from os import path as osp

SIDE, NAME, WIDTH, BATCH = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
SUITE = osp.join(osp.dirname(osp.abspath(__file__)), "..", "examples", "wgangp")
sys.path.insert(0, SUITE)
MEMORY = {}  # what the imports take


def peak() -> float:
    """Most memory so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compose():
    from hydra import compose
    from hydra import initialize_config_dir

    overrides = [
        *("device=cpu", "output_dir=none", f"TRAIN.batch_size={BATCH}"),
        *(f"MODEL.gen_net.dim={WIDTH}", f"MODEL.dis_net.dim={WIDTH}"),
    ]
    if NAME == "toy":
        overrides.insert(0, "preset=paper")  # five critic steps and equal batches, as the others
    with initialize_config_dir(osp.abspath(osp.join(SUITE, "conf")), version_base=None):
        return compose(f"wgangp_{NAME}", overrides)


def random_images(functions, count=500):
    import numpy as np

    from data.image_set import ImageSet

    rng = np.random.default_rng(0)
    shape = functions.IMAGE_SIZE[NAME]
    images = rng.integers(256, size=(count, *shape), dtype="uint8")
    labels = rng.integers(10, size=count)
    return ImageSet(images, labels, images, labels)


def ours():
    """Steps of the script's own Solvers, on random pictures."""
    from support.processor import prepare

    prepare()
    import importlib

    import paddle
    import ppsci
    from ppsci.utils import logger

    import functions
    from training import adversarial

    logger.init_logger("ppsci", None, 40)
    paddle.set_device("cpu")
    script, cfg = importlib.import_module(f"wgangp_{NAME}"), compose()
    MEMORY["imports_gib"] = peak()
    generator, critic = script.make_networks(cfg)
    data = None if NAME == "toy" else random_images(functions)

    def real(length, seed):
        if NAME == "toy":
            return script.real_points(cfg, length, seed)
        return script.real_images(data, length, seed)

    critic_solver, generator_solver = adversarial.make_solvers(cfg, generator, critic, real)
    train = ppsci.solver.train.train_epoch_func
    count = iter(range(1, 10**9))

    def critic_step():
        train(critic_solver, next(count), adversarial.NEVER)

    def generator_step():
        adversarial.set_trainable(critic, False)
        train(generator_solver, next(count), adversarial.NEVER)
        adversarial.set_trainable(critic, True)

    def iteration():
        adversarial.train_iteration(critic_solver, generator_solver, next(count))

    return critic_step, generator_step, iteration


def plain():
    """The same in Paddle, with none of the rewrites in kernels/ and Paddle's own defaults."""
    import paddle
    import paddle.nn.functional as F

    from kernels import broadcast
    from kernels import maps
    from support import processor

    # Scripts call it when they are imported, and the plain side runs by Paddle's own defaults.
    processor.prepare = lambda: None
    broadcast.broadcast_channels = lambda columns, like: columns.unsqueeze([2, 3])
    maps.linear = maps.conv = maps.conv_transpose = lambda x, layer: layer(x)
    maps.conv_mean_pool = lambda x, layer: F.avg_pool2d(layer(x), 2)
    maps.upsample_conv = lambda x, layer: layer(F.interpolate(x, scale_factor=2))
    import importlib

    import functions

    paddle.set_device("cpu")
    cfg = compose()
    script, settings = importlib.import_module(f"wgangp_{NAME}"), cfg.TRAIN
    MEMORY["imports_gib"] = peak()
    generator, critic = script.make_networks(cfg)
    shape = (2,) if NAME == "toy" else functions.IMAGE_SIZE[NAME]
    real = paddle.rand([BATCH, *shape])
    count = BATCH * settings.generator_batch_factor
    labels = paddle.randint(0, 10, [count])
    optimizers = {
        network: paddle.optimizer.Adam(
            1e-4, settings.beta1, settings.beta2, parameters=network.parameters()
        )
        for network in (generator, critic)
    }

    def step(network, loss):
        loss.backward()
        optimizers[network].step()
        optimizers[network].clear_grad()

    def critic_step():
        with paddle.no_grad():
            fake = generator.generate(paddle.randn([BATCH, generator.noise_dim]), labels[:BATCH])
        values, logits = critic.score(real)
        mixed = functions.interpolate(real, fake, paddle.rand([BATCH]))
        norm = functions.gradient_norm(critic, mixed)
        penalty = settings.penalty_weight * functions.gradient_penalty(norm)
        loss = critic.score(fake)[0].mean() - values.mean() + penalty
        if logits is not None:
            loss = loss + F.cross_entropy(logits, labels[:BATCH])
        step(critic, loss)

    def generator_step():
        for weight in critic.parameters():
            weight.stop_gradient = True
        fake = generator.generate(paddle.randn([count, generator.noise_dim]), labels)
        values, logits = critic.score(fake)
        loss = -values.mean()
        if logits is not None:
            loss = loss + 0.1 * F.cross_entropy(logits, labels)
        step(generator, loss)
        for weight in critic.parameters():
            weight.stop_gradient = False

    return critic_step, generator_step, None


def torch():
    """The same in PyTorch."""
    import torch_reference

    MEMORY["imports_gib"] = peak()
    experiment = torch_reference.Experiment(NAME, WIDTH, BATCH)
    return experiment.critic_step, experiment.generator_step, None


def operators(step) -> dict:
    """Seconds that each operator takes in a step, by the framework's own profiler."""
    if SIDE == "torch":
        from torch.profiler import ProfilerActivity
        from torch.profiler import profile

        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            step()
        return {
            event.key.replace("aten::", ""): event.self_cpu_time_total / 1e6
            for event in profiler.key_averages()
            if event.key.startswith("aten::")  # others are what is around operators
        }
    from paddle.profiler import Profiler
    from paddle.profiler import ProfilerTarget

    with tempfile.NamedTemporaryFile() as file:
        profiler = Profiler(
            targets=[ProfilerTarget.CPU], on_trace_ready=lambda p: p.export(file.name, "json")
        )
        with profiler:
            step()
        events = json.load(file)["traceEvents"]
    seconds = {}
    for event in events:
        if event.get("cat") == "DygraphKernelLaunch":  # "conv2d kernel launch[4.2 ms]"
            name = event["name"].split()[0]
            seconds[name] = seconds.get(name, 0) + event["dur"] / 1e6
    return seconds


def main() -> None:
    critic_step, generator_step, iteration = {"ours": ours, "plain": plain, "torch": torch}[SIDE]()

    def whole():
        for _ in range(5):
            critic_step()
        generator_step()

    steps = {"critic": critic_step, "generator": generator_step, "iteration": iteration or whole}
    for line in sys.stdin:
        name = line.strip()
        if name == "profile":
            answer = {"operators": operators(steps["iteration"])}
        else:
            start = time.perf_counter()
            steps[name]()
            answer = {"seconds": time.perf_counter() - start, "peak_gib": peak(), **MEMORY}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
