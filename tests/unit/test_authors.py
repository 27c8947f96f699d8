# SPDX-License-Identifier: Apache-2.0
"""Two iterations of the suite against the authors' graph, of equal weights and inputs.

tests/golden/authors/README.md says what the numbers are and how they were made.
"""

import dataclasses
from types import SimpleNamespace

import authors
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from helpers import has_onednn

import functions
import wgangp_cifar10
import wgangp_mnist
import wgangp_toy
from data.streams import Stream
from kernels import availability
from kernels import maps
from networks import normalisation
from networks.base import frozen
from training import build
from training.run_settings import RunSettings

# The authors' settings, but for widths, batches, and one critic step in an iteration.
STEPS = "TRAIN.epochs=1 TRAIN.iters_per_epoch=2 TRAIN.n_critic=1"
CIFAR10 = (
    f"{STEPS} TRAIN.batch_size=8 TRAIN.lr_schedule=constant MODEL.gen_net.dim=8 MODEL.dis_net.dim=8"
)
CASES = {
    "cifar_acgan": ("cifar10", CIFAR10),
    "cifar_uncond": ("cifar10", f"{CIFAR10} MODEL.use_label=false"),
    "mnist": ("mnist", f"{STEPS} TRAIN.batch_size=8 MODEL.gen_net.dim=4 MODEL.dis_net.dim=4"),
    "toy": (
        "toy",
        f"preset=authors {STEPS} TRAIN.batch_size=16 MODEL.gen_net.dim=32 MODEL.dis_net.dim=32",
    ),
}
EXPERIMENTS = {
    "cifar10": wgangp_cifar10.Cifar10,
    "mnist": wgangp_mnist.Mnist,
    "toy": wgangp_toy.Toy,
}
RATES = {"cifar10": 2e-4, "mnist": 1e-4, "toy": 1e-4}
# Largest differences: of outputs and of gradients as shares of a tensor's largest number; of
# weights in learning rates, 95% of a network's.
OUTPUT, GRADIENT, WEIGHT = 1e-4, 1e-3, 1e-2


def make_run(case, cfg):
    """A run of the suite at its start, with the weights and inputs of the golden file."""
    generator, critic = EXPERIMENTS[CASES[case][0]](cfg).make_networks()
    for network, name in ((generator, "generator"), (critic, "critic")):
        arrays = authors.part(case, f"weights/{name}")
        for name, weight in network.named_parameters():
            weight.set_value(arrays.pop(name).reshape(weight.shape))
        assert not arrays
    batches = [prepare(case, authors.inputs(case, step)) for step in (0, 1)]

    def draw(player, key):
        rows = np.concatenate([batch[player, key] for batch in batches])
        return lambda rng, positions: rows[positions % len(rows)]

    def make_real_streams(length, seed):
        keys = [key for player, key in batches[0] if player == "critic"]
        return {key: Stream(length, seed, draw("critic", key)) for key in keys}

    run = build.make_run(RunSettings.of(cfg), generator, critic, make_real_streams, "golden")
    for player in run.players:
        for key, stream in player.inputs.items():
            stream.draw = draw(player.name, key)
    run.seek()
    return run, batches


def prepare(case, inputs):
    """A batch of each player by (player, key)."""
    if case == "toy":
        real, alpha = inputs["real"], 1 - inputs["alpha"]  # alpha real + (1 - alpha) fake
    elif case == "mnist":
        real = functions.prepare_mnist(inputs["real_bytes"].reshape(-1, 1, 28, 28))
        alpha = inputs["alpha"]
    else:
        # Draws U[0, 1), and prepare_cifar10 divides by 128.
        rng = SimpleNamespace(random=lambda shape, _: 128 * inputs["dequantisation"].reshape(shape))
        real = functions.prepare_cifar10(inputs["real_bytes"].reshape(-1, 3, 32, 32), rng)
        alpha = inputs["alpha"]
    batch = {("critic", "real"): real, ("critic", "alpha"): alpha.squeeze(1)}
    for player in ("critic", "generator"):
        batch[player, "noise"] = inputs[f"noise_{player}"]
        if f"labels_{player}" in inputs:
            batch[player, "labels"] = inputs[f"labels_{player}"].astype("int64")
    return batch


