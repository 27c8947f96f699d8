# SPDX-License-Identifier: Apache-2.0
"""The experiments in plain PyTorch, a reference for the suite's speed.

Networks, objective and optimisers are those of the scripts, written as a good PyTorch programmer
would: channels-last convolutions, fakes without a graph, real and fake samples in one batch, the
critic frozen in generator steps, oneDNN on all cores. Initial weights are PyTorch's own; they do
not change the time of a step.
"""

from __future__ import annotations

import tempfile
from typing import Callable

import common
import torch
import torch.nn.functional as F
from torch import nn


class ToyNetwork(nn.Sequential):
    def __init__(self, dim, n_out):
        layers = [nn.Linear(2, dim), nn.ReLU()]
        for _ in range(2):
            layers += [nn.Linear(dim, dim), nn.ReLU()]
        super().__init__(*layers, nn.Linear(dim, n_out))

    def score(self, x):
        return self(x).squeeze(1), None


class MnistGenerator(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim
        self.linear = nn.Linear(128, 64 * dim)
        self.up_1 = nn.ConvTranspose2d(4 * dim, 2 * dim, 5, 2, 2, 1)
        self.up_2 = nn.ConvTranspose2d(2 * dim, dim, 5, 2, 2, 1)
        self.up_3 = nn.ConvTranspose2d(dim, 1, 5, 2, 2, 1)

    def forward(self, noise, labels=None):
        h = F.relu(self.linear(noise)).view(-1, 4 * self.dim, 4, 4)
        h = F.relu(self.up_1(h))[:, :, :7, :7]
        return torch.sigmoid(self.up_3(F.relu(self.up_2(h))))


class MnistCritic(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.conv_1 = nn.Conv2d(1, dim, 5, 2, 2)
        self.conv_2 = nn.Conv2d(dim, 2 * dim, 5, 2, 2)
        self.conv_3 = nn.Conv2d(2 * dim, 4 * dim, 5, 2, 2)
        self.linear = nn.Linear(64 * dim, 1)

    def score(self, x):
        for layer in (self.conv_1, self.conv_2, self.conv_3):
            x = F.leaky_relu(layer(x), 0.2)
        return self.linear(x.flatten(1)).squeeze(1), None


class ConditionalNorm(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False, track_running_stats=False)
        self.scale = nn.Embedding(classes, channels)
        self.offset = nn.Embedding(classes, channels)

    def forward(self, x, labels):
        scale, offset = self.scale(labels)[:, :, None, None], self.offset(labels)[:, :, None, None]
        return self.norm(x) * scale + offset


class Block(nn.Module):
    def __init__(self, dim, resample=None, normalise=False):
        super().__init__()
        self.resample = resample
        self.norms = None
        if normalise:
            self.norms = nn.ModuleList([ConditionalNorm(dim, 10) for _ in range(2)])
        self.conv_1 = nn.Conv2d(dim, dim, 3, 1, 1)
        self.conv_2 = nn.Conv2d(dim, dim, 3, 1, 1)
        self.shortcut = nn.Conv2d(dim, dim, 1) if resample else None

    def forward(self, x, labels=None):
        def norm(number, h):
            return h if self.norms is None else self.norms[number](h, labels)

        def up(h):
            return F.interpolate(h, scale_factor=2) if self.resample == "up" else h

        def down(h):
            return F.avg_pool2d(h, 2) if self.resample == "down" else h

        h = self.conv_1(up(F.relu(norm(0, x))))
        h = down(self.conv_2(F.relu(norm(1, h))))
        return h + (x if self.shortcut is None else down(self.shortcut(up(x))))


class Cifar10Generator(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim
        self.linear = nn.Linear(128, 16 * dim)
        self.blocks = nn.ModuleList([Block(dim, "up", True) for _ in range(3)])
        self.norm = nn.BatchNorm2d(dim, track_running_stats=False)
        self.conv = nn.Conv2d(dim, 3, 3, 1, 1)

    def forward(self, noise, labels):
        h = self.linear(noise).view(-1, self.dim, 4, 4)
        h = h.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h, labels)
        return torch.tanh(self.conv(F.relu(self.norm(h))))


class Cifar10Critic(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.conv_1 = nn.Conv2d(3, dim, 3, 1, 1)
        self.conv_2 = nn.Conv2d(dim, dim, 3, 1, 1)
        self.shortcut = nn.Conv2d(3, dim, 1)
        self.blocks = nn.ModuleList([Block(dim, "down"), Block(dim), Block(dim)])
        self.value = nn.Linear(dim, 1)
        self.classes = nn.Linear(dim, 10)

    def score(self, x):
        h = F.avg_pool2d(self.conv_2(F.relu(self.conv_1(x))), 2)
        h = h + self.shortcut(F.avg_pool2d(x, 2))
        for block in self.blocks:
            h = block(h)
        h = F.relu(h).mean([2, 3])
        return self.value(h).squeeze(1), self.classes(h)


def make_layer_norm(channels: int) -> nn.Module:
    """Normalises over channels, height and width; faster than `F.layer_norm` on channels-last."""
    return nn.GroupNorm(1, channels)


class Dcgan64Generator(nn.Module):
    def __init__(self, dim):
        super().__init__()
        widths = [8 * dim, 4 * dim, 2 * dim, dim, 3]
        self.linear = nn.Linear(128, 16 * widths[0])
        self.norms = nn.ModuleList(
            [nn.BatchNorm2d(n, track_running_stats=False) for n in widths[:4]]
        )
        self.convs = nn.ModuleList(
            [nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in zip(widths, widths[1:])]
        )

    def forward(self, noise):
        h = self.linear(noise).view(len(noise), -1, 4, 4)
        h = h.contiguous(memory_format=torch.channels_last)
        for norm, conv in zip(self.norms, self.convs):
            h = conv(F.relu(norm(h)))
        return torch.tanh(h)


class Dcgan64Critic(nn.Module):
    def __init__(self, dim):
        super().__init__()
        widths = [3, dim, 2 * dim, 4 * dim, 8 * dim]
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 4, 2, 1) for a, b in zip(widths, widths[1:])])
        self.norms = nn.ModuleList([nn.Identity(), *map(make_layer_norm, widths[2:])])
        self.linear = nn.Linear(8 * dim, 1)

    def score(self, x):
        for conv, norm in zip(self.convs, self.norms):
            x = F.leaky_relu(norm(conv(x)), 0.2)
        return self.linear(x.mean([2, 3])).squeeze(1), None


