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

"""What the WGAN-GP experiments share: networks, losses, readers, Inception Score.

"The paper" is Gulrajani et al., "Improved Training of Wasserstein GANs"
(arXiv 1704.00028); "the authors' code" is igul222/improved_wgan_training.
"""

from __future__ import annotations

import hashlib
import math
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

import files
import linear_maps as maps
from runtime import UserError

NUM_CLASSES = 10
IMAGE_SIZE = {"cifar10": (3, 32, 32), "mnist": (1, 28, 28)}


# --8<-- [start:initialisation]
def _uniform(std: float) -> paddle.ParamAttr:
    """Uniform initialisation of standard deviation `std` (the authors draw no normals)."""
    bound = std * math.sqrt(3.0)
    return paddle.ParamAttr(initializer=nn.initializer.Uniform(-bound, bound))


def linear(n_in: int, n_out: int, gain: str = "glorot") -> nn.Linear:
    """A linear layer, initialised as in the authors' `tflib/ops/linear.py`; biases are 0.

    Args:
        n_in: Input features.
        n_out: Output features.
        gain: "glorot" (`std = sqrt(2 / (n_in + n_out))`) or "he" (`std = sqrt(2 / n_in)`).
    """
    std = math.sqrt(2.0 / n_in) if gain == "he" else math.sqrt(2.0 / (n_in + n_out))
    return nn.Linear(n_in, n_out, _uniform(std), nn.initializer.Constant(0.0))


def conv(n_in: int, n_out: int, size: int, stride: int = 1, he: bool = True) -> nn.Conv2D:
    """A 'same' convolution, initialised as in the authors' `tflib/ops/conv2d.py`; biases are 0.

    Args:
        n_in: Input channels.
        n_out: Output channels.
        size: Height and width of the kernel.
        stride: Stride of the convolution.
        he: He-like `std = sqrt(4 / (fan_in + fan_out))`, else Glorot's `sqrt(2 / ...)`.
    """
    fan_in, fan_out = n_in * size**2, n_out * size**2 / stride**2
    std = math.sqrt((4.0 if he else 2.0) / (fan_in + fan_out))
    zero = nn.initializer.Constant(0.0)
    # "SAME" pads an even input (1, 2) for a 5x5 kernel of stride 2, as TensorFlow does
    return nn.Conv2D(
        n_in,
        n_out,
        size,
        stride,
        padding="SAME" if stride > 1 else size // 2,
        weight_attr=_uniform(std),
        bias_attr=zero,
    )


def conv_transpose(n_in: int, n_out: int, size: int) -> nn.Conv2DTranspose:
    """A transposed convolution that doubles height and width (`tflib/ops/deconv2d.py`)."""
    fan_in, fan_out = n_in * size**2 / 4, n_out * size**2
    std = math.sqrt(4.0 / (fan_in + fan_out))
    before, after = (size - 2) // 2, (size - 1) // 2
    return nn.Conv2DTranspose(
        n_in,
        n_out,
        size,
        stride=2,
        # crops as the adjoint of TensorFlow's 'same' convolution does: one pixel less at the top
        padding=[before, after, before, after],
        weight_attr=_uniform(std),
        bias_attr=nn.initializer.Constant(0.0),
    )


# --8<-- [end:initialisation]


# --8<-- [start:base]
class Generator(ppsci.arch.Arch):
    """A function of (noise, labels), in the form that ppsci's Solver calls.

    A subclass defines `generate(noise, labels)`; everything that samples uses that. What is
    black in its pictures is `low`; white is 1.

    Args:
        noise_dim: Length of a noise vector.
        num_classes: Labels to tell apart; 0 if `labels` is no input.
    """

    low = -1.0

    def __init__(self, noise_dim: int, num_classes: int = 0):
        super().__init__()
        self.noise_dim, self.num_classes = noise_dim, num_classes
        self.input_keys = ("noise", "labels") if num_classes else ("noise",)
        self.output_keys = ("fake",)

    def generate(
        self, noise: paddle.Tensor, labels: Optional[paddle.Tensor] = None
    ) -> paddle.Tensor:
        raise NotImplementedError

    def forward(self, inputs: Dict[str, paddle.Tensor]) -> Dict[str, paddle.Tensor]:
        return {"fake": self.generate(*(inputs[key] for key in self.input_keys))}


