# SPDX-License-Identifier: Apache-2.0
"""The paper's networks, formulas and losses, the readers of its data, and the Inception Score.

Gulrajani et al., "Improved Training of Wasserstein GANs" (arXiv 1704.00028), and the code that
its authors published: file names such as `gan_toy.py` are those of that code.
"""

from __future__ import annotations

import dataclasses
from os import path as osp
from typing import Callable
from typing import Dict
from typing import List
from typing import Optional
from typing import Tuple

import numpy as np
import paddle
import paddle.nn.functional as F
import ppsci
from paddle import nn
from ppsci.utils import logger

from data import array_files
from data.image_set import NUM_CLASSES
from data.image_set import ImageSet
from data.image_set import as_labels
from data.image_set import as_rows
from data.image_set import check_images
from kernels import maps
from kernels.first_order import first_order_penalty
from kernels.first_order import length
from networks.base import Critic
from networks.base import Generator
from networks.layers import make_conv
from networks.layers import make_conv_transpose
from networks.layers import make_linear
from networks.layers import project
from networks.normalisation import BatchNorm
from networks.normalisation import make_critic_norm
from networks.spectral import normalise_weights
from networks.spectral import step_power_iterations
from support.errors import UserError
from support.errors import printable
from support.errors import require
from support.formats import describe
from support.formats import is_pickle
from support.members import read_members
from support.members import strip_compressed
from support.opcodes import MAX_STEPS
from support.opcodes import Budget
from support.unpickling import as_text
from support.unpickling import unpickle

IMAGE_SIZE = {"cifar10": (3, 32, 32), "mnist": (1, 28, 28)}
MNIST_COUNT, MNIST_USED = 60_000, 50_000  # MNIST's training digits, and those of mnist.pkl.gz
MNIST_ADDRESSES = (
    "https://www.iro.umontreal.ca/~lisa/deep/data/mnist/mnist.pkl.gz",
    "https://figshare.com/ndownloader/files/25635053",
)
MNIST_MD5 = "a02cd19f81d51c426d7ca14024243ce9"

Penalty = Callable[[paddle.Tensor], paddle.Tensor]  # gradient norms [N] to a term of the loss


class _Mlp(nn.Sequential):
    """Linear layers with ReLUs between them, [N, n_in] to [N, n_out]."""

    def __init__(self, n_in: int, dim: int, n_out: int, hidden: int = 3):
        layers: List[nn.Layer] = []
        for width_in in (n_in, *[dim] * (hidden - 1)):
            layers += [make_linear(width_in, dim, "he"), nn.ReLU()]
        super().__init__(*layers, make_linear(dim, n_out))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        for layer in self:
            x = maps.relu(x) if isinstance(layer, nn.ReLU) else maps.linear(x, layer)
        return x


class WganGpToyGenerator(Generator):
    """Linear layers with ReLUs between them, noise [N, 2] -> points [N, 2] (`gan_toy.py`).

    Args:
        dim: Width of the hidden layers.
        hidden: Number of hidden layers.
    """

    def __init__(self, dim: int = 512, hidden: int = 3):
        super().__init__(noise_dim=2)
        self.layers = _Mlp(2, dim, 2, hidden)

    def generate(self, noise, labels=None):
        return self.layers(noise)


class WganGpToyDiscriminator(Critic):
    """Linear layers with ReLUs between them, points [N, 2] -> values [N] (`gan_toy.py`).

    Args:
        dim: Width of the hidden layers.
        hidden: Number of hidden layers.
        norm: None or "spectral": normalisation of all weights.
    """

    piecewise_linear = True

    def __init__(self, dim: int = 512, hidden: int = 3, norm: Optional[str] = None):
        super().__init__()
        self.layers = _Mlp(2, dim, 1, hidden)
        normalise_weights(self, norm)

    def score(self, samples):
        return self.layers(samples).squeeze(1), None


