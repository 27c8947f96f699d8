# SPDX-License-Identifier: Apache-2.0
"""One side of a comparison: takes steps of an experiment on demand and reports their times.

`python worker.py SIDE EXPERIMENT WIDTH BATCH` reads the name of a step or "profile" from its
standard input, a line each, and answers each with a line of JSON. speed.py starts it. Steps are
"critic", "generator" and "iteration"; those of EXPERIMENT inception, which has no width, are
"features".

Sides: "onednn" and "plain" (a run of the script; the environment decides whether oneDNN serves),
"paddle" (plain_reference.py, in Paddle's default environment), "torch" (torch_reference.py). The
side "products" has steps "numpy" and "onednn", a product of square matrices: `python worker.py
products products SIZE`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from typing import Callable
from typing import Dict
from typing import Iterator

import common

SIDE, NAME, *SIZES = sys.argv[1:]
WIDTH, BATCH = int(SIZES[0]), int(SIZES[-1])
Steps = Dict[str, Callable[[], Any]]
facts: Dict[str, Any] = {}  # What each answer says in addition.


def peak_memory() -> float:
    """The largest amount of memory so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compose():
    """Composes the configuration of the script."""
    setup = common.SETUPS[NAME]
    settings = [
        *(*setup.settings, "device=cpu", "output_dir=none", f"TRAIN.batch_size={BATCH}"),
        *(f"MODEL.gen_net.dim={WIDTH}", f"MODEL.dis_net.dim={WIDTH}"),
    ]
    return common.compose(f"wgangp_{setup.script}", settings)


def draw_images(count: int = 500):
    """Random pictures with labels, in the shape of the experiment's data set."""
    import numpy as np

    from data.image_set import ImageSet

    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(count, *common.SETUPS[NAME].shape), dtype="uint8")
    labels = rng.integers(10, size=count)
    return ImageSet(images, labels, images, labels)


def start_suite() -> None:
    """Imports Paddle as the scripts do."""
    from support.processor import prepare

    prepare()
    import paddle
    from ppsci.utils import logger

    logger.init_logger("ppsci", None, 40)
    paddle.set_device("cpu")


def note_imports() -> None:
    """Notes the memory after the imports, the threads, and oneDNN's version where it serves."""
    import paddle

    from kernels import availability
    from kernels import onednn

    facts["imports_gib"] = peak_memory()
    facts["threads"] = int(paddle.get_flags("FLAGS_paddle_num_threads").popitem()[1])
    facts["onednn"] = onednn.library().version if availability.is_available() else None


def make_suite_steps() -> Steps:
    """The steps of a run of the script, on random pictures."""
    start_suite()
    from networks.base import frozen
    from training.build import make_run
    from training.run_settings import RunSettings

    name = common.SETUPS[NAME].script
    script, cfg = importlib.import_module(f"wgangp_{name}"), compose()
    note_imports()
    experiment = getattr(script, name.capitalize())(cfg)  # the class Toy, Mnist, ...
    data = None if name == "toy" else draw_images()
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


def make_suite_features() -> Steps:
    """The suite's Inception with random weights, on pictures of 32x32."""
    start_suite()
    import paddle

    from measures import inception
    from support import storage

    reference = common.import_inception_reference()
    note_imports()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/weights.pth"
        reference.write_pth(path, reference.random_state())
        network = inception.Inception(path, storage.sha256(path))
    pictures = paddle.to_tensor(reference.images(BATCH).astype("float32"))
    return {"features": lambda: network.features(pictures).numpy()}


def make_reference_steps(module: str) -> Steps:
    """The steps of a reference module."""
    reference = importlib.import_module(module)
    facts["imports_gib"] = peak_memory()
    if NAME == common.INCEPTION:
        return {"features": reference.make_features(BATCH)}
    experiment = reference.Experiment(NAME, WIDTH, BATCH)
    return {
        "critic": experiment.critic_step,
        "generator": experiment.generator_step,
        "iteration": experiment.iteration,
    }


def make_products() -> Steps:
    """A product of square matrices by NumPy, and by oneDNN where it serves."""
    import numpy as np

    left, right = (np.ones((WIDTH, WIDTH), "float32") for _ in range(2))
    start_suite()
    import paddle

    from kernels import products

    note_imports()
    a, b = paddle.to_tensor(left), paddle.to_tensor(right)
    sizes = (WIDTH, WIDTH, WIDTH, "", False)
    multiply = products.multiply_by_onednn if facts["onednn"] else lambda a, b, _: a @ b
    return {"numpy": lambda: left @ right, "onednn": lambda: multiply(a, b, sizes)}


def make_steps() -> Steps:
    """The steps of this process's side and experiment."""
    if SIDE == "products":
        return make_products()
    if SIDE in ("torch", "paddle"):
        return make_reference_steps({"torch": "torch_reference", "paddle": "plain_reference"}[SIDE])
    return make_suite_features() if NAME == common.INCEPTION else make_suite_steps()


def profile_torch(step: Callable[[], Any]) -> Dict[str, Any]:
    """Seconds of a step as a whole and of each operator, from PyTorch's profiler."""
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


@contextlib.contextmanager
def onednn_log(path: Path) -> Iterator[None]:
    """Writes the log that oneDNN keeps of its primitives into a file; it goes to file 1."""
    from kernels import onednn

    flush = ctypes.CDLL(None).fflush
    kept = os.dup(1)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 1)
    onednn.library().call("set_verbose", 1)
    try:
        yield
    finally:
        onednn.library().call("set_verbose", 0)
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)


def profile_paddle(step: Callable[[], Any]) -> Dict[str, Any]:
    """`profile_torch` by Paddle's profiler and, for what it does not see, oneDNN's own log."""
    from paddle.profiler import Profiler
    from paddle.profiler import ProfilerTarget

    operators: Dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        trace, log = Path(folder) / "trace", Path(folder) / "log"
        log.touch()
        profiler = Profiler(
            targets=[ProfilerTarget.CPU], on_trace_ready=lambda p: p.export(str(trace), "json")
        )
        with onednn_log(log) if facts.get("onednn") else contextlib.nullcontext(), profiler:
            whole = time_step(step)
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
        for event in events:
            if event.get("cat") == "DygraphKernelLaunch":  # "conv2d kernel launch[4.2 ms]"
                name = event["name"].split()[0]
                operators[name] = operators.get(name, 0) + event["dur"] / 1e6
        for line in log.read_text(encoding="utf-8").splitlines():
            words = line.split(",")  # onednn_verbose,v1,primitive,exec,cpu,matmul,...,MILLISECONDS
            if words[0] == "onednn_verbose" and words[3:4] == ["exec"]:
                operators[words[5]] = operators.get(words[5], 0) + float(words[-1]) / 1e3
    return {"seconds": whole, "operators": operators}


def time_step(step: Callable[[], Any]) -> float:
    """Seconds of a step."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main() -> None:
    steps = make_steps()
    for line in sys.stdin:
        command = line.strip()
        if command == "profile":
            profile = profile_torch if SIDE == "torch" else profile_paddle
            answer = profile(list(steps.values())[-1])
        else:
            answer = {"seconds": time_step(steps[command]), "peak_gib": peak_memory(), **facts}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
