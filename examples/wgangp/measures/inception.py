# SPDX-License-Identifier: Apache-2.0
"""The TensorFlow Inception of 2015-12-05: only scores and FIDs of this network compare.

`python -m measures.inception` is its self-test. It needs the weights and CIFAR-10, and compares
the Inception Score of the first hundred training images with the known value.
"""

from __future__ import annotations

from support.processor import prepare

if __name__ == "__main__":
    prepare()

import argparse
from os import path as osp
from typing import Callable
from typing import Dict
from typing import Optional
from typing import Tuple
from typing import Union

import numpy as np
import paddle
from paddle import nn
from ppsci.utils import logger
from scipy.special import softmax

import functions
from kernels import maps
from kernels.broadcast import is_on_cpu
from support import downloads
from support import storage
from support import torch_files
from support import weight_files
from support.errors import UserError
from support.errors import fail
from support.errors import require

# mseitzer/pytorch-fid and toshas/torch-fidelity released the same file, byte for byte.
ADDRESSES = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
)
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
WEIGHTS = f"{storage.CACHE}/weights/wgangp/pt_inception-2015-12-05-6726825d.pth"
EXPECTED = 4.51089784587268  # Inception Score of CIFAR-10's first hundred training images
TOLERANCE = 1e-4  # the tolerance of that score in torch-fidelity's tests
EPSILON = 1e-3  # added to variances in its batch normalisation
SIZE = 299  # height and width of the network's input
CPU_BATCH = 10  # pictures at a time on a CPU, where more take memory and are not faster


def resize(images: paddle.Tensor, size: int = SIZE) -> paddle.Tensor:
    """Bilinear resizing as in TensorFlow 1: output pixel i lies at `i * in / out`.

    Other libraries align the corners or shift the centres by half a pixel, and the score
    changes. Positions are float32, as in TensorFlow.

    Args:
        images: Float32 [N, C, H, W].
        size: Height and width of the result.

    Returns:
        Float32 [N, C, size, size].
    """
    for axis in (3, 2):
        length = images.shape[axis]
        position = np.arange(size, dtype="float32") * np.float32(length / size)
        low = position.astype("int64")
        high = np.minimum(low + 1, length - 1)
        share = (position - low.astype("float32")).reshape([-1] + [1] * (3 - axis))
        left = paddle.index_select(images, paddle.to_tensor(low), axis)
        right = paddle.index_select(images, paddle.to_tensor(high), axis)
        images = left + (right - left) * paddle.to_tensor(share)
    return images


