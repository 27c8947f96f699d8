# SPDX-License-Identifier: Apache-2.0
"""wgangp_image64.py, and the preset wgan_lab of wgangp_mnist.py: settings and short runs."""

import json

import numpy as np
import paddle
import pytest
from picture_folder import noise
from picture_folder import write_folder
from PIL import Image
from trainings import read_records

import wgangp_image64
import wgangp_mnist
from data import streams
from modes import evaluate as evaluating
from modes.evaluate import evaluate
from modes.infer import infer
from modes.train import train
from networks.dcgan import Dcgan64Discriminator
from networks.dcgan import Dcgan64Generator
from networks.normalisation import BatchNorm
from networks.normalisation import LayerNorm
from networks.resnet64 import Resnet64Discriminator
from networks.resnet64 import Resnet64Generator
from networks.wgan_lab import WganLabDiscriminator
from networks.wgan_lab import WganLabGenerator
from support import weight_files
from support.errors import UserError
from training import checkpoints

TINY = (
    "MODEL.gen_net.dim=4 MODEL.dis_net.dim=4 TRAIN.batch_size=4 TRAIN.epochs=1 "
    "TRAIN.iters_per_epoch=2 TRAIN.eval_freq=1 log_freq=1 EVAL.inception=false "
    "TRAIN.eval_num_samples=50 EVAL.num_samples=50 MODEL.use_label=true"
)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "pictures")


@pytest.mark.parametrize("classes", [0, 7])
@pytest.mark.parametrize(
    ("arch", "networks"),
    [
        ("dcgan", (Dcgan64Generator, Dcgan64Discriminator)),
        ("resnet", (Resnet64Generator, Resnet64Discriminator)),
    ],
)
def test_settings_reach_the_networks(arch, networks, classes, configure):
    settings = (
        f"MODEL.arch={arch} MODEL.use_label={classes > 0} MODEL.num_classes={classes or 10} "
        "MODEL.gen_net.dim=2 MODEL.gen_net.noise_dim=6 MODEL.dis_net.dim=1"
    )
    found = wgangp_image64.Image64(configure("image64", settings)).make_networks()
    assert tuple(type(network) for network in found) == networks
    generator, critic = found
    assert (generator.noise_dim, generator.num_classes) == (6, classes)
    expected = networks[0](2, 6, classes), networks[1](1, num_classes=classes)
    for network, other in zip(found, expected):
        shapes = {name: value.shape for name, value in network.state_dict().items()}
        assert shapes == {name: value.shape for name, value in other.state_dict().items()}
    _, logits = critic.score(paddle.randn([2, 3, 64, 64]))
    assert logits.shape == [2, classes] if classes else logits is None


@pytest.mark.parametrize("arch", ["dcgan", "resnet"])
@pytest.mark.parametrize(
    ("setting", "norm"),
    [("", LayerNorm), ("MODEL.dis_net.norm=batch", BatchNorm), ("MODEL.dis_net.norm=null", None)],
)
def test_critics_have_layer_normalisation_by_default(arch, setting, norm, configure):
    cfg = configure(
        "image64", f"MODEL.arch={arch} MODEL.dis_net.dim=1 MODEL.gen_net.dim=1", setting
    )
    _, critic = wgangp_image64.Image64(cfg).make_networks()
    layers = critic.sublayers()
    found = {type(layer) for layer in layers if isinstance(layer, (LayerNorm, BatchNorm))}
    assert found == ({norm} if norm else set())
    assert critic.piecewise_linear == (norm is None)


def test_the_preset_wgan_lab_has_the_settings_of_the_exercise(configure):
    cfg = configure("mnist", "preset=wgan_lab")
    settings = cfg.TRAIN
    assert cfg.LOSS.name == "wgan" and cfg.LOSS.clip == 0.01
    assert settings.optimizer == settings.critic_optimizer == "RMSProp"
    assert settings.learning_rate == settings.critic_learning_rate == 5e-5
    assert (settings.batch_size, settings.n_critic) == (128, 5)
    assert (cfg.MODEL.arch, cfg.MODEL.dis_net.norm) == ("wgan_lab", "batch")
    rows = settings.epochs * settings.iters_per_epoch * settings.n_critic * settings.batch_size
    assert rows / 50_000 == pytest.approx(30, rel=0.01)
    assert settings.epochs == 4  # Each quarter of the run ends with a picture.
    generator, critic = wgangp_mnist.Mnist(cfg).make_networks()
    for network, expected in ((generator, WganLabGenerator()), (critic, WganLabDiscriminator())):
        assert type(network) is type(expected)
        shapes = {name: value.shape for name, value in network.state_dict().items()}
        assert shapes == {name: value.shape for name, value in expected.state_dict().items()}