class Critic(ppsci.arch.Arch):
    """A critic: one unbounded value a sample, and class logits where it has an AC-GAN head.

    A subclass defines `score(samples)`, which returns (values [N], logits [N, K] or None).
    It is piecewise linear if it is made of linear maps and (leaky) ReLUs only, by way of
    linear_maps.py; then the penalty needs no second derivatives.
    """

    piecewise_linear = False

    input_keys = ("real",)
    output_keys = ("value_real",)

    def score(self, samples: paddle.Tensor) -> Tuple[paddle.Tensor, Optional[paddle.Tensor]]:
        raise NotImplementedError

    def forward(self, inputs: Dict[str, paddle.Tensor]) -> Dict[str, paddle.Tensor]:
        # The Solver asks for the gradient of every input; nobody needs that of real samples.
        value, logits = self.score(inputs["real"].detach())
        outputs = {"value_real": value}
        if logits is not None:
            outputs["logits_real"] = logits
        return outputs


# --8<-- [end:base]


# --8<-- [start:toy_networks]
class _Mlp(nn.Sequential):
    def __init__(self, n_in: int, dim: int, n_out: int, hidden: int = 3):
        layers: List[nn.Layer] = []
        for width_in in (n_in, *[dim] * (hidden - 1)):
            layers += [linear(width_in, dim, "he"), nn.ReLU()]
        super().__init__(*layers, linear(dim, n_out))

    def forward(self, x):
        for layer in self:
            x = maps.relu(x) if isinstance(layer, nn.ReLU) else maps.linear(x, layer)
        return x


class WganGpToyGenerator(Generator):
    """Four linear layers with ReLU between, noise [N, 2] -> points [N, 2] (`gan_toy.py`).

    Args:
        dim: Width of the hidden layers.
    """

    def __init__(self, dim: int = 512):
        super().__init__(noise_dim=2)
        self.layers = _Mlp(2, dim, 2)

    def generate(self, noise, labels=None):
        return self.layers(noise)


class WganGpToyDiscriminator(Critic):
    """Four linear layers with ReLU between, points [N, 2] -> values [N] (`gan_toy.py`).

    Args:
        dim: Width of the hidden layers.
        hidden: Number of the hidden layers.
    """

    piecewise_linear = True

    def __init__(self, dim: int = 512, hidden: int = 3):
        super().__init__()
        self.layers = _Mlp(2, dim, 1, hidden)

    def score(self, samples):
        return self.layers(samples).squeeze(1), None


# --8<-- [end:toy_networks]


# --8<-- [start:mnist_networks]
class WganGpMnistGenerator(Generator):
    """Noise [N, 128] -> digits [N, 1, 28, 28] in [0, 1] (`gan_mnist.py`).

    Args:
        dim: Channels of the widest picture; the first layers have 4 and 2 times as many.
        noise_dim: Length of a noise vector.
    """

    low = 0.0

    def __init__(self, dim: int = 64, noise_dim: int = 128):
        super().__init__(noise_dim)
        self.dim = dim
        self.linear = linear(noise_dim, 4 * 4 * 4 * dim)
        self.deconv_1 = conv_transpose(4 * dim, 2 * dim, 5)
        self.deconv_2 = conv_transpose(2 * dim, dim, 5)
        self.deconv_3 = conv_transpose(dim, 1, 5)

    def generate(self, noise, labels=None):
        h = F.relu(self.linear(noise)).reshape([-1, 4 * self.dim, 4, 4])
        h = F.relu(maps.conv_transpose(h, self.deconv_1))[:, :, :7, :7]
        h = F.relu(maps.conv_transpose(h, self.deconv_2))
        return F.sigmoid(maps.conv_transpose(h, self.deconv_3))


