# SPDX-License-Identifier: Apache-2.0
"""What tests share in addition to fixtures: paths, and the registry of all networks.

Paddle is imported after `support.processor.prepare`, so this module does not import it.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from pathlib import Path
from typing import Any
from typing import Dict
from typing import Optional
from typing import Tuple

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "examples" / "wgangp"
sys.path.insert(0, str(SCRIPTS))
GOLDEN = ROOT / "tests" / "golden"
# Real data are used where they are found; see the fixture `shared`.
REAL_DATA = Path(os.environ.get("WGANGP_TEST_DATA", ROOT.parent / "shared" / "data"))


@dataclasses.dataclass(frozen=True)
class NetworkCase:
    """A network of tiny width, on which the property tests run.

    Attributes:
        name: The case's name.
        path: Its module and class.
        options: Arguments of the class.
        shape: Shape of one sample.
        num_classes: Classes of a generator's labels or a critic's logits; 0 for none.
    """

    name: str
    path: str
    options: Dict[str, Any]
    shape: Tuple[int, ...]
    num_classes: int = 0

    def __str__(self) -> str:
        return self.name

    def make(self) -> Any:
        module, _, name = self.path.rpartition(".")
        return getattr(importlib.import_module(module), name)(**self.options)


@dataclasses.dataclass(frozen=True)
class GeneratorCase(NetworkCase):
    """A generator.

    Attributes:
        low: The lower end of the range of samples, whose upper end is 1; None for no range.
        has_batch_norm: Whether a sample depends on the others of its batch.
    """

    low: Optional[float] = -1.0
    has_batch_norm: bool = True


@dataclasses.dataclass(frozen=True)
class CriticCase(NetworkCase):
    """A critic.

    Attributes:
        norm: "layer", "batch" (samples depend on each other), "stored" (fixed statistics) or None.
        is_piecewise_linear: Whether the first-order penalty holds for it.
    """

    norm: Optional[str] = None
    is_piecewise_linear: bool = False


def has_onednn() -> bool:
    """Whether Paddle's wheel has the library that networks use; its results may be wrong."""
    onednn = importlib.import_module("kernels.onednn")
    try:
        onednn.library()
    except onednn.Unavailable:
        return False
    return True


def _published(name: str) -> str:
    return f"networks.published.Published{name}"


TOY, MNIST, CIFAR10, IMAGE64 = (2,), (1, 28, 28), (3, 32, 32), (3, 64, 64)
POINTS = {"low": None, "has_batch_norm": False}
DIGITS = {"low": 0.0, "has_batch_norm": False}
STORED = {"has_batch_norm": False}
PIECEWISE = {"is_piecewise_linear": True}
LAYER, BATCH, SPECTRAL = {"norm": "layer"}, {"norm": "batch"}, {"norm": "spectral"}
NO_LABEL = {"use_label": False}

