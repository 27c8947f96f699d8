# SPDX-License-Identifier: Apache-2.0
"""One side of a comparison: takes steps of an experiment on demand and reports their times.

`python worker.py SIDE EXPERIMENT WIDTH BATCH` reads "critic", "generator", "iteration" or
"profile" from its standard input, a line each, and answers each with a line of JSON. speed.py
starts it.

Sides: "ours" (a run of the script), "plain" (plain_reference.py, in Paddle's default
environment), "torch" (torch_reference.py).
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import tempfile
import time
from typing import Callable
from typing import Dict

import common

SIDE, NAME, WIDTH, BATCH = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
Steps = Dict[str, Callable[[], None]]
memory: Dict[str, float] = {}  # GiB after the imports


def peak_memory() -> float:
    """The largest amount of memory so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compose():
    """Composes the configuration of the script."""
    settings = [
        *("device=cpu", "output_dir=none", f"TRAIN.batch_size={BATCH}"),
        *(f"MODEL.gen_net.dim={WIDTH}", f"MODEL.dis_net.dim={WIDTH}"),
    ]
    if NAME == "toy":
        settings.insert(0, "preset=paper")  # It has five critic steps and equal batches.
    return common.compose(f"wgangp_{NAME}", settings)


def draw_images(count: int = 500):
    """Random pictures with labels, in the shape of the experiment's data set."""
    import numpy as np

    from data.image_set import ImageSet

    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(count, *common.SETUPS[NAME].shape), dtype="uint8")
    labels = rng.integers(10, size=count)
    return ImageSet(images, labels, images, labels)


def make_our_steps() -> Steps:
    """The steps of a run of the script, on random pictures."""
    from support.processor import prepare

    prepare()
    import paddle
    from ppsci.utils import logger

    from networks.base import frozen
    from training.build import make_run
    from training.run_settings import RunSettings

    logger.init_logger("ppsci", None, 40)
    paddle.set_device("cpu")
    script, cfg = importlib.import_module(f"wgangp_{NAME}"), compose()
    memory["imports_gib"] = peak_memory()
    experiment = getattr(script, NAME.capitalize())(cfg)  # the class Toy, Mnist or Cifar10
    data = None if NAME == "toy" else draw_images()
    generator, critic = experiment.make_networks()

    def make_real_streams(length, seed):
        return experiment.make_real_streams(data, generator, length, seed)

    settings = RunSettings.of(cfg)
    run = make_run(settings, generator, critic, make_real_streams, "random pictures")

    def critic_step():
        run.critic.steps = 1
        run.critic.step(run.iteration + 1)
        run.critic.steps = common.CRITIC_STEPS

    def generator_step():
        with frozen(critic):
            run.generator.step(run.iteration + 1)

    return {"critic": critic_step, "generator": generator_step, "iteration": run.step}


def make_reference_steps(module: str) -> Steps:
    """The steps of a reference module."""
    reference = importlib.import_module(module)
    memory["imports_gib"] = peak_memory()
    experiment = reference.Experiment(NAME, WIDTH, BATCH)
    return {
        "critic": experiment.critic_step,
        "generator": experiment.generator_step,
        "iteration": experiment.iteration,
    }


def profile(step: Callable[[], None]) -> Dict[str, object]:
    """Seconds of a step as a whole and of each operator, from the framework's own profiler."""
    if SIDE == "torch":
        from torch.profiler import ProfilerActivity
        from torch.profiler import profile

        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            whole = time_step(step)
        operators = {
            event.key.replace("aten::", ""): event.self_cpu_time_total / 1e6
            for event in profiler.key_averages()
            if event.key.startswith("aten::")  # Other events enclose operators.
        }
        return {"seconds": whole, "operators": operators}
    from paddle.profiler import Profiler
    from paddle.profiler import ProfilerTarget

    with tempfile.NamedTemporaryFile() as file:
        profiler = Profiler(
            targets=[ProfilerTarget.CPU], on_trace_ready=lambda p: p.export(file.name, "json")
        )
        with profiler:
            whole = time_step(step)
        events = json.load(file)["traceEvents"]
    operators = {}
    for event in events:
        if event.get("cat") == "DygraphKernelLaunch":  # "conv2d kernel launch[4.2 ms]"
            name = event["name"].split()[0]
            operators[name] = operators.get(name, 0) + event["dur"] / 1e6
    return {"seconds": whole, "operators": operators}


def time_step(step: Callable[[], None]) -> float:
    """Seconds of a step."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main() -> None:
    steps = make_our_steps() if SIDE == "ours" else make_reference_steps(f"{SIDE}_reference")
    for line in sys.stdin:
        command = line.strip()
        if command == "profile":
            answer = profile(steps["iteration"])
        else:
            answer = {"seconds": time_step(steps[command]), "peak_gib": peak_memory(), **memory}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