class WganGpMnistDiscriminator(Critic):
    """Digits [N, 1, 28, 28] -> values [N] (`gan_mnist.py`).

    Args:
        dim: Channels of the first convolution; the next have 2 and 4 times as many.
        norm: None, "layer" or "batch": normalisation after the second and third convolution.
    """

    def __init__(self, dim: int = 64, norm: Optional[str] = None):
        super().__init__()
        self.piecewise_linear = norm is None
        self.conv_1 = conv(1, dim, 5, stride=2)
        self.conv_2 = conv(dim, 2 * dim, 5, stride=2)
        self.norm_2 = critic_norm(norm, 2 * dim)
        self.conv_3 = conv(2 * dim, 4 * dim, 5, stride=2)
        self.norm_3 = critic_norm(norm, 4 * dim)
        self.linear = linear(4 * 4 * 4 * dim, 1)

    def score(self, samples):
        h = maps.relu(maps.conv(samples, self.conv_1), 0.2)
        h = maps.relu(self.norm_2(maps.conv(h, self.conv_2)), 0.2)
        h = maps.relu(self.norm_3(maps.conv(h, self.conv_3)), 0.2)
        # reshape, since flatten has no second derivative in Paddle
        return maps.linear(h.reshape([len(h), -1]), self.linear).squeeze(1), None


# --8<-- [end:mnist_networks]


# --8<-- [start:normalisation]
class BatchNorm(nn.Layer):
    """Batch normalisation by the batch's OWN statistics, when sampling too.

    With classes, scale and offset are looked up per label (conditional batch normalisation).
    The authors keep no running averages: draw samples in batches of about a hundred, as
    they do, since a sample depends a little on its neighbours. Epsilon is 1e-5.

    Running averages of the statistics (a tenth of each training batch's) are kept beside, for
    whoever wants samples that do not depend on each other.

    Args:
        channels: Channels of the input [N, channels, H, W].
        num_classes: Labels to tell apart; 0 for one scale and offset for all.

    Attributes:
        sample_by_running: Whether running averages take the batch's place in evaluation.
    """

    def __init__(self, channels: int, num_classes: int = 0):
        super().__init__()
        rows = max(num_classes, 1)
        self.scale = self.create_parameter(
            [rows, channels], default_initializer=nn.initializer.Constant(1.0)
        )
        self.offset = self.create_parameter([rows, channels], is_bias=True)
        self.conditional = num_classes > 0
        self.sample_by_running = False
        self.register_buffer("running_mean", paddle.zeros([channels]))
        self.register_buffer("running_variance", paddle.ones([channels]))
        # Paddle's operator wants an affine map; the conditional one comes behind it
        self.plain = paddle.ones([channels]), paddle.zeros([channels])

    def forward(self, x, labels=None):
        by_running = self.sample_by_running and not self.training
        if not paddle.in_dynamic_mode():
            return self._exported(x, labels, by_running)
        running = self.running_mean, self.running_variance
        if not (self.training or by_running):
            running = tuple(part.clone() for part in running)  # which the operator would update
        affine = self.plain if self.conditional else (self.scale[0], self.offset[0])
        h = F.batch_norm(x, *running, *affine, training=not by_running, momentum=0.9, epsilon=1e-5)
        return self._by_label(h, labels) if self.conditional else h

    def _by_label(self, h, labels):
        scale, offset = (F.embedding(labels, rows) for rows in (self.scale, self.offset))
        return h * maps.spread(scale, h) + maps.spread(offset, h)

    def _exported(self, x, labels, by_running):
        # Written out, since ONNX has no form for an operator that takes the batch's statistics.
        axes, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
        mean, variance = self.running_mean.reshape(shape), self.running_variance.reshape(shape)
        if not by_running:
            mean = x.mean(axes, keepdim=True)
            variance = (x - mean).square().mean(axes, keepdim=True)
        h = (x - mean) / paddle.sqrt(variance + 1e-5)
        if self.conditional:
            return self._by_label(h, labels)
        return h * self.scale.reshape(shape) + self.offset.reshape(shape)


