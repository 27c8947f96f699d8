# SPDX-License-Identifier: Apache-2.0
"""The programs that draw the pages' figures, on tiny runs."""

import itertools
import json
from xml.etree import ElementTree

import critic_balance
import data_flow
import figure_style
import gallery
import gallery_runs
import mistakes
import numpy as np
import paddle
import penalty_geometry
import pytest
import real_and_generated
import real_samples
from fabricated_runs import make_training
from matplotlib.colors import to_rgb
from test_data import write_mnist

import functions
from data import synthetic
from support.pictures import read_picture


def has_colour(picture, colour):
    """Whether at least twenty pixels have a colour."""
    return (np.abs(picture - 255 * np.array(to_rgb(colour))).max(2) < 8).sum() >= 20


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    monkeypatch.setattr(figure_style, "DPI", 80)


@pytest.fixture
def run(tmp_path):
    """A toy run whose critic is at its optimum from the second record on."""
    folder = make_training(tmp_path / "run")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for number, record in enumerate(records):
        penalty, norm = 0.5 + number, 2.0
        record |= {"gradient_penalty": penalty, "gradient_norm": norm, "critic_balance": 1.0}
        record["wasserstein"] = 0.2 * (penalty + norm - 1)  # lambda is 0.1
    text = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "metrics.jsonl").write_text(text)
    return figure_style.read_run(folder)


def test_the_data_flow_is_current():
    picture = data_flow.PICTURE.read_text(encoding="utf-8")
    assert picture == data_flow.draw()
    ElementTree.fromstring(picture)
    for box in (s for s in data_flow.critic_step() if isinstance(s, data_flow.Box)):
        assert box.width / 2 <= box.x <= data_flow.WIDTH - box.width / 2


def test_both_sides_of_the_identity_agree_at_an_optimum(run, tmp_path):
    estimates = figure_style.select(run, "wasserstein")[1]
    np.testing.assert_allclose(critic_balance.optimal_estimates(run), estimates)
    critic_balance.draw(run, tmp_path / "balance.png")
    picture = read_picture(str(tmp_path / "balance.png"))
    assert picture.shape[1] == figure_style.DPI * figure_style.WIDTH
    assert has_colour(picture, figure_style.BLUE) and has_colour(picture, figure_style.ORANGE)


def test_another_objective_has_no_identity(tmp_path, monkeypatch, capsys):
    folder = make_training(tmp_path / "run", {"LOSS.name": "gan"})
    monkeypatch.setattr("sys.argv", ["critic_balance.py", str(folder)])
    with pytest.raises(SystemExit) as caught:
        critic_balance.main()
    assert caught.value.code == 2 and "LOSS=wgan_gp" in capsys.readouterr().err


def test_the_gallery_shows_curves_and_the_last_samples(run, tmp_path):
    folder = figure_style.Path(run.folder)
    step, samples = gallery.read_last_samples(folder)
    assert (step, samples.shape) == (1500, (24, 36, 3))  # the upper left part of 40x60
    assert (samples == 250).all()
    pictures = []
    for other in (None, run):
        gallery.draw(run, other, gallery.PANELS["healthy"], tmp_path / "gallery.png")
        pictures.append(read_picture(str(tmp_path / "gallery.png")))
        assert has_colour(pictures[-1], figure_style.BLUE)
    assert [has_colour(picture, figure_style.GREEN) for picture in pictures] == [False, True]
    assert set(gallery.PANELS) == set(gallery_runs.RUNS)


def test_the_runs_of_the_gallery_can_be_trained(tmp_path, check_command):
    for name in ("weak_critic", "one_axis", "gan_collapse"):  # They have all keys of the others.
        program, *words = gallery_runs.make_command(name, tmp_path / "m.pkl.gz", tmp_path)[1:]
        if name == gallery_runs.MISTAKE:
            assert program.endswith("gallery_runs.py") and words.pop(0) == "--mistake"
        check_command(" ".join(["wgangp_mnist.py", *words]))


