# SPDX-License-Identifier: Apache-2.0
"""mode=export: every generator as a static program and as ONNX, with the same samples."""

import importlib.util

import numpy as np
import paddle
import pytest
from helpers import GENERATORS

import functions
import wgangp_cifar10
import wgangp_mnist
from modes import export as exporting
from modes.export import export
from modes.infer import infer
from modes.samplers import draw_inputs
from modes.samplers import exported_sampler
from modes.samplers import live_sampler
from networks.normalisation import use_statistics
from support import weight_files
from support.errors import UserError

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("paddle2onnx", "onnxruntime"))
ENGINES = ["native", "onnx"] if HAS_ONNX else ["native"]


def make_trained(case, statistics="batch"):
    """A generator whose weights and statistics are not those of a fresh one."""
    generator = case.make()
    use_statistics(generator, statistics)
    for value in generator.state_dict().values():
        value.set_value(paddle.rand(value.shape) * 0.5 + 0.1)
    generator.eval()
    return generator


@pytest.fixture
def trained(tmp_path, configure):
    """An experiment whose INFER section names trained weights."""

    def make(script, generator, overrides=""):
        weight_files.save_weights(generator, str(tmp_path / "g.pdparams"))
        paths = f"INFER.pretrained_model_path={tmp_path}/g INFER.export_path={tmp_path}/e/g"
        experiments = {"mnist": wgangp_mnist.Mnist, "cifar10": wgangp_cifar10.Cifar10}
        return experiments[script](configure(script, paths, overrides))

    return make


CASES = [
    (name, statistics)
    for name, case in GENERATORS.items()
    for statistics in (("batch", "running") if case.has_batch_norm else ("batch",))
]


@pytest.mark.parametrize(("name", "statistics"), CASES)
def test_exported_programs_give_the_same_samples(name, statistics, tmp_path):
    """`export` compares them itself; here the files are read once more, with other batches."""
    generator, path = make_trained(GENERATORS[name], statistics), str(tmp_path / "g")
    exporting.write_program(generator, path)
    if HAS_ONNX:
        exporting.write_onnx(path)
    live = live_sampler(generator)
    for engine in ENGINES:
        sample = exported_sampler(path, engine)
        for count in (2, 5):
            inputs = draw_inputs(generator, count, seed=1)
            assert set(inputs) == set(generator.input_keys)
            np.testing.assert_allclose(sample(inputs), live(inputs), atol=1e-4)


@pytest.mark.parametrize("is_enabled", [True, False])
def test_exporting_leaves_to_static_as_it_was(is_enabled, tmp_path, monkeypatch):
    """A Solver disables it for the whole process, and others may have enabled it."""
    from paddle.jit.dy2static.program_translator import ProgramTranslator

    generator = make_trained(GENERATORS["toy"])
    before = ProgramTranslator.get_instance().enable_to_static
    paddle.jit.enable_to_static(is_enabled)
    try:
        exporting.write_program(generator, str(tmp_path / "g"))
        assert ProgramTranslator.get_instance().enable_to_static == is_enabled

        def fail(*_):
            raise OSError("no space")

        monkeypatch.setattr(paddle.jit, "save", fail)
        with pytest.raises(OSError, match="no space"):
            exporting.write_program(generator, str(tmp_path / "h"))
        assert ProgramTranslator.get_instance().enable_to_static == is_enabled
    finally:
        paddle.jit.enable_to_static(before)


def test_export_writes_and_verifies(trained, tmp_path):
    generator = make_trained(GENERATORS["mnist"])
    export(trained("mnist", generator, "mode=export MODEL.gen_net.dim=2"))
    names = {path.name for path in (tmp_path / "e").iterdir()}
    assert {"g.json", "g.pdiparams"} <= names
    assert ("g.onnx" in names) == HAS_ONNX


def test_a_place_that_cannot_be_written_to_is_named(trained, tmp_path):
    experiment = trained("mnist", make_trained(GENERATORS["mnist"]), "MODEL.gen_net.dim=2")
    (tmp_path / "file").write_bytes(b"")
    experiment.cfg.INFER.export_path = str(tmp_path / "file" / "g")
    with pytest.raises(UserError, match="file can't be written to .*with INFER.export_path="):
        export(experiment)


def test_an_export_that_differs_is_refused(trained, monkeypatch):
    experiment = trained("mnist", make_trained(GENERATORS["mnist"]), "MODEL.gen_net.dim=2")
    monkeypatch.setattr(exporting, "live_sampler", lambda _: lambda x: np.zeros((1, 1, 28, 28)))
    with pytest.raises(UserError, match="gives other samples than the generator"):
        export(experiment)


def test_an_export_that_gives_nan_is_refused(trained, monkeypatch):
    experiment = trained("mnist", make_trained(GENERATORS["mnist"]), "MODEL.gen_net.dim=2")
    nan = np.full((1, 1, 28, 28), np.nan)
    monkeypatch.setattr(exporting, "exported_sampler", lambda *_: lambda x: nan)
    with pytest.raises(UserError, match="other samples than the generator: they differ by nan"):
        export(experiment)


def test_an_export_of_other_settings_is_named(trained, configure):
    generator = make_trained(GENERATORS["cifar10 no label"])
    width = "MODEL.gen_net.dim=4 INFER.num_samples=3"
    experiment = trained("cifar10", generator, f"mode=export {width} MODEL.use_label=false")
    export(experiment)
    path = experiment.cfg.INFER.export_path
    for engine in ENGINES:
        for other in ("", "MODEL.use_label=false MODEL.gen_net.noise_dim=64"):
            settings = f"mode=infer {width} INFER.export_path={path} INFER.engine={engine} {other}"
            with pytest.raises(UserError, match="does not take noise .*repeat the MODEL"):
                infer(wgangp_cifar10.Cifar10(configure("cifar10", settings)))


def test_exported_files_that_are_absent_or_damaged_are_named(configure, tmp_path):
    settings = f"mode=infer INFER.export_path={tmp_path}/none"
    experiment = wgangp_mnist.Mnist(configure("mnist", settings))
    with pytest.raises(UserError, match="there is no .*none.json. Write it with mode=export"):
        infer(experiment)
    with pytest.raises(UserError, match="mode=export needs a trained generator"):
        export(wgangp_mnist.Mnist(configure("mnist", "mode=export")))
    for suffix in ("json", "pdiparams", "onnx"):
        (tmp_path / f"none.{suffix}").write_bytes(b"nonsense")
    for engine in ENGINES:
        experiment.cfg.INFER.engine = engine
        with pytest.raises(UserError, match="can't be read .*Export it again"):
            infer(experiment)


def test_the_commands_export_and_infer(run_script, tmp_path):
    weight_files.save_weights(functions.WganGpCifar10Generator(4), f"{tmp_path}/c.pdparams")
    settings = f"MODEL.gen_net.dim=4 INFER.export_path={tmp_path}/out/c"
    weights = f"INFER.pretrained_model_path={tmp_path}/c"
    done = run_script("cifar10", f"mode=export {settings} {weights} hydra.run.dir={tmp_path}/1")
    assert "its samples differ from the generator's by at most" in done.stdout
    sizes = f"INFER.num_samples=3 INFER.label=7 hydra.run.dir={tmp_path}/2"
    run_script("cifar10", f"mode=infer {settings} {sizes}")
    assert len(list((tmp_path / "2" / "pictures").iterdir())) == 3