class LayerNorm(nn.Layer):
    """Layer normalisation over channels, height and width, a scale and offset per channel.

    Written out because Paddle's own layer_norm has no second derivative, which the
    gradient penalty needs. Samples stay independent, which the penalty needs as well.

    Args:
        channels: Channels of the input [N, channels, H, W].
    """

    def __init__(self, channels: int):
        super().__init__()
        shape = [1, channels, 1, 1]
        self.scale = self.create_parameter(shape, default_initializer=nn.initializer.Constant(1.0))
        self.offset = self.create_parameter(shape, is_bias=True)

    def forward(self, x, labels=None):
        centred = x - x.mean([1, 2, 3], keepdim=True)
        variance = centred.square().mean([1, 2, 3], keepdim=True)
        return centred / paddle.sqrt(variance + 1e-5) * self.scale + self.offset


class NoNorm(nn.Layer):
    """No normalisation: the critic's default."""

    def __init__(self, channels: int):
        super().__init__()

    def forward(self, x, labels=None):
        return x


def sample_by(generator: nn.Layer, statistics: str) -> None:
    """Says what a generator's batch normalisation goes by in evaluation.

    Args:
        generator: A network with `BatchNorm` in it, or without.
        statistics: "batch", the samples' own, or "running", averages of training's batches.
    """
    for layer in generator.sublayers():
        if isinstance(layer, BatchNorm):
            layer.sample_by_running = statistics == "running"


def critic_norm(name: Optional[str], channels: int) -> nn.Layer:
    """The critic's normalisation by name: None, "layer", or "batch".

    "batch" is for objectives without a penalty: it ties samples together, while a penalty
    holds for each sample on its own (section 4 of the paper).

    Raises:
        UserError: For another name.
    """
    if name not in (None, "layer", "batch"):
        raise UserError(f"MODEL.dis_net.norm={name!r} is unknown: choose null, layer or batch.")
    return {None: NoNorm, "layer": LayerNorm, "batch": BatchNorm}[name](channels)


# --8<-- [end:normalisation]