class Watch:
    """Keeps what a player's loss gets and gives, and the gradients of its steps."""

    def __init__(self, player):
        self.player, self.outputs, self.terms, self.gradients = player, [], [], []
        self.scores = ()  # of the first fakes
        terms, step = player.loss.loss_expr, player.solver.optimizer.step

        def watched_terms(outputs, *rest):
            if not self.outputs:
                with paddle.no_grad():
                    self.scores = player.loss.critic.score(outputs["fake"])
            self.outputs.append(outputs)
            self.terms.append(terms(outputs, *rest))
            return self.terms[-1]

        def watched_step():
            self.keep_gradients()
            step()

        player.loss.loss_expr, player.solver.optimizer.step = watched_terms, watched_step

    def keep_gradients(self):
        named = self.player.network.named_parameters()
        self.gradients.append({name: weight.grad.numpy().copy() for name, weight in named})

    def look(self, given, backward=False):
        """Computes the loss, and perhaps its gradients, outside of a step."""
        terms = self.player.loss.loss_expr({**given, **self.player.network(given)})
        if backward:
            sum(terms.values()).backward()
            self.keep_gradients()
            self.player.network.clear_gradients()

    def cost(self, call):
        return sum(self.terms[call].values())

    def weights(self):
        return {name: weight.numpy() for name, weight in self.player.network.named_parameters()}


def play(case, cfg):
    """Two iterations by `Run.step`; returns what was found, by the keys of the golden file."""
    run, batches = make_run(case, cfg)
    critic, generator = (Watch(player) for player in run.players)
    found, slopes = {}, []
    objective = run.critic.loss.objective

    def watched_penalty(norm):
        slopes.append(norm.detach())
        return objective.penalty(norm)

    run.critic.loss.objective = dataclasses.replace(objective, penalty=watched_penalty)

    def look_at_generator(step, **options):
        given = {key: batches[step]["generator", key] for key in run.generator.inputs}
        with frozen(run.critic.network):
            generator.look({key: paddle.to_tensor(rows) for key, rows in given.items()}, **options)

    def keep(prefix, arrays):
        found.update({f"{prefix}/{name}": np.asarray(array) for name, array in arrays.items()})

    look_at_generator(0, backward=True)
    for number in (1, 2):
        run.step()
        if number == 1:
            first_slopes = slopes[-1]
        critic.look(critic.outputs[-1])  # on the same fakes
        look_at_generator(number - 1)
        for watch in (critic, generator):
            keep(f"after_{watch.player.name}_step_{number}", watch.weights())
        costs = {
            f"cost_critic_after_critic_step_{number}": critic.cost(-1),
            f"cost_generator_after_critic_step_{number}": generator.cost(-2),
            f"cost_generator_after_generator_step_{number}": generator.cost(-1),
        }
        keep("outputs", costs)
    keep("outputs", list_outputs(critic, generator, first_slopes))
    keep("gradient_critic", critic.gradients[0])
    keep("gradient_generator", generator.gradients[0])
    keep("gradient_generator_after_critic_step_1", generator.gradients[1])
    norms = {name: np.linalg.norm(part) for name, part in generator.gradients[2].items()}
    keep("norm_of_gradient_generator_after_critic_step_2", norms)
    return found


def list_outputs(critic, generator, slopes):
    """Outputs and terms before any step, by the names of the golden file."""
    outputs, terms, first = critic.outputs[0], critic.terms[0], generator.terms[0]
    rows = {
        "fake_critic": outputs["fake"].flatten(1),
        "fake_generator": generator.outputs[0]["fake"].flatten(1),
        "slopes": slopes,
        **{key: outputs.get(key) for key in ("value_real", "logits_real")},
        **dict(zip(("value_fake", "logits_fake"), critic.scores)),
    }
    figures = {**critic.player.loss.figures, **generator.player.loss.figures}
    numbers = {
        "cost_critic": critic.cost(0),
        "cost_critic_wasserstein": terms["critic_term"],
        "cost_critic_penalty": terms["weighted_penalty"],
        "cost_critic_acgan": terms.get("weighted_class", 0.0),
        "cost_generator": generator.cost(0),
        "cost_generator_wasserstein": first["generator_term"],
        "cost_generator_acgan": figures.get("generator_class_loss", [None])[0],
        **{key: figures.get(key, [None])[0] for key in ("accuracy_real", "accuracy_fake")},
    }
    rows = {key: authors.separate(part.numpy()) for key, part in rows.items() if part is not None}
    return {**rows, **{key: part for key, part in numbers.items() if part is not None}}