@pytest.mark.parametrize(
    "overrides", ["LOSS=wgan_gp preset=wgan_lab", "preset=wgan_lab LOSS=wgan_gp"]
)
def test_an_objective_on_the_command_line_replaces_the_presets(overrides, configure):
    plain, cfg = configure("mnist"), configure("mnist", overrides)
    assert cfg.LOSS.name == "wgan_gp"
    assert (cfg.TRAIN.optimizer, cfg.TRAIN.learning_rate) == ("Adam", 1e-4)
    assert cfg.TRAIN.optimizer == plain.TRAIN.optimizer
    # The other settings are the preset's.
    assert (cfg.MODEL.arch, cfg.TRAIN.batch_size) == ("wgan_lab", 128)


def test_the_wgan_lab_trains_with_clipping(configure, tmp_path):
    cfg = configure(
        "mnist",
        "preset=wgan_lab DATA.source=digits MODEL.gen_net.dim=2 MODEL.dis_net.dim=2",
        "TRAIN.batch_size=4 TRAIN.epochs=1 TRAIN.iters_per_epoch=2 TRAIN.eval_during_train=false",
    )
    experiment = wgangp_mnist.Mnist(cfg)
    train(experiment)
    record = read_records(tmp_path)[-1]
    assert record["step"] == 2 and "gradient_norm" not in record
    _, critic = experiment.make_networks()
    weight_files.load_weights(critic, str(tmp_path / "model_discriminator"), "x")
    bounds = [np.abs(weight.numpy()).max() for weight in critic.parameters()]
    assert 0.009 < max(bounds) <= 0.01 + 1e-9


def test_settings_reach_the_reader(configure, folder):
    (folder / "dogs" / "damaged.png").write_bytes(b"nonsense")
    named = f"DATA.data_path={folder}"
    with pytest.raises(UserError, match="damaged.png can't be decoded"):
        wgangp_image64.Image64(configure("image64", named)).read_data()
    named += " DATA.on_error=skip"
    data = wgangp_image64.Image64(configure("image64", named)).read_data()
    assert data.train_images.shape == (22, 3, 64, 64)
    experiment = wgangp_image64.Image64(configure("image64", named, "DATA.crop=true"))
    data = experiment.read_data()
    assert data.train_images.shape == (22, 3, 72, 72)
    read = experiment.make_real_streams(data, None, 100, (1, 2))
    real, labels = (read[name][np.arange(30)] for name in ("real", "labels"))
    assert real.shape == (30, 3, 64, 64) and real.dtype == np.float32
    # Each cropped picture has the label of its source.
    for image, label in zip(real[:5], labels):
        middle = np.rint((image[:, 8:-8, 8:-8] + 1) * 127.5)
        matches = [
            (data.train_images[:, :, top : top + 48, left : left + 48] == middle).all((1, 2, 3))
            for top in range(8, 17)
            for left in range(8, 17)
        ]
        (row,) = np.flatnonzero(np.any(matches, 0))
        assert data.train_labels[row] == label


def test_a_wrong_number_of_classes_is_named(configure, folder):
    cfg = configure("image64", f"MODEL.use_label=true DATA.data_path={folder}")
    with pytest.raises(UserError, match="set MODEL.num_classes=3, or MODEL.use_label=false") as e:
        wgangp_image64.Image64(cfg).read_data()
    assert "3 folders" in str(e.value) and "(cats, dogs, owls)" in str(e.value)


@pytest.fixture
def numbered(tmp_path):
    """A folder of three uneven classes, whose names are numbers."""
    for name, count in (("1", 20), ("2", 10), ("10", 10)):
        (tmp_path / "numbered" / name).mkdir(parents=True)
        for number in range(count):
            picture = noise(8, 8, seed=100 * int(name) + number)
            picture.save(tmp_path / "numbered" / name / f"{number}.png")
    return tmp_path / "numbered"