# --8<-- [start:residual_block]
class ResidualBlock(nn.Layer):
    """Norm, ReLU, convolution, norm, ReLU, convolution, beside a shortcut (`gan_cifar_resnet.py`).

    Args:
        n_in: Input channels.
        n_out: Output channels.
        norm: Builds the normalisation of a number of channels.
        resample: None, "up" (nearest-neighbour doubling BEFORE the convolution) or "down"
            (2x2 mean pool AFTER it); the shortcut is resampled the same way.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        norm: Callable[[int], nn.Layer],
        resample: Optional[str] = None,
    ):
        super().__init__()
        # A block changes its channels in the first convolution, unless it halves the size.
        n_mid = n_in if resample == "down" else n_out
        self.norm_1 = norm(n_in)
        self.conv_1 = conv(n_in, n_mid, 3)
        self.norm_2 = norm(n_mid)
        self.conv_2 = conv(n_mid, n_out, 3)
        self.conv_shortcut = None
        if resample is not None or n_in != n_out:
            self.conv_shortcut = conv(n_in, n_out, 1, he=False)

        self.resample = resample
        # Resampling and convolution in one; see linear_maps.py for the plain formulas.
        self.first = maps.upsample_conv if resample == "up" else maps.conv
        self.second = maps.conv_mean_pool if resample == "down" else maps.conv
        self.beside = self.first if resample == "up" else self.second

    def forward(self, x, labels=None):
        h = self.first(maps.relu(self.norm_1(x, labels)), self.conv_1)
        h = self.second(maps.relu(self.norm_2(h, labels)), self.conv_2)
        return h + (x if self.conv_shortcut is None else self.beside(x, self.conv_shortcut))


class FirstCriticBlock(nn.Layer):
    """The critic's first block: no activation or norm before the picture itself.

    Args:
        n_out: Output channels; the input is a picture [N, 3, H, W].
    """

    def __init__(self, n_out: int):
        super().__init__()
        self.conv_1 = conv(3, n_out, 3)
        self.conv_2 = conv(n_out, n_out, 3)
        self.conv_shortcut = conv(3, n_out, 1, he=False)

    def forward(self, x):
        h = maps.conv_mean_pool(maps.relu(maps.conv(x, self.conv_1)), self.conv_2)
        return maps.conv(F.avg_pool2d(x, 2), self.conv_shortcut) + h


# --8<-- [end:residual_block]


# --8<-- [start:cifar10_networks]
class WganGpCifar10Generator(Generator):
    """Noise [N, 128], labels [N] -> pictures [N, 3, 32, 32] in [-1, 1] (`gan_cifar_resnet.py`).

    Args:
        dim: Channels of every layer.
        noise_dim: Length of a noise vector.
        use_label: Conditional batch normalisation by label; the last one is never conditional.
    """

    def __init__(self, dim: int = 128, noise_dim: int = 128, use_label: bool = True):
        super().__init__(noise_dim, NUM_CLASSES if use_label else 0)
        self.dim = dim

        def norm(channels):
            return BatchNorm(channels, self.num_classes)

        self.linear = linear(noise_dim, 4 * 4 * dim)
        self.blocks = nn.LayerList([ResidualBlock(dim, dim, norm, "up") for _ in range(3)])
        self.norm = BatchNorm(dim)
        self.conv = conv(dim, 3, 3, he=False)

    def generate(self, noise, labels=None):
        h = self.linear(noise).reshape([-1, self.dim, 4, 4])
        for block in self.blocks:
            h = block(h, labels)
        return F.tanh(maps.conv(F.relu(self.norm(h)), self.conv))


class WganGpCifar10Discriminator(Critic):
    """Pictures [N, 3, 32, 32] -> values [N], logits [N, 10] (`gan_cifar_resnet.py`).

    Args:
        dim: Channels of every layer.
        use_label: Whether the AC-GAN head, which gives the logits, is there.
        norm: None, "layer" or "batch": normalisation in the blocks after the first.
    """

    def __init__(self, dim: int = 128, use_label: bool = True, norm: Optional[str] = None):
        super().__init__()

        def make_norm(channels):
            return critic_norm(norm, channels)

        self.piecewise_linear = norm is None

        self.first = FirstCriticBlock(dim)
        self.blocks = nn.LayerList(
            [ResidualBlock(dim, dim, make_norm, resample) for resample in ("down", None, None)]
        )
        self.linear = linear(dim, 1)
        self.linear_class = linear(dim, NUM_CLASSES) if use_label else None

    def score(self, samples):
        h = self.first(samples)
        for block in self.blocks:
            h = block(h)
        h = maps.relu(h).mean([2, 3])
        logits = None if self.linear_class is None else maps.linear(h, self.linear_class)
        return maps.linear(h, self.linear).squeeze(1), logits


# --8<-- [end:cifar10_networks]


# --8<-- [start:formulas]
def wasserstein_estimate(value_real: paddle.Tensor, value_fake: paddle.Tensor) -> paddle.Tensor:
    """E[D(real)] - E[D(fake)]: what the critic maximises, in units of its own slope.

    Args:
        value_real: Critic's values of real samples, [N].
        value_fake: Critic's values of generated samples, [M].
    """
    return value_real.mean() - value_fake.mean()


def interpolate(real: paddle.Tensor, fake: paddle.Tensor, alpha: paddle.Tensor) -> paddle.Tensor:
    """A point on the line between each real and its fake sample (algorithm 1 of the paper).

    Args:
        real: Real samples, [N, ...].
        fake: Generated samples, of the same shape.
        alpha: ONE number in [0, 1] per sample, [N]; one per pixel would leave the lines.

    Raises:
        ValueError: For any other number of alphas.
    """
    alpha = alpha.reshape([len(real)] + [1] * (real.ndim - 1))
    return real + alpha * (fake - real)


def gradient_norm(critic: Critic, samples: paddle.Tensor) -> paddle.Tensor:
    """Length of the critic's gradient at each sample, over ALL of its dimensions.

    Differentiable in the critic's weights (a second derivative, "double backward").

    Args:
        critic: The critic D.
        samples: Points x, [N, ...].

    Returns:
        ||grad_x D(x)||_2, [N].
    """
    samples = samples.detach()
    samples.stop_gradient = False
    with maps.twice_differentiable():
        value, _ = critic.score(samples)
        (gradient,) = paddle.grad(value.sum(), samples, create_graph=True)
    return maps.length(gradient)


def gradient_penalty(norm: paddle.Tensor) -> paddle.Tensor:
    """E[(||grad D|| - 1)^2], equation 3 of the paper, without its factor lambda.

    Args:
        norm: Gradient norms, [N].
    """
    return (norm - 1.0).square().mean()


def penalised_norm(
    critic: Critic, samples: paddle.Tensor, penalty: Callable[[paddle.Tensor], paddle.Tensor]
) -> Tuple[paddle.Tensor, paddle.Tensor]:
    """Gradient norms [N] and a penalty of them, whose gradient is had by second derivatives.

    `linear_maps.first_order_penalty` is the same without them, for piecewise linear critics.

    Args:
        critic: The critic D.
        samples: Points x, [N, ...].
        penalty: Norms to a term of the loss.
    """
    norm = gradient_norm(critic, samples)
    return norm, penalty(norm)


# --8<-- [end:formulas]


# --8<-- [start:losses]
class AdversarialLoss(ppsci.loss.FunctionalLoss):
    """A loss on ppsci's FunctionalLoss that also remembers figures for the log.

    Figures stay on the device until `mean_figures` reads them, so that remembering them
    costs no wait in each step.

    Args:
        critic: The critic D.
    """

    def __init__(self, critic: Critic):
        super().__init__(self.terms)
        self.critic = critic
        self.figures: Dict[str, List[paddle.Tensor]] = {}

    def terms(self, output_dict, label_dict=None, weight_dict=None):
        raise NotImplementedError

    def remember(self, **figures: paddle.Tensor) -> None:
        for name, figure in figures.items():
            self.figures.setdefault(name, []).append(figure.detach())

    def mean_figures(self) -> Dict[str, float]:
        """Means of what was remembered since `figures` was cleared."""
        return {
            name: float(paddle.stack(kept).astype("float64").mean())
            for name, kept in self.figures.items()
        }


class CriticLoss(AdversarialLoss):
    """An objective's loss of the critic, and AC-GAN's cross entropy on real samples.

    The terms whose sum is minimised; the class term is there when the critic gives logits.

    Args:
        critic: The critic D.
        objective: An `objectives.Objective`.
        class_weight: Factor of the cross entropy.
        penalty_gradient: How the gradient of a penalty is had: "double_backward",
            "first_order" (of the same value, faster, for piecewise linear critics only), or
            "auto": the latter where it can be.

    Raises:
        UserError: For "first_order" and a critic that is not piecewise linear.
    """

    def __init__(
        self,
        critic: Critic,
        objective,
        class_weight: float = 1.0,
        penalty_gradient: str = "auto",
    ):
        super().__init__(critic)
        self.objective = objective
        self.class_weight = class_weight
        if penalty_gradient == "first_order" and not critic.piecewise_linear:
            raise UserError(
                "TRAIN.penalty_gradient=first_order holds for critics of linear maps and ReLUs "
                "only, and this one normalises: choose double_backward, or auto."
            )
        is_plain = penalty_gradient == "double_backward" or not critic.piecewise_linear
        self.penalised_norm = penalised_norm if is_plain else maps.first_order_penalty

    def terms(self, output_dict, label_dict=None, weight_dict=None):
        real, fake = output_dict["real"], output_dict["fake"]
        value_real = output_dict["value_real"]
        value_fake, logits_fake = self.critic.score(fake)
        terms = {"critic_term": self.objective.critic_term(value_real, value_fake)}
        if self.objective.penalty is not None:
            weight, penalty = self.objective.penalty_weight, self.objective.penalty
            # In float32 under mixed precision, too: its gradient is one of a gradient.
            with paddle.amp.auto_cast(enable=False):
                with paddle.no_grad():  # the penalty's graph begins at these points
                    mixed = interpolate(real, fake, output_dict["alpha"]).astype("float32")
                norm, terms["weighted_penalty"] = self.penalised_norm(
                    self.critic, mixed, lambda norm: weight * penalty(norm)
                )
            self.remember(gradient_penalty=penalty(norm.detach()), gradient_norm=norm.mean())
        if logits_fake is not None:
            labels, logits = output_dict["labels"], output_dict["logits_real"]
            # on real samples only: the critic is not asked to classify the generator's errors
            class_loss = F.cross_entropy(logits, labels)
            terms["weighted_class"] = self.class_weight * class_loss
            self.remember(
                critic_class_loss=class_loss,
                accuracy_real=correct(logits, labels).mean(),
                accuracy_fake=correct(logits_fake, labels).mean(),
            )
        self.remember(
            critic_loss=sum(terms.values()),
            wasserstein=wasserstein_estimate(value_real, value_fake),
        )
        return terms

    @paddle.no_grad()
    def after_step(self) -> None:
        """What an objective does to the critic's weights after each of its steps."""
        if self.objective.clip is None:
            return
        for weight in self.critic.parameters():
            # 0 * weight is 0, but NaN for what is not finite: clipping must not hide that
            clipped = weight.clip(-self.objective.clip, self.objective.clip) + 0 * weight
            paddle.assign(clipped, weight)


