# SPDX-License-Identifier: Apache-2.0
"""mode=export and mode=infer, logging, and mixed precision where it has no effect."""

import json
import struct

import numpy as np
import paddle
import pytest
from PIL import Image

import functions
import wgangp_cifar10
import wgangp_image64
import wgangp_mnist
import wgangp_toy
from modes import export as exporting
from modes.export import export
from modes.export import importlib
from modes.infer import draw
from modes.infer import infer
from modes.infer import interpolate
from modes.infer import save_frames
from modes.infer import save_pictures
from modes.samplers import draw_inputs
from modes.samplers import exported_sampler
from modes.samplers import live_sampler
from modes.samplers import load
from networks import dcgan
from networks import published
from networks import resnet64
from networks import wgan_lab
from networks.normalisation import use_statistics
from support import pictures
from support import weight_files
from support.errors import UserError


def by_running(generator):
    use_statistics(generator, "running")
    return generator


GENERATORS = {
    "toy": lambda: functions.WganGpToyGenerator(8),
    "mnist": lambda: functions.WganGpMnistGenerator(2),
    "conditional": lambda: functions.WganGpCifar10Generator(4),
    "unconditional": lambda: functions.WganGpCifar10Generator(4, use_label=False),
    "running": lambda: by_running(functions.WganGpCifar10Generator(4)),
    "published": lambda: published.PublishedCifar10Generator(4),
    "lab": lambda: wgan_lab.WganLabGenerator(2),
    "lab, running": lambda: by_running(wgan_lab.WganLabGenerator(2)),
    "dcgan": lambda: dcgan.Dcgan64Generator(2, 128, 5),
    "resnet": lambda: resnet64.Resnet64Generator(2, 128, 5),
}


def has(package):
    return importlib.util.find_spec(package) is not None


@pytest.fixture
def trained(tmp_path, configure):
    """A configuration and a generator whose weights and statistics are not those of a fresh one."""

    def make(name, *overrides, experiment="mnist"):
        generator = GENERATORS[name]()
        for value in generator.state_dict().values():
            value.set_value(paddle.rand(value.shape) * 0.5 + 0.1)
        weight_files.save_weights(generator, str(tmp_path / "g.pdparams"))
        more = [f"INFER.pretrained_model_path={tmp_path}/g", f"INFER.export_path={tmp_path}/e/g"]
        return configure(experiment, *more, *overrides), GENERATORS[name]()

    return make


@pytest.mark.parametrize("name", GENERATORS)
def test_what_is_exported_gives_the_same_samples(name, trained, tmp_path):
    """`export` compares them itself; here the files are read once more, by other batches."""
    cfg, generator = trained(name)
    paddle.jit.enable_to_static(False)  # as a Solver in the same process leaves it
    export(cfg, generator)
    live = live_sampler(generator)
    engines = ["native"]
    if has("paddle2onnx") and has("onnxruntime"):
        engines.append("onnx")
        assert (tmp_path / "e" / "g.onnx").is_file()
    for engine in engines:
        sample = exported_sampler(cfg, engine)
        for count in (2, 5):
            inputs = draw_inputs(cfg, generator, count)
            assert set(inputs) == set(generator.input_keys)
            np.testing.assert_allclose(sample(inputs), live(inputs), atol=1e-4)


def test_a_place_that_cannot_be_written_to_is_named(trained, tmp_path):
    cfg, generator = trained("mnist")
    (tmp_path / "file").write_bytes(b"")
    cfg.INFER.export_path = str(tmp_path / "file" / "g")
    with pytest.raises(UserError, match="file can't be written to .*by INFER.export_path="):
        export(cfg, generator)


def test_an_export_that_differs_is_refused(trained, monkeypatch):
    cfg, generator = trained("mnist")
    monkeypatch.setattr(exporting, "live_sampler", lambda _: lambda x: np.zeros((1, 1, 28, 28)))
    with pytest.raises(UserError, match="gives other samples than the generator"):
        export(cfg, generator)


def test_an_export_that_gives_nan_is_refused(trained, monkeypatch):
    cfg, generator = trained("mnist")
    nan = np.full((1, 1, 28, 28), np.nan)
    monkeypatch.setattr(exporting, "exported_sampler", lambda *_: lambda x: nan)
    with pytest.raises(UserError, match="gives other samples than the generator, by nan"):
        export(cfg, generator)


def test_what_was_exported_by_other_settings_is_named(trained, configure):
    cfg, generator = trained("unconditional", "INFER.num_samples=3", experiment="cifar10")
    export(cfg, generator)
    settings = [f"INFER.export_path={cfg.INFER.export_path}", "INFER.num_samples=3"]
    for engine in ["native"] + ["onnx"] * (has("paddle2onnx") and has("onnxruntime")):
        for other in ([], ["MODEL.use_label=false", "MODEL.gen_net.noise_dim=64"]):
            now = configure("cifar10", "mode=infer", *settings, f"INFER.engine={engine}", *other)
            with pytest.raises(UserError, match="does not take noise .*repeat the MODEL"):
                wgangp_cifar10.infer(now)