# --8<-- [start:mnist_generator]
class WganGpMnistGenerator(Generator):
    """Noise [N, noise_dim] -> digits [N, 1, 28, 28] in [0, 1] (`gan_mnist.py`).

    Args:
        dim: Channels at 14x14; the layers before it have 4 and 2 times as many.
        noise_dim: Length of a noise vector.
    """

    low = 0.0

    def __init__(self, dim: int = 64, noise_dim: int = 128):
        super().__init__(noise_dim)
        self.dim = dim
        self.linear = make_linear(noise_dim, 4 * 4 * 4 * dim)
        self.deconv_1 = make_conv_transpose(4 * dim, 2 * dim, 5)
        self.deconv_2 = make_conv_transpose(2 * dim, dim, 5)
        self.deconv_3 = make_conv_transpose(dim, 1, 5)

    def generate(self, noise, labels=None):
        h = F.relu(maps.linear(noise, self.linear)).reshape([-1, 4 * self.dim, 4, 4])
        h = maps.relu(maps.conv_transpose(h, self.deconv_1, crop=1))
        h = maps.relu(maps.conv_transpose(h, self.deconv_2))
        return F.sigmoid(maps.leave(maps.conv_transpose(h, self.deconv_3)))


# --8<-- [end:mnist_generator]


class WganGpMnistDiscriminator(Critic):
    """Digits [N, 1, 28, 28] -> values [N] (`gan_mnist.py`).

    Args:
        dim: Channels of the first convolution; the next have 2 and 4 times as many.
        norm: None, "spectral" (of all weights), "layer" or "batch" (after the second and the third
            convolution).
    """

    def __init__(self, dim: int = 64, norm: Optional[str] = None):
        super().__init__()
        self.piecewise_linear = norm in (None, "spectral")
        self.conv_1 = make_conv(1, dim, 5, stride=2)
        self.conv_2 = make_conv(dim, 2 * dim, 5, stride=2)
        self.norm_2 = make_critic_norm(norm, 2 * dim)
        self.conv_3 = make_conv(2 * dim, 4 * dim, 5, stride=2)
        self.norm_3 = make_critic_norm(norm, 4 * dim)
        self.linear = make_linear(4 * 4 * 4 * dim, 1)
        normalise_weights(self, norm)

    def score(self, samples):
        h = maps.relu(maps.conv(samples, self.conv_1), 0.2)
        h = maps.relu(self.norm_2(maps.conv(h, self.conv_2)), 0.2)
        h = maps.relu(self.norm_3(maps.conv(h, self.conv_3)), 0.2)
        return maps.linear(maps.flatten(h), self.linear).squeeze(1), None