class _Unit(nn.Layer):
    """Convolution, batch normalisation, ReLU; the convolution's weights include the second.

    Args:
        name: Name in the weights file.
        n_in: Input channels.
        n_out: Output channels.
        size: Size of the kernel: a number, or height and width.
        stride: 1 keeps the picture's size, 2 halves it without padding.
        same: Whether a convolution of stride 1 pads.
    """

    def __init__(
        self,
        name: str,
        n_in: int,
        n_out: int,
        size: Union[int, Tuple[int, int]],
        stride: int = 1,
        same: bool = True,
    ):
        super().__init__()
        self.name_in_file = name
        height, width = (size, size) if isinstance(size, int) else size
        padding = [height // 2, width // 2] if same and stride == 1 else 0
        self.conv = nn.Conv2D(n_in, n_out, [height, width], stride, padding)

    def shapes(self) -> Dict[str, Tuple[int, ...]]:
        """Shapes of the unit's arrays in the weights file, by name."""
        norm = ("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
        shapes = {
            "conv.weight": tuple(self.conv.weight.shape),
            **dict.fromkeys(norm, (self.conv.weight.shape[0],)),
        }
        return {f"{self.name_in_file}.{name}": shape for name, shape in shapes.items()}

    def load(self, state: Dict[str, np.ndarray]) -> None:
        """Sets the weights from the arrays of the weights file."""
        weight, scale, offset, mean, variance = (
            state[name].astype("float64") for name in self.shapes()
        )
        factor = scale / np.sqrt(variance + EPSILON)
        self.conv.weight.set_value((weight * factor[:, None, None, None]).astype("float32"))
        self.conv.bias.set_value((offset - mean * factor).astype("float32"))

    def forward(self, x):
        return maps.relu(maps.conv(x, self.conv))


class _Parallel(nn.Layer):
    """Branches with the same input; their outputs are concatenated by channel."""

    def __init__(self, *branches: nn.Layer):
        super().__init__()
        self.branches = nn.LayerList(branches)

    def forward(self, x):
        return maps.concat([branch(x) for branch in self.branches])


def _chain(block: str, n_in: int, *units) -> nn.Sequential:
    """A block's units in sequence, each as (name, channels, kernel size, stride)."""
    layers = []
    for name, n_out, *rest in units:
        layers.append(_Unit(f"{block}.{name}", n_in, n_out, *rest))
        n_in = n_out
    return nn.Sequential(*layers)


class _Pool(nn.Layer):
    """A pool of 3x3 windows, by a function of `kernels.maps`."""

    def __init__(self, function: Callable, stride: int, padding: int = 0):
        super().__init__()
        self.function, self.stride, self.padding = function, stride, padding

    def forward(self, x):
        return self.function(x, 3, self.stride, self.padding)


def _pooled(
    block: str, n_in: int, n_out: int, function: Callable = maps.average_pool
) -> nn.Sequential:
    # Paddle's average does not count the padding, like TensorFlow's.
    return nn.Sequential(_Pool(function, 1, 1), _chain(block, n_in, ("branch_pool", n_out, 1)))


def _block_a(block: str, n_in: int, n_pool: int) -> _Parallel:
    return _Parallel(
        _chain(block, n_in, ("branch1x1", 64, 1)),
        _chain(block, n_in, ("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)),
        _chain(
            *(block, n_in, ("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3)),
            ("branch3x3dbl_3", 96, 3),
        ),
        _pooled(block, n_in, n_pool),
    )


def _block_b(block: str, n_in: int) -> _Parallel:
    return _Parallel(
        _chain(block, n_in, ("branch3x3", 384, 3, 2)),
        _chain(
            *(block, n_in, ("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3)),
            ("branch3x3dbl_3", 96, 3, 2),
        ),
        _Pool(maps.max_pool, 2),
    )


def _block_c(block: str, n_in: int, n_mid: int) -> _Parallel:
    row, column = (1, 7), (7, 1)
    return _Parallel(
        _chain(block, n_in, ("branch1x1", 192, 1)),
        _chain(
            *(block, n_in, ("branch7x7_1", n_mid, 1), ("branch7x7_2", n_mid, row)),
            ("branch7x7_3", 192, column),
        ),
        _chain(
            *(block, n_in, ("branch7x7dbl_1", n_mid, 1), ("branch7x7dbl_2", n_mid, column)),
            *(("branch7x7dbl_3", n_mid, row), ("branch7x7dbl_4", n_mid, column)),
            ("branch7x7dbl_5", 192, row),
        ),
        _pooled(block, n_in, 192),
    )


def _block_d(block: str, n_in: int) -> _Parallel:
    return _Parallel(
        _chain(block, n_in, ("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)),
        _chain(
            *(block, n_in, ("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, (1, 7))),
            *(("branch7x7x3_3", 192, (7, 1)), ("branch7x7x3_4", 192, 3, 2)),
        ),
        _Pool(maps.max_pool, 2),
    )


def _block_e(block: str, n_in: int, pool: Callable) -> _Parallel:
    def fork(a: str, b: str) -> _Parallel:
        return _Parallel(
            _chain(block, 384, (a, 384, (1, 3))),
            _chain(block, 384, (b, 384, (3, 1))),
        )

    return _Parallel(
        _chain(block, n_in, ("branch1x1", 320, 1)),
        nn.Sequential(
            _chain(block, n_in, ("branch3x3_1", 384, 1)),
            fork("branch3x3_2a", "branch3x3_2b"),
        ),
        nn.Sequential(
            _chain(block, n_in, ("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3)),
            fork("branch3x3dbl_3a", "branch3x3dbl_3b"),
        ),
        _pooled(block, n_in, 192, pool),
    )


class Inception(nn.Layer):
    """Pictures to features [N, 2048] and logits [N, 1008], for evaluation only.

    The topology is that of torchvision's InceptionV3 with the differences of the network of
    2015: average pools that do not count their padding, a maximum pool in the last block,
    batch normalisation with epsilon 1e-3, 1008 outputs, and logits WITHOUT their bias.

    Args:
        path: The weights, `pt_inception-2015-12-05-6726825d.pth`.
        sha256: Checksum of another file, for experiments.

    Raises:
        UserError: If the file has another checksum, is damaged, or holds other arrays.
    """

    version = 1  # see measures.features.FeatureNetwork

    def __init__(self, path: str, sha256: Optional[str] = None):
        super().__init__()
        sha256 = sha256 or SHA256
        self.sha256 = storage.sha256(path)
        require(
            self.sha256 == sha256,
            f"{path} has the SHA-256 {self.sha256}, expected {sha256}. Scores with other weights "
            "are not comparable. EVAL.inception_weights=PATH names another file. If this program "
            "downloaded it, move it away, and the next run downloads it again.",
        )
        # The report must show that scores with other weights are not comparable.
        self.title = "Inception of 2015-12-05" if sha256 == SHA256 else "Inception, other weights"
        self.stem = nn.Sequential(
            _Unit("Conv2d_1a_3x3", 3, 32, 3, 2),
            _Unit("Conv2d_2a_3x3", 32, 32, 3, same=False),
            _Unit("Conv2d_2b_3x3", 32, 64, 3),
            _Pool(maps.max_pool, 2),
            _Unit("Conv2d_3b_1x1", 64, 80, 1),
            _Unit("Conv2d_4a_3x3", 80, 192, 3, same=False),
            _Pool(maps.max_pool, 2),
        )
        self.blocks = nn.Sequential(
            _block_a("Mixed_5b", 192, 32),
            _block_a("Mixed_5c", 256, 64),
            _block_a("Mixed_5d", 288, 64),
            _block_b("Mixed_6a", 288),
            _block_c("Mixed_6b", 768, 128),
            _block_c("Mixed_6c", 768, 160),
            _block_c("Mixed_6d", 768, 160),
            _block_c("Mixed_6e", 768, 192),
            _block_d("Mixed_7a", 768),
            _block_e("Mixed_7b", 1280, maps.average_pool),
            _block_e("Mixed_7c", 2048, maps.max_pool),
        )
        self._load(torch_files.read_pth(path), path)
        self.eval()

    def _load(self, state: Dict[str, np.ndarray], where: str) -> None:
        units = [layer for layer in self.sublayers() if isinstance(layer, _Unit)]
        shapes = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
        for unit in units:
            shapes.update(unit.shapes())
        # The counters of training steps are not used in evaluation.
        state = {n: value for n, value in state.items() if not n.endswith("num_batches_tracked")}
        expected = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
        weight_files.require_fit(expected, state, "the Inception of 2015-12-05", where)
        for unit in units:
            unit.load(state)
        self.logit_weight = paddle.to_tensor(state["fc.weight"].T.astype("float32"))

    @paddle.no_grad()
    def features(self, images: paddle.Tensor) -> paddle.Tensor:
        """Pictures [N, 3, H, W], whole numbers 0..255 in float32, to pool3 features [N, 2048]."""
        step = CPU_BATCH if is_on_cpu(images) else len(images)
        parts = []
        for i in range(0, len(images), step):
            x = (resize(images[i : i + step]) - 128) / 128
            parts.append(maps.mean(self.blocks(self.stem(x))))
        return paddle.concat(parts)

    @paddle.no_grad()
    def logits(self, features: paddle.Tensor) -> paddle.Tensor:
        """Features [N, 2048] to logits [N, 1008], without the bias: the score is defined so."""
        return features @ self.logit_weight


def score_hundred(network: Inception, images: np.ndarray) -> float:
    """Inception Score of 100 pictures as in torch-fidelity's own tests.

    The score has ten splits, after NumPy's old shuffle with seed 2020.

    Args:
        network: The Inception.
        images: Pictures, uint8 [100, 3, 32, 32].
    """
    logits = [
        network.logits(network.features(paddle.to_tensor(part.astype("float32"))))
        for part in np.split(images, 10)
    ]
    order = np.random.RandomState(2020).permutation(100)
    logits = np.concatenate([part.numpy() for part in logits]).astype("float64")
    score, _ = functions.inception_score(softmax(logits[order], 1), splits=10)
    return score


def main() -> None:
    """Runs the self-test; exits with status 2 if it fails."""
    parser = argparse.ArgumentParser(
        description="Self-test: the Inception Score of CIFAR-10's first hundred training images."
    )
    parser.add_argument("--data", required=True, help="cifar-10-python.tar.gz")
    parser.add_argument(
        "--weights", default=WEIGHTS, help=f"downloaded if absent; default: {WEIGHTS}"
    )
    options = parser.parse_args()
    logger.init_logger("ppsci")
    paddle.set_device("cpu")  # a GPU may multiply float32 with fewer digits
    try:
        require(osp.isfile(options.data), f"--data: there is no file {options.data}.")
        path = downloads.fetch(
            options.weights,
            ADDRESSES,
            SHA256,
            "the self-test cannot run.",
            "--weights",
        )
        network = Inception(path)
        images = functions.read_cifar10(options.data).train_images[:100]
        require(len(images) == 100, f"{options.data} has fewer than 100 training pictures.")
    except UserError as error:
        fail(str(error))
    score = score_hundred(network, images)
    verdict = (
        f"Inception Score of the first 100 training images: {score:.5f}, expected {EXPECTED:.5f}"
    )
    if abs(score - EXPECTED) > TOLERANCE:
        fail(f"{verdict}. Scores will not compare, unless {options.data} is not CIFAR-10.")
    print(f"{verdict}: passed")


if __name__ == "__main__":
    main()