@pytest.mark.parametrize("label", ["cat", "1.5", "true", "10", "-1"])
def test_a_label_that_cannot_be_is_refused(configure, tmp_path, label):
    weight_files.save_weights(functions.WganGpCifar10Generator(4), str(tmp_path / "c.pdparams"))
    cfg = configure(
        *("cifar10", "mode=infer", "MODEL.gen_net.dim=4", f"INFER.label={label}"),
        f"INFER.pretrained_model_path={tmp_path}/c",
    )
    with pytest.raises(UserError, match="the generator knows 10 classes, from 0 on"):
        wgangp_cifar10.infer(cfg)
    cfg.MODEL.use_label = False
    with pytest.raises(UserError, match="the generator is not conditional"):
        wgangp_cifar10.infer(cfg)


def test_samples_do_not_depend_on_how_many_are_drawn(trained):
    cfg, generator = trained("conditional", "INFER.batch_size=4")
    load(cfg, generator)
    sample = live_sampler(generator)
    few = draw(cfg, generator, sample, 3, None)
    many = draw(cfg, generator, sample, 9, None)
    assert few.shape == (3, 3, 32, 32) and many.shape == (9, 3, 32, 32)
    np.testing.assert_array_equal(few, many[:3])


@pytest.mark.parametrize("statistics", ["batch", "running"])
@pytest.mark.parametrize(
    ("script", "arch"),
    [(wgangp_mnist, "wgan_lab"), (wgangp_image64, "dcgan"), (wgangp_image64, "resnet")],
)
def test_by_running_averages_a_sample_does_not_depend_on_its_neighbours(
    script, arch, statistics, configure
):
    settings = [f"MODEL.arch={arch}", "MODEL.gen_net.dim=2", f"EVAL.batch_norm={statistics}"]
    cfg = configure(script.__name__.replace("wgangp_", ""), *settings, "MODEL.dis_net.dim=2")
    generator = script.make_networks(cfg)[0]
    generator.eval()
    noise = paddle.randn([3, generator.noise_dim])
    one, other = (generator.generate(noise[rows])[0].numpy() for rows in ([0, 1], [0, 2]))
    assert (np.abs(one - other).max() < 1e-5) == (statistics == "running")


def test_infer_writes_pictures_of_a_class_and_a_strip(trained, tmp_path):
    cfg, generator = trained(
        *("conditional", "INFER.num_samples=11", "INFER.label=3", "INFER.frames=5"),
        experiment="cifar10",
    )
    seen, generate, drawn = [], generator.generate, []

    def watched(noise, labels):
        seen.append(labels.numpy())
        drawn.append(generate(noise, labels))
        return drawn[-1]

    generator.generate = watched
    infer(cfg, generator, lambda x, folder: save_pictures(x, folder, generator.low))
    assert all((labels == 3).all() for labels in seen)
    assert len(seen[-1]) == 5 + cfg.INFER.batch_size  # frames, among others for normalisation
    written = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert written == [f"{number:02d}.png" for number in range(11)]
    assert Image.open(tmp_path / "pictures" / "00.png").size == (32, 32)
    assert Image.open(tmp_path / "samples.png").size[0] > 320
    strip = np.array(Image.open(tmp_path / "interpolation.png")).transpose(2, 0, 1)
    assert strip.shape == (3, 36, 5 * 34 + 2)
    frames = pictures.to_uint8(drawn[-1][:5].numpy(), generator.low)
    for number, frame in enumerate(frames):
        left = 2 + 34 * number
        np.testing.assert_array_equal(strip[:, 2:34, left : left + 32], frame)
    assert (tmp_path / "interpolation.gif").is_file()


def test_a_strip_goes_there_and_back(tmp_path):
    frames = np.arange(0, 250, 50, "uint8").reshape([5, 1, 1, 1]).repeat(3, 1)
    save_frames(frames, str(tmp_path), enlarge=8)
    animation, seen = Image.open(tmp_path / "interpolation.gif"), []
    for number in range(animation.n_frames):
        animation.seek(number)
        seen.append(animation.convert("L").getpixel((0, 0)))
    assert seen == [0, 50, 100, 150, 200, 150, 100, 50]


def test_interpolation_keeps_its_ends_and_the_length():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, 128)).astype("float32")
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    between = interpolate({"noise": noise, "labels": np.array([4, 4])}, 7)
    np.testing.assert_allclose(between["noise"][[0, -1]], noise, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(between["noise"], axis=1), 1, atol=1e-5)
    steps = np.linalg.norm(np.diff(between["noise"], axis=0), axis=1)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)
    assert between["labels"].tolist() == [4] * 7