class ResidualBlock(nn.Layer):
    """Norm, ReLU, convolution, norm, ReLU, convolution, plus a shortcut (`gan_cifar_resnet.py`).

    Args:
        n_in: Input channels.
        n_out: Output channels.
        norm: Makes the normalisation of a number of channels.
        resample: None, "up" (nearest-neighbour upsampling BEFORE the first convolution) or "down"
            (2x2 mean pool AFTER the second one). The shortcut is resampled the same way.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        norm: Callable[[int], nn.Layer],
        resample: Optional[str] = None,
    ):
        super().__init__()
        # The first convolution changes the number of channels, unless the block pools.
        n_mid = n_in if resample == "down" else n_out
        self.norm_1 = norm(n_in)
        self.conv_1 = make_conv(n_in, n_mid, 3)
        self.norm_2 = norm(n_mid)
        self.conv_2 = make_conv(n_mid, n_out, 3)
        self.conv_shortcut = None
        if resample is not None or n_in != n_out:
            self.conv_shortcut = make_conv(n_in, n_out, 1, gain="glorot")

        self.resample = resample
        # Resampling and convolution in one; `kernels.maps` gives the plain formulas.
        self.apply_conv_1 = maps.upsample_conv if resample == "up" else maps.conv
        self.apply_conv_2 = maps.conv_mean_pool if resample == "down" else maps.conv
        self.apply_shortcut = self.apply_conv_1 if resample == "up" else self.apply_conv_2

    def forward(
        self, x: maps.AnyPictures, labels: Optional[paddle.Tensor] = None
    ) -> maps.AnyPictures:
        x = maps.enter(x)
        h = self.apply_conv_1(maps.relu(self.norm_1(x, labels)), self.conv_1)
        h = self.apply_conv_2(maps.relu(self.norm_2(h, labels)), self.conv_2)
        if self.conv_shortcut is None:
            return h + x
        return h + self.apply_shortcut(x, self.conv_shortcut)


class FirstCriticBlock(nn.Layer):
    """The critic's first block: no activation or norm before its first convolution.

    Args:
        n_out: Output channels; the input is a picture [N, 3, H, W].
    """

    def __init__(self, n_out: int):
        super().__init__()
        self.conv_1 = make_conv(3, n_out, 3)
        self.conv_2 = make_conv(n_out, n_out, 3)
        self.conv_shortcut = make_conv(3, n_out, 1, gain="glorot")

    def forward(self, x: maps.AnyPictures) -> maps.AnyPictures:
        x = maps.enter(x)
        h = maps.conv_mean_pool(maps.relu(maps.conv(x, self.conv_1)), self.conv_2)
        return maps.conv(maps.mean_pool(x), self.conv_shortcut) + h


class WganGpCifar10Generator(Generator):
    """Noise [N, noise_dim], labels [N] -> pictures [N, 3, 32, 32] in [-1, 1].

    It is the generator of `gan_cifar_resnet.py`.

    Args:
        dim: Channels of every layer.
        noise_dim: Length of a noise vector.
        use_label: Whether batch normalisation in the blocks is conditional; the last one never
            is.
    """

    # --8<-- [start:cifar10_generator]
    def __init__(self, dim: int = 128, noise_dim: int = 128, use_label: bool = True):
        super().__init__(noise_dim, NUM_CLASSES if use_label else 0)
        self.dim = dim

        def make_norm(channels: int) -> BatchNorm:
            return BatchNorm(channels, self.num_classes)

        self.linear = make_linear(noise_dim, 4 * 4 * dim)
        self.blocks = nn.LayerList([ResidualBlock(dim, dim, make_norm, "up") for _ in range(3)])
        self.norm = BatchNorm(dim)
        self.conv = make_conv(dim, 3, 3, gain="glorot")

    def generate(self, noise, labels=None):
        h = maps.enter(maps.linear(noise, self.linear).reshape([-1, self.dim, 4, 4]))
        for block in self.blocks:
            h = block(h, labels)
        return F.tanh(maps.leave(maps.conv(maps.relu(self.norm(h)), self.conv)))

    # --8<-- [end:cifar10_generator]


class WganGpCifar10Discriminator(Critic):
    """Pictures [N, 3, 32, 32] -> values [N], logits [N, 10] (`gan_cifar_resnet.py`).

    With a projection, the values are those of pairs, `D(x, y) = D(x) + <e_y, h(x)>`, with h(x) the
    features of the last layer (Miyato and Koyama, arXiv 1802.05637). For each label that is a
    critic of its own, linear in h(x), so the critic stays piecewise linear in x.

    Args:
        dim: Channels of every layer.
        use_label: Whether the critic has an AC-GAN head, which gives the logits.
        norm: None, "spectral" (of all weights), "layer" or "batch" (in the blocks after the first).
        projection: Whether values depend on labels; only with use_label.
    """

    def __init__(
        self,
        dim: int = 128,
        use_label: bool = True,
        norm: Optional[str] = None,
        projection: bool = False,
    ):
        super().__init__()
        self.piecewise_linear = norm in (None, "spectral")
        self.takes_labels = use_label and projection

        def make_norm(channels: int) -> nn.Layer:
            return make_critic_norm(norm, channels)

        self.first = FirstCriticBlock(dim)
        self.blocks = nn.LayerList(
            [ResidualBlock(dim, dim, make_norm, resample) for resample in ("down", None, None)]
        )
        self.linear = make_linear(dim, 1)
        self.linear_class = make_linear(dim, NUM_CLASSES) if use_label else None
        self.linear_projection = make_linear(dim, NUM_CLASSES) if self.takes_labels else None
        normalise_weights(self, norm)

    # --8<-- [start:cifar10_score]
    def score(self, samples, labels=None):
        h = self.first(samples)
        for block in self.blocks:
            h = block(h)
        h = maps.mean(maps.relu(h))
        logits = None if self.linear_class is None else maps.linear(h, self.linear_class)
        value = maps.linear(h, self.linear).squeeze(1)
        if self.takes_labels:
            value = value + project(h, labels, self.linear_projection)
        return value, logits

    # --8<-- [end:cifar10_score]


def wasserstein_estimate(value_real: paddle.Tensor, value_fake: paddle.Tensor) -> paddle.Tensor:
    """E[D(real)] - E[D(fake)], the estimate that the critic maximises.

    It is the Wasserstein distance if the critic's slope is at most 1, and scales with the slope.

    Args:
        value_real: Critic's values of real samples, [N].
        value_fake: Critic's values of generated samples, [M].
    """
    return value_real.mean() - value_fake.mean()


# --8<-- [start:interpolate]
def interpolate(real: paddle.Tensor, fake: paddle.Tensor, alpha: paddle.Tensor) -> paddle.Tensor:
    """A point on the line between each real sample and its fake one (algorithm 1 of the paper).

    Args:
        real: Real samples, [N, ...].
        fake: Generated samples, of the same shape.
        alpha: ONE number in [0, 1] per sample, [N]. With one per pixel the points would leave
            the lines.

    Raises:
        ValueError: For another number of alphas.
    """
    alpha = alpha.reshape([len(real)] + [1] * (real.ndim - 1))
    return paddle.lerp(real, fake, alpha)  # real + alpha * (fake - real)


# --8<-- [end:interpolate]


# --8<-- [start:gradient_norm]
def gradient_norm(
    critic: Critic, samples: paddle.Tensor, labels: Optional[paddle.Tensor] = None
) -> paddle.Tensor:
    """Length of the critic's gradient at each sample, over ALL of its dimensions.

    It is differentiable in the critic's weights, by second derivatives ("double backward").

    Args:
        critic: The critic D.
        samples: Points x, [N, ...].
        labels: Labels [N] for a critic that takes them.

    Returns:
        ||grad_x D(x)||_2, [N].
    """
    samples = samples.detach()
    samples.stop_gradient = False
    with maps.twice_differentiable():
        value, _ = critic.judge(samples, labels)
        (gradient,) = paddle.grad(value.sum(), samples, create_graph=True)
    return length(gradient)


# --8<-- [end:gradient_norm]


# --8<-- [start:gradient_penalty]
def gradient_penalty(norm: paddle.Tensor) -> paddle.Tensor:
    """E[(||grad D|| - 1)^2], equation 3 of the paper, without its factor lambda.

    Args:
        norm: Gradient norms, [N].
    """
    return (norm - 1.0).square().mean()


# --8<-- [end:gradient_penalty]


def optimal_estimate(penalty: float, norm: float, weight: float) -> float:
    """The Wasserstein estimate w that a WGAN-GP critic of these slopes has at its optimum.

    Let the critic's output layer be scaled by s. With the slopes g = ||grad D||, the loss is
    `-s w + weight * E[(s g - 1)^2]`. At an optimum its derivative is 0 at s = 1. It follows that
    `w = 2 weight * E[g (g - 1)] = 2 weight * (E[(g - 1)^2] + E[g] - 1)`. The identity is
    necessary, not sufficient: it says nothing about the critic's other weights.

    Args:
        penalty: E[(g - 1)^2], the mean penalty.
        norm: E[g], the mean gradient norm.
        weight: The penalty's factor lambda.
    """
    return 2 * weight * (penalty + norm - 1)


def penalised_norm(
    critic: Critic,
    samples: paddle.Tensor,
    penalty: Penalty,
    labels: Optional[paddle.Tensor] = None,
) -> Tuple[paddle.Tensor, paddle.Tensor]:
    """The gradient's norm at each sample, [N], and a penalty of these norms.

    The penalty's gradient takes second derivatives. `kernels.first_order.first_order_penalty`
    computes the same without them, for piecewise linear critics.

    Args:
        critic: The critic D.
        samples: Points x, [N, ...].
        penalty: Maps gradient norms [N] to a term of the loss.
        labels: Labels [N] for a critic that takes them.
    """
    norm = gradient_norm(critic, samples, labels)
    return norm, penalty(norm)


@dataclasses.dataclass(frozen=True)
class Objective:
    """The parts of an objective; neither the losses nor the loop know which one they run.

    Args:
        critic_term: Maps the critic's values of real and of fake samples, [N] and [M], to the
            term that the critic minimises.
        generator_term: Maps the critic's values of fake samples, [N], to the term that the
            generator minimises.
        penalty: Maps gradient norms, [N], to a further term of the critic; None for none.
        penalty_weight: The factor of that term.
        clip: The bound to which the critic's weights are cut after each step; None for none.
        optimal_estimate: Maps mean penalty, mean gradient norm and penalty_weight to the
            Wasserstein estimate of a critic at its optimum; None where no formula is known.
    """

    critic_term: Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]
    generator_term: Callable[[paddle.Tensor], paddle.Tensor]
    penalty: Optional[Penalty] = None
    penalty_weight: float = 0.0
    clip: Optional[float] = None
    optimal_estimate: Optional[Callable[[float, float, float], float]] = None


class AdversarialLoss(ppsci.loss.FunctionalLoss):
    """A loss on ppsci's FunctionalLoss that also keeps figures for the log.

    Args:
        critic: The critic D.

    Attributes:
        figures: The values of each figure since the dictionary was cleared.
    """

    def __init__(self, critic: Critic):
        super().__init__(self.terms)
        self.critic = critic
        self.figures: Dict[str, List[paddle.Tensor]] = {}

    def terms(
        self,
        output_dict: Dict[str, paddle.Tensor],
        label_dict: Optional[Dict[str, paddle.Tensor]] = None,
        weight_dict: Optional[Dict[str, paddle.Tensor]] = None,
    ) -> Dict[str, paddle.Tensor]:
        """The terms, by name, whose sum is minimised; ppsci passes these three arguments."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Changes weights after a step of the Solver; does nothing by default."""

    def keep(self, **figures: paddle.Tensor) -> None:
        for name, figure in figures.items():
            self.figures.setdefault(name, []).append(figure.detach())

    def mean_figures(self) -> Dict[str, float]:
        """The mean of each figure since `figures` was cleared."""
        return {
            name: float(paddle.stack(kept).astype("float64").mean())
            for name, kept in self.figures.items()
        }


