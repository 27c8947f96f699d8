# SPDX-License-Identifier: Apache-2.0
"""The numbers of the authors' graph (tests/golden/authors) in the names and layouts of the suite.

Batch normalisation in groups puts row n of a batch into group n mod 2, and the authors put the
first half of the rows into the first group. So rows are exchanged: row i of half h becomes row
2 i + h. All costs are means, so nothing else depends on the order.
"""

import functools

import numpy as np
from helpers import GOLDEN

# Names of layers: the authors' and the suite's.
LAYERS = {
    "cifar": {
        "Generator.Input": "linear",
        **{f"Generator.{number + 1}": f"blocks.{number}" for number in range(3)},
        "Generator.OutputN": "norm",
        "Generator.Output": "conv",
        "Discriminator.1": "first",
        **{f"Discriminator.{number + 2}": f"blocks.{number}" for number in range(3)},
        "Discriminator.Output": "linear",
        "Discriminator.ACGANOutput": "linear_class",
    },
    "mnist": {
        "Generator.Input": "linear",
        "Generator.2": "deconv_1",
        "Generator.3": "deconv_2",
        "Generator.5": "deconv_3",
        **{f"Discriminator.{number}": f"conv_{number}" for number in (1, 2, 3)},
        "Discriminator.Output": "linear",
    },
    "toy": {
        f"{network}.{number + 1}": f"layers.{2 * number}"
        for network in ("Generator", "Discriminator")
        for number in range(4)
    },
}
PARTS = {
    **{"Shortcut": "conv_shortcut", "Conv1": "conv_1", "Conv2": "conv_2"},
    **{"N1": "norm_1", "N2": "norm_2", "Linear": None},
    **{"W": "weight", "Filters": "weight", "b": "bias", "Biases": "bias"},
    **{"scale": "scale", "offset": "offset"},
}


def translate(case, name):
    """The suite's name of a weight: "Generator.1.N1.scale" is "blocks.0.norm_1.scale"."""
    network, number, *parts = name.split(".")
    own = [LAYERS[case.split("_")[0]][f"{network}.{number}"], *(PARTS[part] for part in parts)]
    return ".".join(part for part in own if part)


@functools.cache
def read(case):
    """Arrays of a file by key; kernels are [out, in, H, W], or [in, out, H, W] if transposed.

    Weights have the suite's names; those to begin with are at `weights/generator/NAME` and
    `weights/critic/NAME`.
    """
    arrays = {}
    with np.load(GOLDEN / "authors" / f"{case}.npz") as file:
        for key, array in file.items():
            kind, name = key.split("/")
            if name.startswith(("Generator.", "Discriminator.")):
                network = "generator" if name.startswith("Generator.") else "critic"
                place = f"{kind}/{network}" if kind == "weights" else kind
                key = f"{place}/{translate(case, name)}"
            arrays[key] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    return arrays


def part(case, kind):
    """Arrays whose keys begin with `kind/`, by the rest of the key."""
    length = len(kind) + 1
    return {key[length:]: array for key, array in read(case).items() if key.startswith(f"{kind}/")}


def inputs(case, step):
    """Inputs of step 0 or 1 by their key, before they are scaled, in the suite's order of rows."""
    found = part(case, "inputs")
    if step == 1:
        found = {key: _second(key, array) for key, array in found.items()}
    return {key: interleave(array) for key, array in found.items()}


def _second(key, array):
    if key == "real_bytes":
        return 255 - array
    if key.startswith("labels"):
        return (array + 3) % 10
    if key.startswith("noise"):
        return -array
    return -array[::-1] if key == "real" else array[::-1]


def interleave(rows):
    """Row i of half h becomes row 2 i + h."""
    return np.concatenate(np.stack(np.split(rows, 2), 1))


def separate(rows):
    """Row 2 i + h becomes row i of half h."""
    return np.concatenate([rows[::2], rows[1::2]])