# A new network is tested everywhere if it gets one line in these two lists.
_GENERATORS = [
    GeneratorCase("toy", "functions.WganGpToyGenerator", {"dim": 8}, TOY, **POINTS),
    GeneratorCase("mnist", "functions.WganGpMnistGenerator", {"dim": 2}, MNIST, **DIGITS),
    GeneratorCase("cifar10", "functions.WganGpCifar10Generator", {"dim": 4}, CIFAR10, 10),
    GeneratorCase(
        "cifar10 no label", "functions.WganGpCifar10Generator", {"dim": 4, **NO_LABEL}, CIFAR10
    ),
    GeneratorCase("dcgan", "networks.dcgan.Dcgan64Generator", {"dim": 2}, IMAGE64),
    GeneratorCase(
        "dcgan labels", "networks.dcgan.Dcgan64Generator", {"dim": 2, "num_classes": 5}, IMAGE64, 5
    ),
    GeneratorCase("resnet64", "networks.resnet64.Resnet64Generator", {"dim": 2}, IMAGE64),
    GeneratorCase(
        "resnet64 labels",
        "networks.resnet64.Resnet64Generator",
        {"dim": 2, "num_classes": 5},
        IMAGE64,
        5,
    ),
    GeneratorCase(
        "resnet64 attention",
        "networks.resnet64.Resnet64Generator",
        {"dim": 2, "attention": True},
        IMAGE64,
    ),
    GeneratorCase("wgan_lab", "networks.wgan_lab.WganLabGenerator", {"dim": 2}, MNIST),
    GeneratorCase("published toy", _published("ToyGenerator"), {"dim": 8}, TOY, **POINTS),
    GeneratorCase("published mnist", _published("MnistGenerator"), {"dim": 2}, MNIST, **DIGITS),
    GeneratorCase(
        "published cifar10", _published("Cifar10Generator"), {"dim": 4}, CIFAR10, 10, **STORED
    ),
    GeneratorCase(
        "published cifar10 no label",
        _published("Cifar10Generator"),
        {"dim": 4, **NO_LABEL},
        CIFAR10,
        **STORED,
    ),
]
_CRITICS = [
    CriticCase("toy", "functions.WganGpToyDiscriminator", {"dim": 6}, TOY, **PIECEWISE),
    CriticCase(
        "toy deep", "functions.WganGpToyDiscriminator", {"dim": 6, "hidden": 11}, TOY, **PIECEWISE
    ),
    CriticCase("mnist", "functions.WganGpMnistDiscriminator", {"dim": 2}, MNIST, **PIECEWISE),
    CriticCase(
        "mnist layer", "functions.WganGpMnistDiscriminator", {"dim": 2, **LAYER}, MNIST, **LAYER
    ),
    CriticCase(
        "mnist spectral",
        "functions.WganGpMnistDiscriminator",
        {"dim": 2, **SPECTRAL},
        MNIST,
        **PIECEWISE,
    ),
    CriticCase(
        "mnist batch", "functions.WganGpMnistDiscriminator", {"dim": 2, **BATCH}, MNIST, **BATCH
    ),
    CriticCase(
        "cifar10", "functions.WganGpCifar10Discriminator", {"dim": 4}, CIFAR10, 10, **PIECEWISE
    ),
    CriticCase(
        "cifar10 no label",
        "functions.WganGpCifar10Discriminator",
        {"dim": 4, **NO_LABEL},
        CIFAR10,
        **PIECEWISE,
    ),
    CriticCase(
        "cifar10 layer",
        "functions.WganGpCifar10Discriminator",
        {"dim": 4, **LAYER},
        CIFAR10,
        10,
        **LAYER,
    ),
    CriticCase(
        "cifar10 spectral",
        "functions.WganGpCifar10Discriminator",
        {"dim": 4, **SPECTRAL},
        CIFAR10,
        10,
        **PIECEWISE,
    ),
    CriticCase(
        "cifar10 batch",
        "functions.WganGpCifar10Discriminator",
        {"dim": 4, **BATCH},
        CIFAR10,
        10,
        **BATCH,
    ),
    *(
        CriticCase(
            f"{name} {norm or 'plain'}",
            path,
            {"dim": 2, "norm": norm, **({"num_classes": classes} if classes else {})},
            shape,
            classes,
            norm,
            norm is None,
        )
        for name, path, shape, classes in (
            ("dcgan", "networks.dcgan.Dcgan64Discriminator", IMAGE64, 5),
            ("resnet64", "networks.resnet64.Resnet64Discriminator", IMAGE64, 5),
            ("wgan_lab", "networks.wgan_lab.WganLabDiscriminator", MNIST, 0),
        )
        for norm in (None, "layer", "batch")
    ),
    CriticCase(
        "resnet64 attention",
        "networks.resnet64.Resnet64Discriminator",
        {"dim": 2, "norm": None, "attention": True},
        IMAGE64,
    ),
    CriticCase("published toy", _published("ToyDiscriminator"), {"dim": 6}, TOY),
    CriticCase("published mnist", _published("MnistDiscriminator"), {"dim": 2}, MNIST),
    CriticCase(
        "published cifar10", _published("Cifar10Discriminator"), {"dim": 4}, CIFAR10, 10, "stored"
    ),
]
GENERATORS = {case.name: case for case in _GENERATORS}
CRITICS = {case.name: case for case in _CRITICS}