def test_digits_and_points(configure, tmp_path):
    generator = functions.WganGpMnistGenerator(2)
    weight_files.save_weights(generator, str(tmp_path / "m.pdparams"))
    tiny = ["MODEL.gen_net.dim=2", f"INFER.pretrained_model_path={tmp_path}/m"]
    wgangp_mnist.infer(configure("mnist", *tiny, "INFER.num_samples=3", "INFER.frames=2"))
    assert Image.open(tmp_path / "pictures" / "2.png").mode == "L"
    weight_files.save_weights(functions.WganGpToyGenerator(4), str(tmp_path / "t.pdparams"))
    tiny = ["MODEL.gen_net.dim=4", f"INFER.pretrained_model_path={tmp_path}/t"]
    wgangp_toy.infer(configure("toy", *tiny, "INFER.num_samples=30"))
    assert np.loadtxt(tmp_path / "points.csv", delimiter=",", skiprows=1).shape == (30, 2)
    with pytest.raises(UserError, match="for pictures"):
        wgangp_toy.infer(configure("toy", *tiny, "INFER.frames=3"))


def test_what_is_absent_or_damaged_is_named(configure, tmp_path):
    cfg = configure("mnist", f"INFER.export_path={tmp_path}/none", "mode=infer")
    with pytest.raises(UserError, match="there is no .*none.json. Write it by mode=export"):
        wgangp_mnist.infer(cfg)
    with pytest.raises(UserError, match="mode=export wants a trained generator"):
        wgangp_mnist.export(configure("mnist", "mode=export"))
    for suffix in ("json", "pdiparams", "onnx"):
        (tmp_path / f"none.{suffix}").write_bytes(b"nonsense")
    engines = ["native"] + ["onnx"] * has("onnxruntime")
    for engine in engines:
        cfg.INFER.engine = engine
        with pytest.raises(UserError, match="can't be read .*Export it anew"):
            wgangp_mnist.infer(cfg)


def test_the_commands(run_script, tmp_path):
    weight_files.save_weights(
        wgangp_cifar10.functions.WganGpCifar10Generator(4), f"{tmp_path}/c.pdparams"
    )
    settings = ["MODEL.gen_net.dim=4", f"INFER.export_path={tmp_path}/out/c"]
    done = run_script(
        *("cifar10", "mode=export", *settings, f"hydra.run.dir={tmp_path}/1"),
        f"INFER.pretrained_model_path={tmp_path}/c",
    )
    assert "its samples are the generator's" in done.stdout
    run_script(
        *("cifar10", "mode=infer", *settings, f"hydra.run.dir={tmp_path}/2"),
        *("INFER.num_samples=3", "INFER.label=7"),
    )
    assert len(list((tmp_path / "2" / "pictures").iterdir())) == 3


TINY = ["DATA.source=digits", "MODEL.gen_net.dim=2", "MODEL.dis_net.dim=2", "TRAIN.batch_size=4"]
TINY += ["TRAIN.epochs=2", "TRAIN.iters_per_epoch=2", "TRAIN.eval_during_train=false"]


def events(folder):
    """Tags and steps of TensorBoard's files: records of length, checksum, bytes, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in folder.iterdir():
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            found += [(value.tag, event.step) for value in event.summary.value]
            content = content[16 + length :]
    return found


def test_tensorboard_has_the_records_and_the_pictures(configure, tmp_path):
    pytest.importorskip("tensorboardX")
    wgangp_mnist.train(configure("mnist", *TINY, "use_tbd=true"))
    found = events(tmp_path / "tensorboard")
    assert [step for tag, step in found if tag == "samples"] == [0, 2, 4]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in lines]
    for tag in ("wasserstein", "critic_loss", "gradient_norm", "learning_rate"):
        assert [step for name, step in found if name == tag] == steps


def test_a_writer_that_is_not_installed_is_named(configure, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="use_vdl=true needs pip install visualdl"):
        wgangp_mnist.train(configure("mnist", *TINY, "use_vdl=true"))


def test_the_penalty_is_taken_out_of_mixed_precision(monkeypatch):
    states = []

    class Watched:
        def __init__(self, enable=True, **_):
            self.enable = enable

        def __enter__(self):
            states.append(self.enable)

        def __exit__(self, *_):
            states.append(None)

    monkeypatch.setattr(paddle.amp, "auto_cast", Watched)
    critic = functions.WganGpToyDiscriminator(4)
    inside = []

    def penalty(norm):
        inside.append(states[-1])
        return functions.gradient_penalty(norm)

    objective = wgangp_toy.adversarial.objectives.Objective(
        *(lambda real, fake: fake.mean() - real.mean(), None), penalty, 1.0
    )
    points = paddle.randn([3, 2])
    functions.CriticLoss(critic, objective)(
        {**critic({"real": points}), "real": points, "fake": points + 1, "alpha": paddle.rand([3])}
    )
    assert inside[0] is False