class CriticLoss(AdversarialLoss):
    """An objective's loss of the critic, and AC-GAN's cross entropy on real samples.

    The cross entropy is a term only if the critic gives logits.

    Args:
        critic: The critic D.
        objective: The objective.
        class_weight: Factor of the cross entropy.
        penalty_gradient: How the gradient of the penalty is computed: "double_backward",
            "first_order" (the same gradient, faster, for piecewise linear critics only), or
            "auto" ("first_order" for piecewise linear critics).

    Attributes:
        is_first_order: Whether the penalty takes no second derivatives. If so, its first
            computation checks that it holds for the critic.

    Raises:
        UserError: For "first_order" and a critic that is not piecewise linear.
    """

    def __init__(
        self,
        critic: Critic,
        objective: Objective,
        class_weight: float = 1.0,
        penalty_gradient: str = "auto",
    ):
        super().__init__(critic)
        self.objective = objective
        self.class_weight = class_weight
        if penalty_gradient == "first_order" and not critic.piecewise_linear:
            raise UserError(
                "LOSS.penalty_gradient=first_order needs a critic of linear maps and ReLUs only, "
                f"and this {type(critic).__name__} is not: it normalises, or does not set "
                "piecewise_linear. Choose double_backward or auto."
            )
        self.is_first_order = critic.piecewise_linear and penalty_gradient != "double_backward"
        self.is_checked = False

    def _penalise(
        self, samples: paddle.Tensor, labels: Optional[paddle.Tensor]
    ) -> Tuple[paddle.Tensor, paddle.Tensor]:
        """Gradient norms at samples [N, ...], [N], and the weighted penalty of them."""

        def penalty(norm: paddle.Tensor) -> paddle.Tensor:
            return self.objective.penalty_weight * self.objective.penalty(norm)

        if not self.is_first_order:
            return penalised_norm(self.critic, samples, penalty, labels)
        check, self.is_checked = not self.is_checked, True
        return first_order_penalty(self.critic, samples, penalty, check, labels)

    def terms(self, output_dict, label_dict=None, weight_dict=None):
        # --8<-- [start:critic_terms]
        real, fake = output_dict["real"], output_dict["fake"]
        value_real = output_dict["value_real"]
        # A pair of a real and a fake sample has one label, which holds between them, too.
        labels = output_dict["labels"] if self.critic.takes_labels else None
        value_fake, logits_fake = self.critic.judge(fake, labels)
        terms = {"critic_term": self.objective.critic_term(value_real, value_fake)}
        if self.objective.penalty is not None:
            # Mixed precision is too coarse for the gradient of a gradient: float32 always.
            with paddle.amp.auto_cast(enable=False):
                with paddle.no_grad():  # The penalty's graph begins at these points.
                    mixed = interpolate(real, fake, output_dict["alpha"]).astype("float32")
                norm, terms["weighted_penalty"] = self._penalise(mixed, labels)
            penalty = self.objective.penalty(norm.detach())
            self.keep(gradient_penalty=penalty, gradient_norm=norm.mean())
        # --8<-- [end:critic_terms]
        # --8<-- [start:critic_class_terms]
        if logits_fake is not None:
            labels, logits = output_dict["labels"], output_dict["logits_real"]
            # Real samples only: the critic does not learn to classify the generator's errors.
            class_loss = F.cross_entropy(logits, labels)
            terms["weighted_class"] = self.class_weight * class_loss
            self.keep(
                critic_class_loss=class_loss,
                accuracy_real=correct(logits, labels).mean(),
                accuracy_fake=correct(logits_fake, labels).mean(),
            )
        self.keep(
            critic_loss=sum(terms.values()),
            wasserstein=wasserstein_estimate(value_real, value_fake),
        )
        return terms
        # --8<-- [end:critic_class_terms]

    def mean_figures(self):
        """The mean figures, and `critic_balance`: the estimate as a share of the optimal one.

        It is 1 at the critic's optimum. It is left out where slopes are mostly below 1: an
        optimal critic has no such slopes.
        """
        figures, objective = super().mean_figures(), self.objective
        if objective.optimal_estimate is not None and figures:
            slopes = figures["gradient_penalty"], figures["gradient_norm"]
            optimal = objective.optimal_estimate(*slopes, objective.penalty_weight)
            if optimal > 0:
                figures["critic_balance"] = figures["wasserstein"] / optimal
        return figures

    @paddle.no_grad()
    def after_step(self) -> None:
        """Clips the critic's weights if the objective says so, and moves its spectral norms on."""
        clip = self.objective.clip
        for weight in self.critic.parameters() if clip is not None else ():
            # 0 * weight is NaN for a weight that is not finite: clipping must not hide that.
            paddle.assign(weight.clip(-clip, clip) + 0 * weight, weight)
        step_power_iterations(self.critic)