class DownBlock(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.norms = nn.ModuleList(map(make_layer_norm, (n_in, n_out, n_out)))
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(n_in, n_out, 3, 1, 1),
                nn.Conv2d(n_out, n_out, 3, 1, 1),
                nn.Conv2d(n_out, n_out, 3, 2, 1),
            ]
        )
        # With fewer than 16 input channels, PyTorch 2.13 corrupts memory in its backward pass.
        self.shortcut = nn.Conv2d(n_in, n_out, 1, 2)

    def forward(self, x):
        h = x
        for norm, conv in zip(self.norms, self.convs):
            h = conv(F.leaky_relu(norm(h), 0.2))
        return h + self.shortcut(x)


class UpBlock(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.norms = nn.ModuleList(
            [nn.BatchNorm2d(n_in, track_running_stats=False) for _ in range(3)]
        )
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(n_in, n_in, 3, 1, 1),
                nn.Conv2d(n_in, n_in, 3, 1, 1),
                nn.ConvTranspose2d(n_in, n_out, 4, 2, 1),
            ]
        )
        self.shortcut = nn.ConvTranspose2d(n_in, n_out, 2, 2)

    def forward(self, x):
        h = x
        for norm, conv in zip(self.norms, self.convs):
            h = conv(F.relu(norm(h)))
        return h + self.shortcut(x)


class Resnet64Generator(nn.Module):
    def __init__(self, dim):
        super().__init__()
        widths = [dim * n for n in (8, 8, 4, 2, 1)]
        self.linear = nn.Linear(128, 16 * widths[0])
        self.blocks = nn.ModuleList([UpBlock(a, b) for a, b in zip(widths, widths[1:])])
        self.norm = nn.BatchNorm2d(dim, track_running_stats=False)
        self.conv = nn.Conv2d(dim, 3, 3, 1, 1)

    def forward(self, noise):
        h = self.linear(noise).view(len(noise), -1, 4, 4)
        h = h.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h)
        return torch.tanh(self.conv(F.relu(self.norm(h))))


