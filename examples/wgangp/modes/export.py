# SPDX-License-Identifier: Apache-2.0
"""mode=export: a generator as a static program and as ONNX."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from os import path as osp
from typing import Dict
from typing import Iterator

import numpy as np
import paddle
from omegaconf import OmegaConf
from paddle import nn
from paddle.static import InputSpec
from ppsci.utils import logger

from modes.experiment import Experiment
from modes.exported_files import CHECKSUMS
from modes.exported_files import NOTES
from modes.exported_files import SUFFIXES
from modes.exported_files import export_base
from modes.exported_files import replacing_export
from modes.samplers import draw_inputs
from modes.samplers import exported_sampler
from modes.samplers import live_sampler
from modes.samplers import load_generator
from networks.base import Generator
from support.errors import require
from support.storage import check_writable
from support.weight_notes import Notes
from support.weight_notes import to_json

OPSET = 17  # This ONNX operator set has all operators that the generators are made of.
TOLERANCE = 1e-4  # how far exported samples may lie from the live generator's


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
    live generator on the CPU, whose products have the same precision in all of them. Either all
    files are written, or none.

    Args:
        experiment: INFER.pretrained_model_path names the weights, INFER.export_path the files
            without suffix, or their folder.

    Raises:
        UserError: If no weights are named, the disk is full, or a file does not give the same
            samples.
    """
    device = paddle.get_device()
    paddle.set_device("cpu")
    try:
        _export(experiment)
    finally:  # A sweep's next job begins with the device that this one found.
        paddle.set_device(device)


def _export(experiment: Experiment) -> None:
    cfg = experiment.cfg
    generator = load_generator(experiment)
    path = export_base(cfg.INFER.export_path, experiment.script)
    check_writable(osp.dirname(path), "Choose another place with INFER.export_path=PATH.")
    notes = make_notes(experiment)
    with replacing_export(path) as partial:
        try:
            texts = write_and_verify(generator, partial, cfg.seed)
            with open(partial + NOTES, "wb") as file:
                file.write(to_json(notes))
        except Exception:
            require_space(generator, partial)
            raise
    for suffix, text in texts.items():
        logger.info(f"Wrote {path}{suffix}{text}")
    logger.info(f"Wrote {path}{CHECKSUMS}; mode=infer checks these files with it.")


def make_notes(experiment: Experiment) -> Notes:
    """Makes the notes of an export: mode=infer takes the settings of the generator from them."""
    whole = OmegaConf.to_container(experiment.cfg, resolve=True)
    former = experiment.weights.notes
    return Notes.of(whole, "" if former is None else former.data, experiment.weights.classes)


def write_and_verify(generator: Generator, path: str, seed: int) -> Dict[str, str]:
    """Writes all files of an export, and compares their samples with the generator's.

    Args:
        generator: The generator G.
        path: The export's path without suffix.
        seed: Seed of the noise.

    Returns:
        What the log says about each file, by its suffix.
    """
    result = "; its samples differ from the generator's by at most {:.1g}."
    write_program(generator, path)
    texts = {".json": result.format(verify(generator, path, "native", seed))}
    if importlib.util.find_spec("paddle2onnx") is None:
        logger.warning("ONNX is left out: it needs the package paddle2onnx.")
        return texts
    write_onnx(path)
    if importlib.util.find_spec("onnxruntime") is None:
        logger.warning("ONNX is not compared: that needs the package onnxruntime.")
        return {**texts, ".onnx": ", not compared with the generator."}
    return {**texts, ".onnx": result.format(verify(generator, path, "onnx", seed))}


def require_space(generator: Generator, path: str) -> None:
    """Raises `OSError` if there is no space for another copy of the weights next to a file.

    Paddle does not report a full disk: it leaves an incomplete file.
    """
    with open(f"{path}.space", "wb") as file:
        for weights in generator.state_dict().values():
            file.write(bytes(weights.size * weights.element_size()))
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def enabled_to_static() -> Iterator[None]:
    """Enables `to_static`, which a ppsci Solver disables for the whole process."""
    from paddle.jit.dy2static.program_translator import ProgramTranslator

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
    with enabled_to_static():
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


def verify(generator: Generator, path: str, engine: str, seed: int) -> float:
    """Compares an exported generator's samples with the live one's.

    Returns:
        The largest difference.

    Raises:
        UserError: If they differ by more than `TOLERANCE`, or are not finite.
    """
    exported, live = exported_sampler(path, engine), live_sampler(generator)
    differences = []
    for count in (3, 8):  # Batch statistics of a single sample would be degenerate.
        inputs = draw_inputs(generator, count, seed)
        differences.append(np.abs(exported(inputs) - live(inputs)).max())
    worst = np.max(differences)  # NaN if there is one; Python's own max would pass over it.
    require(
        worst < TOLERANCE,
        f"{osp.basename(path)}{SUFFIXES[engine][0]} gives other samples than the generator: they "
        f"differ by {worst:.2g}, and at most {TOLERANCE:g} is allowed. Nothing was exported. Try "
        "other package versions, and report it.",
    )
    return worst