def test_classes_are_kept_with_a_training_and_others_are_refused(
    configure, numbered, tmp_path, monkeypatch
):
    def make(*words):
        tiny = "MODEL.gen_net.dim=1 MODEL.dis_net.dim=1 MODEL.use_label=true MODEL.num_classes=3"
        run = "TRAIN.batch_size=2 TRAIN.epochs=1 TRAIN.iters_per_epoch=1 EVAL.inception=false"
        few = "TRAIN.eval_during_train=false EVAL.num_samples=2 INFER.num_samples=2"
        path = f"DATA.data_path={numbered}"
        return wgangp_image64.Image64(configure("image64", tiny, run, few, path, *words))

    shares, label_stream = [], streams.label_stream
    monkeypatch.setattr(
        streams, "label_stream", lambda *words: shares.append(words[3]) or label_stream(*words)
    )
    train(make())
    np.testing.assert_array_equal(shares[0], [0.5, 0.25, 0.25])  # those of the training set
    classes = ["1", "2", "10"]
    assert json.loads((tmp_path / "classes.json").read_text()) == dict(zip("012", classes))
    path = tmp_path / "checkpoints" / "iteration_1.npz"
    assert checkpoints.read(str(path)).contents["classes"] == classes

    weights = f"EVAL.pretrained_gen_model_path={tmp_path}/model_generator"
    critic = f"EVAL.pretrained_dis_model_path={tmp_path}/model_discriminator"
    evaluate(make("mode=eval", weights, critic))
    for source in (path, tmp_path / "model_generator"):
        experiment = make(f"mode=infer INFER.pretrained_model_path={source} INFER.label=10")
        infer(experiment)
        assert experiment.cfg.INFER.label == 2
        with pytest.raises(
            UserError, match="INFER.label=0 is not a class. The classes are 1, 2, 10"
        ):
            infer(make(f"mode=infer INFER.pretrained_model_path={source} INFER.label=0"))

    # Weights of earlier versions have no names: then the number of the classes counts.
    warned = []
    monkeypatch.setattr(evaluating.logger, "warning", warned.append)
    generator, _ = make().make_networks()
    weight_files.save_weights(generator, str(tmp_path / "old.pdparams"))
    old = f"EVAL.pretrained_gen_model_path={tmp_path}/old"
    evaluate(make("mode=eval", old, critic))
    assert any(
        "which classes it was trained with; they are taken to be 1, 2, 10" in w for w in warned
    )

    (numbered / "10").rename(numbered / "11")  # the same pictures under another name
    difference = "was trained with other classes.*class 2 was 10 and is 11"
    with pytest.raises(UserError, match=f"model_generator.pdparams {difference}"):
        evaluate(make("mode=eval", weights, critic))
    with pytest.raises(UserError, match=f"iteration_1.npz {difference}"):
        train(make("TRAIN.resume=auto TRAIN.epochs=2"))
    noise(8, 8).save(numbered / "owls.png")  # a class of its own
    with pytest.raises(UserError, match="old.pdparams was trained with 3 classes, .* have 4"):
        evaluate(make("mode=eval", old, critic))


def test_resnet_trains_on_cropped_pictures(configure, folder, tmp_path):
    cfg = configure(
        "image64",
        "MODEL.arch=resnet MODEL.gen_net.dim=1 MODEL.dis_net.dim=1 MODEL.use_label=true",
        f"MODEL.num_classes=3 MODEL.dis_net.norm=null DATA.data_path={folder} DATA.crop=true",
        "DATA.flip=true DATA.jitter=0.2 TRAIN.batch_size=2 TRAIN.epochs=1",
        "TRAIN.iters_per_epoch=1 TRAIN.eval_freq=1 EVAL.inception=false TRAIN.eval_num_samples=2",
    )
    train(wgangp_image64.Image64(cfg))
    record = read_records(tmp_path)[-1]
    assert record["step"] == 1 and record["gradient_norm"] > 0
    assert np.isfinite([record["test_wasserstein"], record["critic_loss"]]).all()


def test_real_pictures_train_and_evaluate(run_script, shared, tmp_path):
    settings = f"{TINY} DATA.data_path={shared('emoji64.tar')}"
    run = tmp_path / "run"
    done = run_script("image64", settings, f"hydra.run.dir={run}")
    assert "Decoding 3781 pictures" in done.stdout
    record = read_records(run)[-1]
    keys = {"test_wasserstein", "test_accuracy_real", "test_accuracy_fake"}
    assert keys <= set(record) and record["step"] == 2
    assert Image.open(run / "samples" / "iteration_2.png").size[0] > 10 * 64

    done = run_script(
        "image64",
        f"mode=eval {settings} hydra.run.dir={tmp_path}/eval",
        f"EVAL.pretrained_gen_model_path={run}/model_generator",
        f"EVAL.pretrained_dis_model_path={run}/model_discriminator",
    )
    assert "Decoding" not in done.stdout  # The decoded pictures were stored.
    report = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert set(report["metrics"]) == keys
    for key in keys:
        assert report["metrics"][key]["value"] == record[key], key
        assert report["metrics"][key]["num_samples"] == 50
    assert report["command"].startswith("python wgangp_image64.py mode=eval ")


def test_an_absent_data_path_gets_one_line(run_script, tmp_path):
    done = run_script("image64", f"{TINY} hydra.run.dir={tmp_path}/x", status=2)
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("Error: "))
    assert "DATA.data_path=PATH: a folder, a zip or a tar" in line
    assert "Traceback" not in done.stdout + done.stderr