class GeneratorLoss(AdversarialLoss):
    """An objective's loss of the generator, and AC-GAN's cross entropy when there are logits.

    Args:
        critic: The critic D.
        objective: An `objectives.Objective`.
        class_weight: Factor of the cross entropy.
    """

    def __init__(self, critic: Critic, objective, class_weight: float = 0.1):
        super().__init__(critic)
        self.objective = objective
        self.class_weight = class_weight

    def terms(self, output_dict, label_dict=None, weight_dict=None):
        value, logits = self.critic.score(output_dict["fake"])
        terms = {"generator_term": self.objective.generator_term(value)}
        if logits is not None:
            class_loss = F.cross_entropy(logits, output_dict["labels"])
            terms["weighted_class"] = self.class_weight * class_loss
            self.remember(generator_class_loss=class_loss)
        self.remember(generator_loss=sum(terms.values()))
        return terms


def correct(logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
    """1 where a sample's largest logit is its label's, else 0: [N] of logits [N, K], labels [N]."""
    return (logits.argmax(1) == labels).astype("float32")


# --8<-- [end:losses]


# --8<-- [start:image_data]
class ImageSet:
    """Pictures of a training and a test set.

    Args:
        train_images: uint8 [N, C, H, W].
        train_labels: int64 [N], from 0.
        test_images: uint8 [M, C, H, W].
        test_labels: int64 [M].
    """

    def __init__(self, train_images, train_labels, test_images, test_labels):
        self.train_images, self.train_labels = train_images, train_labels
        self.test_images, self.test_labels = test_images, test_labels

    def describe(self) -> str:
        """What tells its training set from others."""
        digest = hashlib.sha256(np.ascontiguousarray(self.train_images))
        digest.update(np.ascontiguousarray(self.train_labels))
        return f"{len(self.train_images)} pictures of SHA-256 {digest.hexdigest()[:16]}"


def prepare_cifar10(images: np.ndarray, rng: Optional[np.random.Generator] = None) -> np.ndarray:
    """uint8 pictures to [-1, 1]: `2 (x / 256 - 1/2)`, plus U[0, 1/128) where a generator is given.

    The noise makes the 256 levels a continuous density ("dequantisation"); it is to be
    drawn anew each time a picture is read (`gan_cifar_resnet.py`).
    """
    scaled = images.astype("float32") * (1 / 128) - 1
    if rng is not None:
        scaled += rng.random(images.shape, "float32") * (1 / 128)
    return scaled


def prepare_mnist(
    images: np.ndarray, rng: Optional[np.random.Generator] = None, low: float = 0.0
) -> np.ndarray:
    """uint8 digits to [low, 1): `x / 256`, the values of mnist.pkl.gz, if `low` is 0.

    Draws nothing from `rng`.
    """
    return images.astype("float32") * ((1 - low) / 256) + low


def read_cifar10(path: str) -> ImageSet:
    """Reads an archive in the layout of cifar-10-python.tar.gz.

    Any number of `data_batch_N` members, of any number of pictures each, and `test_batch`.

    Args:
        path: The archive (tar, compressed or not).

    Raises:
        UserError: For an archive that is damaged or of another layout.
    """
    members = files.read_tar(path, ("data_batch_", "test_batch"))
    parts: Dict[str, List[Tuple[np.ndarray, np.ndarray]]] = {"train": [], "test": []}
    for name, content in members:
        where = f"{path}, member {name}"
        batch = files.unpickle(content, where)
        try:
            # keys are bytes in the original, which Python 2 wrote
            batch = {files.as_text(key): value for key, value in batch.items()}
            rows, labels = files.as_rows(batch["data"], 3072), files.as_labels(batch["labels"])
            images = rows.reshape(-1, *IMAGE_SIZE["cifar10"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise UserError(
                f"{where}: expected a dictionary with `data`, uint8 rows of 3,072 numbers, "
                "and `labels`, as in cifar-10-python.tar.gz."
            ) from None
        files.check_images(images, labels, NUM_CLASSES, where)
        split = "train" if "data_batch_" in name else "test"
        parts[split].append((images, labels))
    for split, member in (("train", "data_batch_1"), ("test", "test_batch")):
        if not parts[split]:
            raise UserError(
                f"{path}: there are no pictures of a {member} inside; is it a CIFAR-10 archive?"
            )
    return ImageSet(
        *(np.concatenate(column) for column in zip(*parts["train"])),
        *(np.concatenate(column) for column in zip(*parts["test"])),
    )


def read_mnist(path: str) -> ImageSet:
    """Reads mnist.pkl.gz: a training, a validation and a test set of `x / 256` rows.

    The validation set is not used, as in the authors' training.

    Args:
        path: The file, a gzip of one pickle.

    Raises:
        UserError: For a file that is damaged or of another layout.
    """
    sets = files.unpickle(files.read_gzip(path), path)
    columns = []
    try:
        for split in (0, 2):
            rows, labels = sets[split]
            pixels = np.rint(files.as_rows(rows, 784).astype("float32") * 256)
            if not ((pixels >= 0) & (pixels <= 255)).all():
                raise ValueError
            images = pixels.astype("uint8").reshape(-1, *IMAGE_SIZE["mnist"])
            columns += [images, files.as_labels(labels)]
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        raise UserError(
            f"{path}: expected three pairs (images, labels), images being rows of 784 "
            "numbers in [0, 1), as in mnist.pkl.gz."
        ) from None
    files.check_images(columns[0], columns[1], NUM_CLASSES, path)
    files.check_images(columns[2], columns[3], NUM_CLASSES, path)
    return ImageSet(*columns)


# --8<-- [end:image_data]


# --8<-- [start:inception_score]
def inception_score(probabilities: np.ndarray, splits: int = 10) -> Tuple[float, float]:
    """Inception Score of given class probabilities, in float64.

    Per split of consecutive rows `exp(mean KL(p(y|x) || p(y)))`. The order of the rows
    matters: shuffle samples that were drawn class by class first.

    Args:
        probabilities: p(y|x) of each sample, [N, K], rows summing to 1.
        splits: Number of contiguous splits.

    Returns:
        Mean and standard deviation (ddof 0) over the splits.

    Raises:
        ValueError: If rows are no probabilities, or fewer than splits.
    """
    p = np.asarray(probabilities, "float64")
    if p.ndim != 2 or len(p) < splits or splits < 1:
        raise ValueError(f"expected [N, K] with N >= {splits} splits, got {p.shape}")
    if not ((p >= 0).all() and np.allclose(p.sum(1), 1, atol=1e-4)):
        raise ValueError("rows must be probabilities: not negative, and summing to 1")
    scores = []
    ends = [number * len(p) // splits for number in range(splits + 1)]
    for part in (p[start:end] for start, end in zip(ends, ends[1:])):
        marginal = part.mean(0, keepdims=True)
        # 0 log 0 is 0
        ratio = np.log(np.where(part > 0, part, 1) / np.where(part > 0, marginal, 1))
        scores.append(np.exp((part * ratio).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))


# --8<-- [end:inception_score]