def test_few_digits_are_trained_on_and_all_are_tested(tmp_path):
    rng = np.random.default_rng(0)
    sizes = (gallery_runs.COUNT + 5, 1, 7)
    rows = [rng.integers(256, size=(size, 784)).astype("float32") / 256 for size in sizes]
    write_mnist(tmp_path / "m.pkl.gz", tuple((r, rng.integers(10, size=len(r))) for r in rows))
    gallery_runs.write_few(tmp_path / "m.pkl.gz", tmp_path / "few.pkl.gz")
    whole, few = (functions.read_mnist(str(tmp_path / f"{n}.pkl.gz")) for n in ("m", "few"))
    np.testing.assert_array_equal(few.train_images, whole.train_images[: gallery_runs.COUNT])
    np.testing.assert_array_equal(few.test_images, whole.test_images)
    np.testing.assert_array_equal(few.test_labels, whole.test_labels)


def test_the_mistake_of_the_gallery_reaches_the_loss(monkeypatch):
    monkeypatch.setattr(functions, "gradient_norm", mistakes.norm_over_one_axis)
    critic = functions.WganGpMnistDiscriminator(2)
    objective = penalty_geometry.OBJECTIVE
    loss = functions.CriticLoss(critic, objective, penalty_gradient="double_backward")
    real, fake = paddle.rand([3, 1, 28, 28]), paddle.rand([3, 1, 28, 28])
    alpha = paddle.rand([3])
    loss({**critic({"real": real}), "real": real, "fake": fake, "alpha": alpha})
    mixed = functions.interpolate(real, fake, alpha).numpy()
    found = loss.mean_figures()["gradient_norm"]
    assert found == pytest.approx(np.abs(penalty_geometry.gradients(critic, mixed)).mean(), rel=0.1)


def test_points_are_paired_as_optimal_transport_pairs_them():
    rng = np.random.default_rng(0)
    real, fake = rng.standard_normal((2, 5, 2))
    orders = map(list, itertools.permutations(range(5)))
    costs = [np.linalg.norm(real - fake[order], axis=1).sum() for order in orders]
    paired = penalty_geometry.pair_optimally(real, fake)
    assert np.linalg.norm(real - paired, axis=1).sum() == pytest.approx(min(costs))


def test_the_geometry_of_the_penalty_is_drawn(tmp_path):
    critic = penalty_geometry.train_critic(steps=2, width=4)
    points = np.random.default_rng(0).standard_normal((5, 2)).astype("float32")
    norms = np.linalg.norm(penalty_geometry.gradients(critic, points), axis=1)
    expected = functions.gradient_norm(critic, paddle.to_tensor(points)).numpy()
    np.testing.assert_allclose(norms, expected, rtol=1e-4, atol=2e-6)
    penalty_geometry.draw(critic, tmp_path / "geometry.png")
    picture = read_picture(str(tmp_path / "geometry.png"))
    assert has_colour(picture, figure_style.GREEN) and has_colour(picture, figure_style.ORANGE)


def test_generated_samples_are_drawn_below_real_ones(tmp_path):
    experiment = real_and_generated.make_experiment("wgangp_toy", [])
    experiment.cfg.INFER.pretrained_model_path = "toy_8gaussians"
    title, (real, fake) = real_and_generated.draw_samples(experiment)
    assert title == "8gaussians" and real.shape == fake.shape
    # both lie on a ring of radius sqrt(2)
    for points in (real, fake):
        assert abs(np.median(np.linalg.norm(points, axis=1)) - 2**0.5) < 0.1
    digits = np.full((2, 36, 3, 32, 32), 128, "uint8")
    columns = [(title, (real, fake)), ("digits", tuple(digits))]
    real_and_generated.draw(columns, tmp_path / "both.png")
    picture = read_picture(str(tmp_path / "both.png"))
    rows = [
        np.flatnonzero((np.abs(picture - 255 * np.array(to_rgb(c))).max(2) < 40).any(1)).mean()
        for c in (figure_style.ORANGE, figure_style.GREEN)
    ]
    assert rows[0] < len(picture) / 2 < rows[1]


def test_real_samples_have_a_column_for_each_class():
    digits = synthetic.digits_set()
    grid = real_samples.make_class_grid(digits)
    assert len(grid) == 1 + 29 * real_samples.ROWS
    for label in range(10):
        first = digits.train_images[digits.train_labels == label][0, 0]
        np.testing.assert_array_equal(grid[1:29, 1 + 29 * label : 29 * (label + 1), 0], first)
