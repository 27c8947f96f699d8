# SPDX-License-Identifier: Apache-2.0
"""mode=export: a generator as a static program and as ONNX."""

from __future__ import annotations

import importlib.util
from os import path as osp

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec
from ppsci.utils import logger

from modes.samplers import draw_inputs
from modes.samplers import export_path
from modes.samplers import exported_sampler
from modes.samplers import live_sampler
from modes.samplers import load
from support.errors import require
from support.storage import check_writable

OPSET = 17  # of ONNX, which has all that the generators are made of


# --8<-- [start:export]
class _Exported(nn.Layer):
    """A generator as a function of tensors, not of a dictionary: noise alone, or with labels."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator
        if not generator.num_classes:
            self.forward = self.unconditional

    def forward(self, noise, labels):
        return self.generator.generate(noise, labels)

    def unconditional(self, noise):
        return self.generator.generate(noise)


def export(cfg, generator) -> None:
    """Writes a generator as a static program, and as ONNX where paddle2onnx is installed.

    The number of samples is free in both. Each is loaded again and compared with the live
    generator.

    Args:
        cfg: The script's configuration; INFER.export_path is the files' path without suffix.
        generator: The generator G.

    Raises:
        UserError: If no weights are named, or what was written does not give the same samples.
    """
    load(cfg, generator)
    path = export_path(cfg)
    check_writable(osp.dirname(path), "Name another place by INFER.export_path=.")
    spec = [InputSpec([None, generator.noise_dim], "float32", "noise")]
    if generator.num_classes:
        spec.append(InputSpec([None], "int64", "labels"))
    paddle.jit.enable_to_static(True)  # which a Solver turns off for the whole process
    program = paddle.jit.to_static(_Exported(generator), input_spec=spec, full_graph=True)
    paddle.jit.save(program, path)
    paddle.jit.enable_to_static(False)
    written = {"native": f"{path}.json"}
    if importlib.util.find_spec("paddle2onnx") is None:
        logger.warning("ONNX is left out: it needs pip install paddle2onnx.")
    else:
        import paddle2onnx

        # Its optimiser is off, since that one installs packages as it runs, another NumPy too.
        paddle2onnx.export(
            f"{path}.json",
            f"{path}.pdiparams",
            f"{path}.onnx",
            opset_version=OPSET,
            optimize_tool="None",
            verbose=False,
        )
        written["onnx"] = f"{path}.onnx"
    for engine, file in written.items():
        if engine == "onnx" and importlib.util.find_spec("onnxruntime") is None:
            logger.warning(f"Wrote {file}; it was not tried, which needs pip install onnxruntime.")
            continue
        exported = exported_sampler(cfg, engine)
        differences = []
        for count in (3, 8):  # batch normalisation by the batch's own needs more than one
            inputs = draw_inputs(cfg, generator, count)
            live = live_sampler(generator)(inputs)
            differences.append(np.abs(exported(inputs) - live).max())
        worst = np.max(differences)  # NaN if there is one, which Python's own max would pass over
        require(worst < 1e-4, f"{file} gives other samples than the generator, by {worst:.2g}.")
        logger.info(f"Wrote {file}; its samples are the generator's, to {worst:.1g}.")


# --8<-- [end:export]
