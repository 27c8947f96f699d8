# SPDX-License-Identifier: Apache-2.0
"""Samples of a live generator and of an exported one."""

from __future__ import annotations

from typing import Callable
from typing import Dict
from typing import Optional

import numpy as np
import paddle
from ppsci.utils import logger

from data import streams
from modes import exported_files
from modes.experiment import Experiment
from modes.recognition import adopt_settings
from modes.recognition import load_all
from networks.base import Generator
from support import weight_files
from support.errors import UserError
from support.errors import printable
from support.errors import require
from support.shipped_weights import advise

# Inputs by key, [N, ...] each, to samples [N, ...].
Inputs = Dict[str, np.ndarray]
Sampler = Callable[[Inputs], np.ndarray]


def load_generator(experiment: Experiment) -> Generator:
    """Makes the generator of the weights that INFER.pretrained_model_path names.

    Logs the checksum of the weights, and settings that they bring along.

    Raises:
        UserError: If none are named, or the weights do not fit.
    """
    cfg, key = experiment.cfg, "INFER.pretrained_model_path"
    source = cfg.INFER.pretrained_model_path
    require(
        source is not None,
        f"mode={cfg.mode} needs a trained generator: name its weights with {key}=PATH_OR_URL."
        + advise(experiment.script),
    )
    saved = weight_files.read_weights(
        source, key, "generator", cfg.INFER.pretrained_sha256, experiment.script
    )
    adopt_settings(experiment, {"generator": saved})
    experiment.weights = saved
    generator, _ = experiment.make_networks()
    load_all({"generator": saved}, {"generator": generator})
    logger.info(f"Loaded {source} ({key}), SHA-256 {saved.sha256}")
    generator.eval()
    return generator


def draw_inputs(generator: Generator, count: int, seed: int, label: Optional[int] = None) -> Inputs:
    """Draws noise, and labels if the generator is conditional.

    Args:
        generator: The generator G.
        count: Number of samples.
        seed: Seed of the noise.
        label: The class of all samples; None for all classes in turn.
    """
    rng = np.random.default_rng((seed, streams.INFERENCE))
    inputs = {"noise": rng.standard_normal((count, generator.noise_dim), "float32")}
    if generator.num_classes:
        labels = np.arange(count) % generator.num_classes
        inputs["labels"] = labels if label is None else np.full(count, label)
    return inputs


def live_sampler(generator: Generator) -> Sampler:
    """A sampler that calls a generator in this process."""

    def sample(inputs: Inputs) -> np.ndarray:
        with paddle.no_grad():
            return generator.generate(*(paddle.to_tensor(x) for x in inputs.values())).numpy()

    return sample


def exported_sampler(path: str, engine: str) -> Sampler:
    """A sampler that runs what mode=export wrote.

    Args:
        path: The exported files' path without suffix; `check_export` has checked the files.
        engine: "native" for the static program, "onnx" for ONNX with onnxruntime.

    Raises:
        UserError: If the file can't be read. The sampler raises it for inputs that the program
            does not take.
    """
    file = path + exported_files.SUFFIXES[engine][0]
    try:
        run = _open_onnx(file) if engine == "onnx" else _open_native(path)
    except ModuleNotFoundError:
        raise UserError(
            "INFER.engine=onnx needs the package onnxruntime: pip install onnxruntime."
        ) from None
    except MemoryError:  # The file may be intact.
        raise
    except Exception as error:  # Both engines raise errors of their own kinds.
        reason = printable(str(error).strip().split("\n")[-1])
        raise UserError(f"{file} can't be read ({reason}). Export it again.") from None

    def sample(inputs: Inputs) -> np.ndarray:
        try:
            return run(inputs)
        except MemoryError:
            raise
        except Exception as error:  # Here, too.
            given = ", ".join(f"{name} {list(x.shape)}" for name, x in inputs.items())
            raise UserError(
                f"{file} does not take {given} ({type(error).__name__}): repeat the MODEL.* "
                "settings that it was exported with."
            ) from None

    return sample


def _open_native(path: str) -> Sampler:
    program = paddle.jit.load(path)
    return lambda inputs: program(*(paddle.to_tensor(x) for x in inputs.values())).numpy()


def _open_onnx(file: str) -> Sampler:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # Errors only: it warns about each constant that is not used.
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)[0]
