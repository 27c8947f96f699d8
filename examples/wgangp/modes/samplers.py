# SPDX-License-Identifier: Apache-2.0
"""Samples of a live generator and of exported ones."""

from __future__ import annotations

from os import path as osp
from typing import Callable
from typing import Dict
from typing import Optional

import numpy as np
import paddle

from data import streams
from support import weight_files
from support.errors import UserError
from support.errors import require

Sampler = Callable[[Dict[str, np.ndarray]], np.ndarray]


def export_path(cfg) -> str:
    """What the exported files' paths begin with."""
    return osp.abspath(osp.expanduser(cfg.INFER.export_path))


def load(cfg, generator) -> None:
    """Loads the weights that INFER.pretrained_model_path names.

    Raises:
        UserError: If it names none, or they do not fit.
    """
    key = "INFER.pretrained_model_path"
    require(
        cfg.INFER.pretrained_model_path is not None,
        f"mode={cfg.mode} wants a trained generator: name it by {key}=PATH_OR_URL.",
    )
    weight_files.load_weights(generator, cfg.INFER.pretrained_model_path, key, "generator")
    generator.eval()


def draw_inputs(cfg, generator, count: int, label: Optional[int] = None) -> Dict[str, np.ndarray]:
    """Noise, and labels if the generator is conditional: of one class, or of all in turn."""
    rng = np.random.default_rng((cfg.seed, streams.INFERENCE))
    inputs = {"noise": rng.standard_normal((count, generator.noise_dim), "float32")}
    if generator.num_classes:
        labels = np.arange(count) % generator.num_classes
        inputs["labels"] = labels if label is None else np.full(count, label)
    return inputs


def live_sampler(generator) -> Sampler:
    """Samples of a generator in this process."""

    def sample(inputs):
        with paddle.no_grad():
            return generator.generate(*(paddle.to_tensor(x) for x in inputs.values())).numpy()

    return sample


def exported_sampler(cfg, engine: str) -> Sampler:
    """Samples of what mode=export wrote.

    Args:
        cfg: The script's configuration.
        engine: "native" for the static program, "onnx" for ONNX by onnxruntime.

    Raises:
        UserError: If it is not there, or can't be read; and of its samples, if it is of other
            inputs.
    """
    path = export_path(cfg)
    file = f"{path}.onnx" if engine == "onnx" else f"{path}.json"
    require(
        osp.isfile(file),
        f"there is no {file}. Write it by mode=export INFER.pretrained_model_path=PATH, name "
        "another by INFER.export_path=, or weights by INFER.pretrained_model_path=.",
    )
    try:
        if engine == "onnx":
            import onnxruntime

            quiet = onnxruntime.SessionOptions()
            quiet.log_severity_level = 3  # errors: it warns of each constant that it does not need
            session = onnxruntime.InferenceSession(file, quiet, ["CPUExecutionProvider"])

            def run(inputs):
                return session.run(None, inputs)[0]

        else:
            program = paddle.jit.load(path)

            def run(inputs):
                return program(*(paddle.to_tensor(x) for x in inputs.values())).numpy()

    except ModuleNotFoundError:
        raise UserError("INFER.engine=onnx needs pip install onnxruntime.") from None
    except Exception as error:  # both raise errors of their own kinds
        reason = str(error).strip().split("\n")[-1]
        raise UserError(f"{file} can't be read ({reason}). Export it anew.") from None

    def sample(inputs):
        try:
            return run(inputs)
        except Exception as error:  # of many kinds, too
            given = ", ".join(f"{name} {list(x.shape)}" for name, x in inputs.items())
            raise UserError(
                f"{file} does not take {given} ({type(error).__name__}): repeat the MODEL.* "
                "settings that it was exported with."
            ) from None

    return sample
