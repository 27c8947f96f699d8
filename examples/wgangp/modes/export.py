# SPDX-License-Identifier: Apache-2.0
"""mode=export: a generator as a static program and as ONNX."""

from __future__ import annotations

import contextlib
import importlib.util
from os import path as osp
from typing import Iterator

import numpy as np
import paddle
from paddle import nn
from paddle.jit.dy2static.program_translator import ProgramTranslator
from paddle.static import InputSpec
from ppsci.utils import logger

from modes.experiment import Experiment
from modes.samplers import draw_inputs
from modes.samplers import exported_sampler
from modes.samplers import live_sampler
from modes.samplers import load_generator
from networks.base import Generator
from support.errors import require
from support.storage import check_writable

OPSET = 17  # This ONNX operator set has all operators that the generators are made of.
TOLERANCE = 1e-4  # how far exported samples may lie from the live generator's


# --8<-- [start:export]
class _Exported(nn.Layer):
    """A generator as a function of tensors, not of a dictionary: noise alone, or with labels."""

    def __init__(self, generator: Generator):
        super().__init__()
        self.generator = generator
        if not generator.num_classes:
            self.forward = self.unconditional

    def forward(self, noise, labels):
        return self.generator.generate(noise, labels)

    def unconditional(self, noise):
        return self.generator.generate(noise)


def export(experiment: Experiment) -> None:
    """Writes a generator as a static program, and as ONNX where paddle2onnx is installed.

    The number of samples is free in both. Each file is loaded again and compared with the
    live generator.

    Args:
        experiment: INFER.pretrained_model_path names the weights, INFER.export_path the files
            without suffix.

    Raises:
        UserError: If no weights are named, or a file does not give the same samples.
    """
    cfg = experiment.cfg
    generator, _ = experiment.make_networks()
    load_generator(generator, cfg.INFER.pretrained_model_path, cfg.mode)
    path = osp.abspath(osp.expanduser(cfg.INFER.export_path))
    check_writable(osp.dirname(path), "Name another place with INFER.export_path=.")
    write_program(generator, path)
    verify(generator, path, "native", cfg.seed)
    if importlib.util.find_spec("paddle2onnx") is None:
        logger.warning("ONNX is left out: it needs the package paddle2onnx.")
        return
    write_onnx(path)
    if importlib.util.find_spec("onnxruntime") is None:
        logger.warning(f"Wrote {path}.onnx; testing it needs the package onnxruntime.")
        return
    verify(generator, path, "onnx", cfg.seed)


@contextlib.contextmanager
def _static_enabled() -> Iterator[None]:
    """Enables `to_static`, which a ppsci Solver disables for the whole process."""
    before = ProgramTranslator.get_instance().enable_to_static
    paddle.jit.enable_to_static(True)
    try:
        yield
    finally:
        paddle.jit.enable_to_static(before)


def write_program(generator: Generator, path: str) -> None:
    """Writes a generator as PATH.json and PATH.pdiparams."""
    spec = [InputSpec([None, generator.noise_dim], "float32", "noise")]
    if generator.num_classes:
        spec.append(InputSpec([None], "int64", "labels"))
    with _static_enabled():
        program = paddle.jit.to_static(_Exported(generator), input_spec=spec, full_graph=True)
        paddle.jit.save(program, path)


def write_onnx(path: str) -> None:
    """Converts a static program to PATH.onnx."""
    import paddle2onnx

    paddle2onnx.export(
        f"{path}.json",
        f"{path}.pdiparams",
        f"{path}.onnx",
        opset_version=OPSET,
        optimize_tool="None",  # Its optimiser installs packages while it runs, NumPy as well.
        verbose=False,
    )


def verify(generator: Generator, path: str, engine: str, seed: int) -> None:
    """Compares an exported generator's samples with the live one's.

    Raises:
        UserError: If they differ by more than `TOLERANCE`, or are not finite.
    """
    exported, live = exported_sampler(path, engine), live_sampler(generator)
    differences = []
    for count in (3, 8):  # Batch statistics of a single sample would be degenerate.
        inputs = draw_inputs(generator, count, seed)
        differences.append(np.abs(exported(inputs) - live(inputs)).max())
    worst = np.max(differences)  # NaN if there is one; Python's own max would pass over it.
    file = f"{path}.onnx" if engine == "onnx" else f"{path}.json"
    require(
        worst < TOLERANCE,
        f"{file} gives other samples than the generator: they differ by {worst:.2g}, and at "
        f"most {TOLERANCE:g} is allowed. Try other package versions, and report it.",
    )
    logger.info(f"Wrote {file}; its samples differ from the generator's by at most {worst:.1g}.")


# --8<-- [end:export]
