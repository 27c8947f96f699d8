# SPDX-License-Identifier: Apache-2.0
"""Random weights for the Inception network, and what torch-fidelity computes with them.

The real weights are a download of 96 MB. The port is proved with random ones, since any machine
can make the same. `python tests/inception_reference.py` writes golden/inception.json. It needs
PyTorch and torch-fidelity, the latter without its dependencies: its Inception does not use them.

    pip install torch==2.13.0 pillow
    pip install --no-deps torch-fidelity==0.4.0
"""

import collections
import json
import pickle
import sys
import tempfile
import types
import zipfile
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).resolve().parent / "golden" / "inception.json"
COUNT, SPLITS = 12, 3


def images(count=COUNT):
    """uint8 pictures [count, 3, 32, 32] of coloured waves: smooth, bright and all different."""
    rng = np.random.RandomState(1)
    y, x = np.mgrid[0:32, 0:32] / 32
    wave, phase = rng.uniform(-9, 9, (2, count, 3, 1, 1)), rng.uniform(0, 6, (count, 3, 1, 1))
    noise = rng.uniform(-20, 20, (count, 3, 32, 32))
    return (127.5 + 105 * np.sin(wave[0] * x + wave[1] * y + phase) + noise).astype("uint8")


def score_logits():
    """Logits [30, 1008] that differ much from each other: those of random weights do not."""
    return np.random.RandomState(2).standard_normal((30, 1008)).astype("float32") * 4


def read_golden():
    return json.loads(GOLDEN.read_text())


def random_state(shapes=None):
    """Weights of the file's shapes, such that each layer has an effect on the result."""
    rng = np.random.RandomState(0)
    state = collections.OrderedDict()
    for name, shape in (shapes or read_golden()["shapes"]).items():
        if name.endswith("num_batches_tracked"):
            state[name] = np.array(1, "int64")
            continue
        value = rng.standard_normal(tuple(shape))
        if name.endswith("conv.weight"):
            value *= np.sqrt(2 / np.prod(shape[1:]))
        elif name == "fc.weight":
            value *= 0.3
        elif name.endswith(("running_var", "bn.weight")):
            value = 1 + 0.3 * np.tanh(value)
        else:
            value *= 0.1
        state[name] = value.astype("float32")
    return state


def write_pth(path, state, name="archive"):
    """Writes arrays as `torch.save` writes a state dict, without PyTorch."""
    storages = []

    class Storage:
        def __init__(self, array):
            self.array = array

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if not isinstance(value, Storage):
                return None
            kind = {"float32": "FloatStorage", "int64": "LongStorage"}[value.array.dtype.name]
            storages.append(value.array)
            place = (str(len(storages) - 1), "cpu", value.array.size)
            return ("storage", getattr(sys.modules["torch"], kind), *place)

        def reducer_override(self, value):
            if not isinstance(value, np.ndarray):
                return NotImplemented
            strides = tuple(step // value.itemsize for step in value.strides)
            rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
            hooks = collections.OrderedDict()
            return rebuild, (Storage(value), 0, value.shape, strides, False, hooks)

    content = collections.OrderedDict(state)
    content._metadata = collections.OrderedDict(version=1)
    with zipfile.ZipFile(path, "w") as archive, _stand_in_modules():
        with tempfile.TemporaryFile() as file:
            Pickler(file, 2).dump(content)
            file.seek(0)
            archive.writestr(f"{name}/data.pkl", file.read())
        for key, array in enumerate(storages):
            archive.writestr(f"{name}/data/{key}", np.ascontiguousarray(array).tobytes())


class _stand_in_modules:
    """Makes the names in a pickle of tensors importable meanwhile."""

    def __enter__(self):
        self.kept = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
        for name in self.kept:
            sys.modules[name] = types.ModuleType(name)
        for kind in ("FloatStorage", "LongStorage"):
            setattr(sys.modules["torch"], kind, type(kind, (), {"__module__": "torch"}))

        def _rebuild_tensor_v2():
            pass

        _rebuild_tensor_v2.__module__ = "torch._utils"
        _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
        sys.modules["torch._utils"]._rebuild_tensor_v2 = _rebuild_tensor_v2

    def __exit__(self, *_):
        for name, module in self.kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def import_torch_fidelity():
    """torch-fidelity's Inception. It imports torchvision, but does not use it for that."""
    for name in ("", ".datasets", ".transforms", ".transforms.functional"):
        module = types.ModuleType(f"torchvision{name}")
        for attribute in ("CIFAR10", "STL10", "CIFAR100"):
            setattr(module, attribute, object)
        sys.modules.setdefault(f"torchvision{name}", module)
    import torch_fidelity.feature_extractor_inceptionv3 as extractor
    import torch_fidelity.interpolate_compat_tensorflow as interpolate
    import torch_fidelity.metric_fid as fid
    import torch_fidelity.metric_isc as isc

    return extractor, interpolate, fid, isc


def make_golden():
    import torch

    extractor, interpolate, fid, isc = import_torch_fidelity()

    class Bare(extractor.FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            """Only the shapes are wanted."""

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/x.pth"
        torch.save({}, path)
        bare = Bare("bare", ["2048"], feature_extractor_weights_path=path)
        found = {name: list(value.shape) for name, value in bare.state_dict().items()}
        state = random_state(found)
        torch.save({name: torch.from_numpy(value) for name, value in state.items()}, path)
        network = extractor.FeatureExtractorInceptionV3(
            "random", ["2048", "logits_unbiased"], feature_extractor_weights_path=path
        )
    resized = interpolate.interpolate_bilinear_2d_like_tensorflow1x(
        torch.from_numpy(images()[:1]).float(), size=(299, 299), align_corners=False
    )
    features, logits = network(torch.from_numpy(images()))
    half = [fid.fid_features_to_statistics(part) for part in features.split(COUNT // 2)]
    score = isc.isc_features_to_metric(
        torch.from_numpy(score_logits()), splits=SPLITS, shuffle=False
    )
    return {
        "command": "python tests/inception_reference.py",
        "torch": torch.__version__,
        "resized": resized[0, :, ::23, ::23].tolist(),
        "features": features[:2, ::128].tolist(),
        "feature_means": features.double().mean(1).tolist(),
        "logits": logits[:2, ::63].tolist(),
        "logit_norms": logits.double().norm(dim=1).tolist(),
        "inception_score": [score["inception_score_mean"], score["inception_score_std"]],
        "fid_of_halves": fid.fid_statistics_to_metric(*half, False)["frechet_inception_distance"],
        "shapes": found,
    }


if __name__ == "__main__":
    golden = make_golden()
    GOLDEN.write_text(json.dumps(golden) + "\n")
    print({name: value for name, value in golden.items() if name != "shapes"})