class GeneratorLoss(AdversarialLoss):
    """An objective's loss of the generator, and AC-GAN's cross entropy if there are logits.

    Args:
        critic: The critic D.
        objective: The objective.
        class_weight: Factor of the cross entropy.
    """

    def __init__(self, critic: Critic, objective: Objective, class_weight: float = 0.1):
        super().__init__(critic)
        self.objective = objective
        self.class_weight = class_weight

    def terms(self, output_dict, label_dict=None, weight_dict=None):
        # --8<-- [start:generator_terms]
        value, logits = self.critic.judge(output_dict["fake"], output_dict.get("labels"))
        terms = {"generator_term": self.objective.generator_term(value)}
        if logits is not None:
            class_loss = F.cross_entropy(logits, output_dict["labels"])
            terms["weighted_class"] = self.class_weight * class_loss
            self.keep(generator_class_loss=class_loss)
        self.keep(generator_loss=sum(terms.values()))
        return terms
        # --8<-- [end:generator_terms]


def correct(logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    """1 where a sample's largest logit is that of its label, else 0.

    Args:
        logits: Class logits, [N, K].
        labels: Labels, int64 [N].

    Returns:
        float32 [N].
    """
    return (logits.argmax(1) == labels).astype("float32")


# --8<-- [start:prepare_cifar10]
def prepare_cifar10(images: np.ndarray, rng: Optional[np.random.Generator] = None) -> np.ndarray:
    """Scales uint8 pictures to `2 (x / 256 - 1/2)`, in [-1, 1), and dequantises them.

    Noise from U[0, 1/128) makes the 256 levels a continuous density. `gan_cifar_resnet.py`
    draws it again each time a picture is read.

    Args:
        images: Pictures, [N, 3, 32, 32].
        rng: Where the noise comes from; None for no noise.
    """
    scaled = images.astype("float32") * (1 / 128) - 1
    if rng is not None:
        scaled += rng.random(images.shape, "float32") * (1 / 128)
    return scaled


# --8<-- [end:prepare_cifar10]


def prepare_mnist(
    images: np.ndarray, rng: Optional[np.random.Generator] = None, low: float = 0.0
) -> np.ndarray:
    """Scales uint8 digits to [low, 1).

    With low = 0 this gives `x / 256`, the values of mnist.pkl.gz.

    Args:
        images: Digits, [N, 1, 28, 28].
        rng: Unused; `prepare_cifar10` has it.
        low: The value of black, as in `Generator.low`.
    """
    return images.astype("float32") * ((1 - low) / 256) + low


def read_cifar10(path: str, max_bytes: Optional[int] = None) -> ImageSet:
    """Reads CIFAR-10: the Python or the binary version, or an npz.

    A folder or an archive has any number of files `data_batch_N`, of any number of pictures each,
    and `test_batch`. An npz has `x_train`, `y_train`, `x_test` and `y_test`.

    Args:
        path: A folder, a zip, a tar (compressed with gzip, bzip2 or xz, or not), or an npz.
        max_bytes: Largest size of what is unpacked; None for `archives.MAX_BYTES`.

    Raises:
        UserError: If it is damaged, too large, or something else; the message names the format.
    """
    where, prefixes = printable(path), ("data_batch_", "test_batch", *array_files.PREFIXES)
    members = read_members(path, prefixes, max_bytes)
    data = array_files.read_arrays(members, IMAGE_SIZE["cifar10"], where)
    if data is not None:
        return data
    members = [(name, content) for name, content in members if "_batch" in osp.basename(name)]
    if not members:
        raise UserError(
            f"{where} is not CIFAR-10 in a form that is read (a folder, zip or tar with the files "
            "data_batch_1 to 5 and test_batch of the Python or the binary version; an npz with "
            f"x_train, y_train, x_test and y_test): it is {describe(path)}."
        )
    binary = {strip_compressed(name).endswith(".bin") for name, _ in members}
    require(
        len(binary) == 1,
        f"{where} holds both the Python and the binary version of CIFAR-10: name one of them.",
    )
    budget = Budget(2 * MAX_STEPS)  # a picture takes up to five: its label and its file's name
    parts: Dict[str, List[Tuple[np.ndarray, np.ndarray]]] = {"train": [], "test": []}
    while members:
        name, content = members.pop(0)  # The content leaves memory as soon as it is read.
        place = f"{where}, member {printable(name)}"
        images, labels = _read_batch(name, content, place, budget)
        check_images(images, labels, NUM_CLASSES, place)
        parts["train" if "data_batch_" in name else "test"].append((images, labels))
    for split, member in (("train", "data_batch_1"), ("test", "test_batch")):
        require(
            bool(parts[split]),
            f"{where}: there are no pictures of a {member} inside. Is it CIFAR-10?",
        )
    return ImageSet(
        *(np.concatenate(column) for column in zip(*parts["train"])),
        *(np.concatenate(column) for column in zip(*parts["test"])),
    )


def _read_batch(
    name: str, content: bytes, place: str, budget: Budget
) -> Tuple[np.ndarray, np.ndarray]:
    """Reads a batch of CIFAR-10: pictures [N, 3, 32, 32] and labels [N]."""
    layout = (
        "expected a dictionary with `data`, uint8 rows of 3,072 numbers, and `labels`, as in "
        "cifar-10-python.tar.gz"
    )
    try:
        if strip_compressed(name).endswith(".bin"):
            layout = "expected a label and 3,072 bytes for each picture"
            rows, labels = array_files.parse_batch(content)
        else:
            batch = unpickle(content, place, budget=budget)
            # Python 2 wrote the original, so its keys are bytes.
            batch = {as_text(key): value for key, value in batch.items()}
            rows, labels = as_rows(batch["data"], 3072), as_labels(batch["labels"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise UserError(f"{place}: {layout}.") from None
    return rows.reshape(-1, *IMAGE_SIZE["cifar10"]), labels


def read_mnist(path: str, max_bytes: Optional[int] = None) -> ImageSet:
    """Reads MNIST: mnist.pkl.gz, the four idx files, or an npz.

    The pickle is a training, a validation and a test set of `x / 256` rows. Its training set is
    the first 50,000 of MNIST's 60,000 training digits, and its validation set, which is not used,
    are the others. Of 60,000 training digits in another form, the same 50,000 are used.

    Args:
        path: A pickle, or a folder, zip or tar with one, compressed with gzip, bzip2 or xz, or not;
            a folder, zip or tar with the four idx files, compressed or not; or an npz with
            `x_train`, `y_train`, `x_test` and `y_test`.
        max_bytes: Largest size of what is unpacked; None for `archives.MAX_BYTES`.

    Raises:
        UserError: If it is damaged, too large, or something else; the message names the format.
    """
    where = printable(path)
    members = read_members(path, ("mnist.pkl", *array_files.PREFIXES), max_bytes)
    data = array_files.read_arrays(members, IMAGE_SIZE["mnist"], where)
    if data is None:
        members = [member for member in members if is_pickle(member[1])]
        if len(members) != 1:
            raise UserError(
                f"{where} is not MNIST in a form that is read (mnist.pkl.gz; the four idx files in "
                "a folder, zip or tar; an npz with x_train, y_train, x_test and y_test): it is "
                f"{describe(path)}."
            )
        return _read_pickled_digits(members[0][1], where)
    if len(data.train_images) == MNIST_COUNT:
        logger.info(f"{where}: the first 50,000 training digits are used, as in mnist.pkl.gz.")
        data.train_images = data.train_images[:MNIST_USED]
        data.train_labels = data.train_labels[:MNIST_USED]
    return data


def _read_pickled_digits(content: bytes, where: str) -> ImageSet:
    """Reads a pickle of three pairs (images, labels)."""
    sets, columns = unpickle(content, where), []
    try:
        for split in (0, 2):
            rows, labels = sets[split]
            images = _as_pixels(as_rows(rows, 784)).reshape(-1, *IMAGE_SIZE["mnist"])
            columns += [images, as_labels(labels)]
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        raise UserError(
            f"{where}: expected three pairs (images, labels), images being rows of 784 "
            "numbers in [0, 1), as in mnist.pkl.gz."
        ) from None
    check_images(columns[0], columns[1], NUM_CLASSES, where)
    check_images(columns[2], columns[3], NUM_CLASSES, where)
    return ImageSet(*columns)


def _as_pixels(rows: np.ndarray, step: int = 4096) -> np.ndarray:
    """Converts numbers `x / 256` to uint8, some rows at a time, so that little memory is needed.

    Raises:
        ValueError: If a number is not in [0, 1).
    """
    result = np.empty(rows.shape, "uint8")
    for start in range(0, len(rows), step):
        with np.errstate(all="ignore"):  # A number that is too large is refused below.
            pixels = np.rint(rows[start : start + step].astype("float32") * 256)
        if not ((pixels >= 0) & (pixels <= 255)).all():
            raise ValueError("a number is not in [0, 1)")
        result[start : start + step] = pixels
    return result


def inception_score(probabilities: np.ndarray, splits: int = 10) -> Tuple[float, float]:
    """Inception Score of class probabilities, in float64 (Salimans et al., arXiv 1606.03498).

    Each split of consecutive rows has the score `exp(mean KL(p(y|x) || p(y)))`. The order of
    rows matters: samples that were drawn class by class must be shuffled first.

    Args:
        probabilities: p(y|x) of each sample, [N, K], rows summing to 1.
        splits: Number of contiguous splits.

    Returns:
        Mean and standard deviation (ddof 0) over the splits.

    Raises:
        ValueError: If rows are not probabilities, or fewer than the splits.
    """
    p = np.asarray(probabilities, "float64")
    if p.ndim != 2 or len(p) < splits or splits < 1:
        raise ValueError(f"expected [N, K] with N >= {splits} splits, got {p.shape}")
    if not ((p >= 0).all() and np.allclose(p.sum(1), 1, atol=1e-4)):
        raise ValueError("rows must be probabilities: not negative, and summing to 1")
    # --8<-- [start:score_of_splits]
    scores = []
    ends = [number * len(p) // splits for number in range(splits + 1)]
    for part in (p[start:end] for start, end in zip(ends, ends[1:])):
        marginal = part.mean(0, keepdims=True)
        # 0 log 0 is 0.
        ratio = np.log(np.where(part > 0, part, 1) / np.where(part > 0, marginal, 1))
        scores.append(np.exp((part * ratio).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))
    # --8<-- [end:score_of_splits]
