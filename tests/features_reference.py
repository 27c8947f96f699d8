# SPDX-License-Identifier: Apache-2.0
"""What torch-fidelity and prdc compute from the same features.

`python tests/features_reference.py` writes golden/features.json. It needs what
inception_reference.py needs, and prdc:

    pip install --no-deps prdc==0.2
"""

import contextlib
import io
import json
from pathlib import Path

import inception_reference
import numpy as np

GOLDEN = Path(__file__).resolve().parent / "golden" / "features.json"
SUBSETS, SIZE, SEED = 20, 100, 2020


def features():
    """Features of samples [250, 24] and of real pictures [300, 24], as after a ReLU."""
    rng = np.random.RandomState(0)
    directions = rng.standard_normal((6, 24))
    sets = []
    for count, scale in ((250, 0.8), (300, 1.0)):
        values = scale * rng.standard_normal((count, 6)) @ directions
        values += 0.3 * rng.standard_normal((count, 24))
        sets.append(np.maximum(values, 0).astype("float32"))
    return sets


def read_golden():
    return json.loads(GOLDEN.read_text())


def torch_fidelity_figures(fake, real):
    """KID's mean and deviation in float64, precision and recall."""
    inception_reference.import_torch_fidelity()
    import torch
    import torch_fidelity.metric_kid as kid
    import torch_fidelity.metric_prc as prc

    options = {"kid_subsets": SUBSETS, "kid_subset_size": SIZE, "rng_seed": SEED}
    tensors = [torch.from_numpy(part.astype("float64")) for part in (fake, real)]
    distance = kid.kid_features_to_metric(*tensors, verbose=False, **options)
    shares = prc.prc_features_to_metric(*tensors, verbose=False)
    return {
        "kid": [distance[f"kernel_inception_distance_{part}"] for part in ("mean", "std")],
        "precision": shares["precision"],
        "recall": shares["recall"],
    }


def prdc_figures(fake, real):
    """Precision and recall of k=3, density and coverage of k=5."""
    import prdc

    with contextlib.redirect_stdout(io.StringIO()):
        third, fifth = (prdc.compute_prdc(real, fake, k) for k in (3, 5))
    figures = {name: third[name] for name in ("precision", "recall")}
    figures.update({name: fifth[name] for name in ("density", "coverage")})
    return {name: float(value) for name, value in figures.items()}


if __name__ == "__main__":
    golden = {
        "command": "python tests/features_reference.py",
        "torch_fidelity": torch_fidelity_figures(*features()),
        "prdc": prdc_figures(*features()),
    }
    GOLDEN.write_text(json.dumps(golden, indent=2) + "\n")
    print(golden)
