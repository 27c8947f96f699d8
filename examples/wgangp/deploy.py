# Copyright (c) 2026 The WGAN-GP example suite authors. All Rights Reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.


"""mode=export and mode=infer: a generator as a static program and as ONNX, and samples of it."""

from __future__ import annotations

import importlib.util
import os
from os import path as osp
from typing import Callable
from typing import Dict
from typing import Optional

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec
from PIL import Image
from ppsci.utils import logger

import files
import pictures
import streams
from runtime import UserError
from runtime import check_writable
from runtime import require

OPSET = 17  # of ONNX, which has all that the generators are made of
Sampler = Callable[[Dict[str, np.ndarray]], np.ndarray]


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
    files.load_weights(generator, cfg.INFER.pretrained_model_path, key, "generator")
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


# --8<-- [start:infer]
def infer(cfg, generator, save: Callable[[np.ndarray, str], None]) -> None:
    """Draws samples of trained weights, or of an exported generator, and writes them.

    Args:
        cfg: The script's configuration; see INFER.
        generator: The generator G; of an exported one only its kind is used.
        save: Writes samples [N, ...] to a folder.

    Raises:
        UserError: If there is nothing to draw from, or no such class.
    """
    settings = cfg.INFER
    label = settings.label
    require(
        label is None or (type(label) is int and 0 <= label < generator.num_classes),
        f"INFER.label={label}: the generator knows {generator.num_classes} classes, from 0 on."
        if generator.num_classes
        else f"INFER.label={label}: the generator is not conditional. Leave it out.",
    )
    if settings.pretrained_model_path is None:
        sample = exported_sampler(cfg, settings.engine)
    else:
        load(cfg, generator)
        sample = live_sampler(generator)
    save(draw(cfg, generator, sample, settings.num_samples, label), cfg.output_dir)
    if settings.frames:
        inputs = interpolate(draw_inputs(cfg, generator, 2, label), settings.frames)
        # A batch of frames alone, all alike, would be normalised by how little they differ.
        others = draw_inputs(cfg, generator, settings.batch_size, label)
        inputs = {name: np.concatenate([x, others[name]]) for name, x in inputs.items()}
        frames = pictures.to_uint8(sample(inputs)[: settings.frames], generator.low)
        save_frames(frames, cfg.output_dir)
    logger.info(f"Wrote {settings.num_samples} samples to {cfg.output_dir}")


def draw(cfg, generator, sample: Sampler, count: int, label: Optional[int]) -> np.ndarray:
    """Samples, in whole batches: so that none depends on how many are asked for."""
    size = cfg.INFER.batch_size
    inputs = draw_inputs(cfg, generator, -(-count // size) * size, label)
    parts = [{k: v[i : i + size] for k, v in inputs.items()} for i in range(0, count, size)]
    return np.concatenate([sample(part) for part in parts])[:count]


def interpolate(inputs: Dict[str, np.ndarray], frames: int) -> Dict[str, np.ndarray]:
    """From the first noise to the second along the sphere (arXiv 1609.04468, section 2.1).

    Normal noise of many dimensions lies near a sphere; on a straight line between two, the
    middle would be nearer to the origin than anything the generator has seen.

    Args:
        inputs: Two noises, and a label for both where there are labels.
        frames: How many steps, the ends included.
    """
    one, two = inputs["noise"]
    lengths = np.linalg.norm(one), np.linalg.norm(two)
    angle = np.arccos(np.clip((one / lengths[0]) @ (two / lengths[1]), -1, 1))
    share = np.linspace(0, 1, frames)[:, None]
    noise = (np.sin((1 - share) * angle) * one + np.sin(share * angle) * two) / np.sin(angle)
    result = {"noise": noise.astype("float32")}
    if "labels" in inputs:
        result["labels"] = inputs["labels"][:1].repeat(frames)
    return result


def save_frames(images: np.ndarray, folder: str, enlarge: int = 4) -> None:
    """Writes pictures, uint8 [N, C, H, W], as a strip and as a GIF that goes there and back."""
    strip = pictures.make_grid(images, columns=len(images))
    Image.fromarray(strip).save(osp.join(folder, "interpolation.png"))
    frames = [
        Image.fromarray(image.transpose(1, 2, 0).repeat(3 // len(image), 2)).resize(
            (image.shape[2] * enlarge, image.shape[1] * enlarge), Image.Resampling.NEAREST
        )
        for image in images
    ]
    there_and_back = frames + frames[-2:0:-1]
    there_and_back[0].save(
        osp.join(folder, "interpolation.gif"),
        save_all=True,
        append_images=there_and_back[1:],
        duration=80,
        loop=0,
    )


def save_pictures(images: np.ndarray, folder: str, low: float) -> None:
    """Writes samples [N, C, H, W] as PNG files, and as a grid."""
    os.makedirs(osp.join(folder, "pictures"), exist_ok=True)
    width = len(str(len(images) - 1))
    for number, image in enumerate(pictures.to_uint8(images, low)):
        picture = Image.fromarray(image.transpose(1, 2, 0).squeeze())
        picture.save(osp.join(folder, "pictures", f"{number:0{width}d}.png"))
    pictures.save_grid(images, osp.join(folder, "samples.png"), low)


# --8<-- [end:infer]