class Resnet64Critic(nn.Module):
    def __init__(self, dim):
        super().__init__()
        widths = [dim * n for n in (1, 2, 4, 8, 8)]
        self.conv = nn.Conv2d(3, dim, 3, 1, 1)
        self.blocks = nn.ModuleList([DownBlock(a, b) for a, b in zip(widths, widths[1:])])
        self.linear = nn.Linear(16 * widths[-1], 1)

    def score(self, x):
        h = self.conv(x)
        for block in self.blocks:
            h = block(h)
        return self.linear(F.leaky_relu(h, 0.2).flatten(1)).squeeze(1), None


def make_inception() -> nn.Module:
    """torch-fidelity's Inception with random weights."""
    reference = common.import_inception_reference()
    extractor, *_ = reference.import_torch_fidelity()
    state = {name: torch.from_numpy(value) for name, value in reference.random_state().items()}
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/weights.pth"
        torch.save(state, path)
        network = extractor.FeatureExtractorInceptionV3(
            "random", ["2048"], feature_extractor_weights_path=path
        )
    # torch-fidelity leaves the format as it is; this one is faster.
    return network.to(memory_format=torch.channels_last)


def make_features(count: int) -> Callable[[], torch.Tensor]:
    """A step that computes the features of a batch of pictures of 32x32."""
    network = make_inception()
    pictures = torch.from_numpy(common.import_inception_reference().images(count))
    return torch.no_grad()(lambda: network(pictures))


class Experiment(common.Reference):
    """An experiment with networks of width `dim`."""

    def __init__(self, name: str, dim: int, batch: int):
        super().__init__(name, batch)
        torch.manual_seed(0)
        self.generator, self.critic = {
            "toy": lambda: (ToyNetwork(dim, 2), ToyNetwork(dim, 1)),
            "mnist": lambda: (MnistGenerator(dim), MnistCritic(dim)),
            "cifar10": lambda: (Cifar10Generator(dim), Cifar10Critic(dim)),
            "dcgan64": lambda: (Dcgan64Generator(dim), Dcgan64Critic(dim)),
            "resnet64": lambda: (Resnet64Generator(dim), Resnet64Critic(dim)),
        }[name]()
        self.real = torch.rand(batch, *self.setup.shape)
        if len(self.setup.shape) == 3:
            for network in (self.generator, self.critic):
                network.to(memory_format=torch.channels_last)
            self.real = self.real.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(10, (self.generator_batch,))
        self.optimizers = {
            network: torch.optim.Adam(network.parameters(), 1e-4, self.setup.betas)
            for network in (self.generator, self.critic)
        }

    def draw_fakes(self, count: int) -> torch.Tensor:
        inputs = [torch.randn(count, self.setup.noise_dim)]
        if self.setup.is_conditional:
            inputs.append(self.labels[:count])
        parts = zip(*(values.chunk(self.setup.batch_norm_groups) for values in inputs))
        return torch.cat([self.generator(*part) for part in parts])

    def critic_step(self) -> None:
        with torch.no_grad():
            fake = self.draw_fakes(self.batch)
        values, logits = self.critic.score(torch.cat([self.real, fake]))
        loss = values[self.batch :].mean() - values[: self.batch].mean()
        alpha = torch.rand(self.batch, *[1] * (fake.ndim - 1))
        mixed = (self.real + alpha * (fake - self.real)).requires_grad_()
        total = self.critic.score(mixed)[0].sum()
        (gradient,) = torch.autograd.grad(total, mixed, create_graph=True)
        norm = gradient.flatten(1).norm(dim=1)
        loss = loss + self.setup.penalty_weight * ((norm - 1) ** 2).mean()
        if logits is not None:
            loss = loss + F.cross_entropy(logits[: self.batch], self.labels[: self.batch])
        self._step(self.critic, loss)

    def generator_step(self) -> None:
        self.critic.requires_grad_(False)
        values, logits = self.critic.score(self.draw_fakes(self.generator_batch))
        loss = -values.mean()
        if logits is not None:
            loss = loss + 0.1 * F.cross_entropy(logits, self.labels)
        self._step(self.generator, loss)
        self.critic.requires_grad_(True)

    def _step(self, network: nn.Module, loss: torch.Tensor) -> None:
        optimizer = self.optimizers[network]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