def compare(case, found):
    """Keys of what differs by more than is allowed, with the difference over the allowed one."""
    ratios, steps = {}, {}
    for key, expected in authors.read(case).items():
        kind = key.split("/")[0]
        if kind in ("weights", "inputs") or is_without_gradient(kind, key):
            continue
        difference = np.abs(found[key].ravel() - expected.ravel())
        if kind.startswith("after"):
            steps.setdefault(kind, []).append(difference)
            continue
        allowed = OUTPUT if kind == "outputs" else GRADIENT
        ratios[key] = difference.max() / (allowed * max(np.abs(expected).max(), 1e-30))
    allowed = WEIGHT * RATES[CASES[case][0]]
    for kind, differences in steps.items():
        ratios[kind] = np.quantile(np.concatenate(differences), 0.95) / allowed
    return {key: ratio for key, ratio in ratios.items() if not ratio <= 1}


def is_without_gradient(kind, key):
    """Whether a bias of CIFAR-10's generator comes before batch normalisation.

    Its gradient is rounding, and Adam makes full steps of that.
    """
    return "generator" in kind and "/blocks." in key and key.endswith(".bias")


@pytest.fixture
def on_path(monkeypatch):
    def choose(path):
        if path == "onednn" and not has_onednn():
            pytest.skip("Paddle's wheel has no oneDNN to call")
        monkeypatch.setattr(availability, "is_available", lambda: path == "onednn")

    return choose


@pytest.mark.parametrize("path", ["onednn", "plain"])
@pytest.mark.parametrize("penalty", ["first_order", "double_backward"])
@pytest.mark.parametrize("case", CASES)
def test_two_iterations_reproduce_the_authors_graph(case, penalty, path, configure, on_path):
    on_path(path)
    name, overrides = CASES[case]
    found = play(case, configure(name, overrides, f"LOSS.penalty_gradient={penalty}"))
    assert not compare(case, found)


def shift_transposed(patch):
    make = functions.make_conv_transpose

    def make_shifted(*args):
        layer = make(*args)
        layer._padding = layer._padding[::-1]  # crops one pixel less at the bottom and right
        return layer

    patch.setattr(functions, "make_conv_transpose", make_shifted)


def pad_alike(patch):
    make = functions.make_conv

    def make_padded(*args, stride=1, **options):
        layer = make(*args, stride=stride, **options)
        layer._padding = 2 if stride == 2 else layer._padding
        return layer

    patch.setattr(functions, "make_conv", make_padded)


def flatten_slope(patch):
    relu = maps.relu
    patch.setattr(maps, "relu", lambda x, slope=0.0: relu(x, 0.01 if slope else 0.0))


def enlarge_epsilon(patch):
    batch_norm = F.batch_norm

    def enlarged(*args, **options):
        return batch_norm(*args, **{**options, "epsilon": 1e-3})

    patch.setattr(normalisation.F, "batch_norm", enlarged)


def classify_fakes(patch):
    terms = functions.CriticLoss.terms

    def with_fakes(self, outputs, *rest):
        _, logits = self.critic.score(outputs["fake"])
        return {**terms(self, outputs, *rest), "fakes": F.cross_entropy(logits, outputs["labels"])}

    patch.setattr(functions.CriticLoss, "terms", with_fakes)


# A mistake: the case that shows it, a change of code or settings, and how a differing key begins.
MISTAKES = {
    "transposed convolution a pixel off": ("mnist", shift_transposed, "outputs/fake_critic"),
    "padding (2, 2) for (1, 2)": ("mnist", pad_alike, "outputs/value_real"),
    "slope 0.01 for 0.2": ("mnist", flatten_slope, "outputs/value_real"),
    "epsilon 1e-3 for 1e-5": ("cifar_uncond", enlarge_epsilon, "outputs/fake_critic"),
    "class loss on fakes": ("cifar_acgan", classify_fakes, "gradient_critic"),
    "one group for two": (
        "cifar_acgan",
        "MODEL.gen_net.batch_norm_groups=1",
        "outputs/fake_critic",
    ),
    "beta1 0.5 for 0": ("cifar_uncond", "TRAIN.beta1=0.5", "after_critic_step_2"),
    "beta1 0 for 0.5": ("toy", "TRAIN.beta1=0", "after_generator_step_2"),
    "beta2 0.999 for 0.9": ("toy", "TRAIN.beta2=0.999", "after_critic_step_2"),
    "double rate": ("toy", "TRAIN.learning_rate=2e-4", "after_generator_step_1"),
    "penalty's weight 1 for 0.1": ("toy", "LOSS.penalty_weight=1", "outputs/cost_critic_penalty"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(mistake, configure, monkeypatch):
    case, change, shows_in = MISTAKES[mistake]
    name, overrides = CASES[case]
    monkeypatch.setattr(availability, "is_available", lambda: False)
    if callable(change):
        change(monkeypatch)
        change = ""
    failures = compare(case, play(case, configure(name, overrides, change)))
    assert any(key.startswith(shows_in) for key in failures)
