# SPDX-License-Identifier: Apache-2.0
"""mode=export: the static program and ONNX of every generator give the same samples."""

import errno
import hashlib
import importlib.util
import os
import resource
import shutil

import numpy as np
import paddle
import pytest
from helpers import GENERATORS
from plain import randomise

import functions
import wgangp_cifar10
import wgangp_mnist
from modes import export as exporting
from modes import exported_files
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
    """A generator whose weights and statistics differ from a new one's."""
    generator = randomise(case.make(), gain=1.5)
    generator.train()
    for seed in range(5 if statistics == "running" else 0):
        inputs = draw_inputs(generator, 8, seed)
        generator({name: paddle.to_tensor(value) for name, value in inputs.items()})
    use_statistics(generator, statistics)
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
    # Those of labels and of attention hold all that a plain one has.
    if name != "resnet64" and (name, statistics) != ("resnet64 attention", "batch")
]


@pytest.mark.parametrize(("name", "statistics"), CASES)
def test_exported_programs_give_the_same_samples(name, statistics, tmp_path):
    """`export` compares them itself; this test reads the files again, with other batches."""
    generator, path = make_trained(GENERATORS[name], statistics), str(tmp_path / "g")
    exporting.write_program(generator, path)
    if HAS_ONNX:
        exporting.write_onnx(path)
    live = live_sampler(generator)
    samples, others = (live(draw_inputs(generator, 5, seed)) for seed in (1, 2))
    # Samples that are saturated, or the same for any noise, would hide a mistake.
    assert samples.std() > 0.05 and np.abs(samples - others).mean() > 0.02
    for engine in ENGINES:
        sample = exported_sampler(path, engine)
        for count in (2, 5):
            inputs = draw_inputs(generator, count, seed=1)
            assert set(inputs) == set(generator.input_keys)
            np.testing.assert_allclose(sample(inputs), live(inputs), atol=1e-4)


@pytest.mark.parametrize("is_enabled", [True, False])
def test_enable_to_static_is_restored_after_an_export(is_enabled, tmp_path, monkeypatch):
    """A Solver disables it for the whole process, and other code may have enabled it."""
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


def test_export_writes_the_program_and_onnx(trained, tmp_path):
    generator = make_trained(GENERATORS["mnist"])
    export(trained("mnist", generator, "mode=export MODEL.gen_net.dim=2"))
    names = {path.name for path in (tmp_path / "e").iterdir()}
    onnx = {"g.onnx"} if HAS_ONNX else set()
    assert names == {"g.json", "g.pdiparams", "g.settings", "g.sha256"} | onnx


def test_export_computes_on_the_cpu(trained, monkeypatch):
    """Products on a GPU may be less exact than those of the program that is compared."""
    experiment = trained("mnist", make_trained(GENERATORS["mnist"]), "MODEL.gen_net.dim=2")
    calls = []
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle, "set_device", calls.append)
    monkeypatch.setattr(exporting, "load_generator", lambda _: calls.append("load") or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(experiment)
    assert calls == ["cpu", "load", "gpu:0"]


@pytest.fixture
def make_export(trained, configure, tmp_path):
    """Exports a digits' generator to e/g; returns the experiments of mode=export and mode=infer."""

    def make(overrides=""):
        settings = f"MODEL.gen_net.dim=2 {overrides}"
        exporting_one = trained("mnist", make_trained(GENERATORS["mnist"]), settings)
        export(exporting_one)
        settings += f" mode=infer INFER.export_path={tmp_path}/e/g INFER.num_samples=2"
        return exporting_one, wgangp_mnist.Mnist(configure("mnist", settings))

    return make


def read_folder(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_export_has_the_checksum_of_each_file(make_export, tmp_path):
    make_export()
    files = read_folder(tmp_path / "e")
    lines = files.pop("g.sha256").decode().splitlines()
    assert len(files) == (4 if HAS_ONNX else 3)
    assert lines == [f"{hashlib.sha256(files[name]).hexdigest()}  {name}" for name in sorted(files)]


@pytest.mark.parametrize("way", ["cut", "flipped", "longer", "empty"])
def test_a_damaged_export_is_refused_before_it_is_read(way, make_export, tmp_path, monkeypatch):
    _, inferring = make_export()

    def never(*_):
        raise AssertionError("it was read")

    monkeypatch.setattr(paddle.jit, "load", never)
    ways = {
        "cut": lambda content: content[:-100],
        "flipped": lambda content: content[:50] + bytes([content[50] ^ 1]) + content[51:],
        "longer": lambda content: content + b"\n",
        "empty": lambda content: b"",
    }
    for engine in ENGINES:
        for suffix in exported_files.SUFFIXES[engine]:
            path = tmp_path / "e" / f"g{suffix}"
            whole = path.read_bytes()
            path.write_bytes(ways[way](whole))
            inferring.cfg.INFER.engine = engine
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            with pytest.raises(UserError, match=f"g{suffix} has the SHA-256 {digest}, but .*"):
                infer(inferring)
            path.write_bytes(whole)


@pytest.mark.parametrize("former", ["nothing", "unchecked", "checked"])
def test_a_killed_export_is_not_accepted(former, make_export, tmp_path, monkeypatch):
    """Its files are moved one after another; a kill between them leaves old and new ones."""
    exporting_one, inferring = make_export()
    folder, moves = tmp_path / "e", len(read_folder(tmp_path / "e"))
    weights = make_trained(GENERATORS["mnist"])
    weight_files.save_weights(weights, exporting_one.cfg.INFER.pretrained_model_path + ".pdparams")
    for suffix in () if former == "checked" else (".sha256",):
        os.remove(f"{folder}/g{suffix}")
    old = {} if former == "nothing" else read_folder(folder)
    exporting_one.cfg.MODEL.dis_net.dim += 1  # else the old file of settings would be right
    replace, done = os.replace, []

    def replace_some(source, target):
        if len(done) == killed:
            raise SystemExit
        done.append(target)
        replace(source, target)

    for killed in range(moves):
        shutil.rmtree(folder)
        folder.mkdir()
        for name, content in old.items():
            (folder / name).write_bytes(content)
        done.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace_some)
            with pytest.raises(SystemExit):
                export(exporting_one)
        assert len(done) == killed
        if killed == 0:  # Nothing has been moved.
            assert read_folder(folder) == old
            continue
        with pytest.raises(UserError, match="is not complete"):
            infer(inferring)
    export(exporting_one)
    infer(inferring)


def test_a_failed_export_leaves_the_former_one(make_export, tmp_path, monkeypatch):
    exporting_one, inferring = make_export()
    old = read_folder(tmp_path / "e")
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "live_sampler", lambda _: lambda x: np.zeros((1, 1, 28, 28)))
        with pytest.raises(UserError, match="Nothing was exported"):
            export(exporting_one)
    assert read_folder(tmp_path / "e") == old
    infer(inferring)


def test_files_that_a_killed_export_left_are_removed(make_export, tmp_path):
    left, other = (tmp_path / "e" / f".{name}.a_1bcdef.partial" for name in ("g", "g.h"))
    for folder in (left, other):
        folder.mkdir(parents=True)
        (folder / "g.json").write_bytes(b"half")
    make_export()
    assert not left.exists() and other.exists()


def test_a_folder_in_the_place_of_a_file_is_named(make_export, tmp_path):
    (tmp_path / "e" / "g.pdiparams").mkdir(parents=True)
    with pytest.raises(UserError, match="e can't be written to .*Is a directory: .*g.pdiparams"):
        make_export()
    assert [path.name for path in (tmp_path / "e").iterdir()] == ["g.pdiparams"]


def test_a_full_disk_is_named(trained, tmp_path, monkeypatch):
    """Paddle leaves a short file then, and reports nothing."""
    experiment = trained("mnist", make_trained(GENERATORS["mnist"]), "MODEL.gen_net.dim=2")
    save = paddle.jit.save

    def save_some(program, path):
        save(program, path)
        os.truncate(f"{path}.pdiparams", 1000)

    def fail(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(paddle.jit, "save", save_some)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match="e can't be written to .*No space left on device.*Free"):
        export(experiment)
    assert read_folder(tmp_path / "e") == {}


def test_an_error_of_cuda_is_not_taken_for_a_full_disk(make_export, monkeypatch):
    """Paddle raises CUDA's errors as OSError without a number."""

    def fail(*_):
        raise OSError("(External) CUDA error(700)")

    monkeypatch.setattr(exporting, "write_program", fail)
    with pytest.raises(OSError, match="CUDA error"):
        make_export()


def test_a_limit_on_the_size_of_files_is_named(trained, tmp_path):
    """To Paddle, the limit is what a full disk is."""
    experiment = trained("mnist", make_trained(GENERATORS["mnist"]), "MODEL.gen_net.dim=2")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))
    try:
        with pytest.raises(UserError, match="e can't be written to .*File too large"):
            export(experiment)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_folder(tmp_path / "e") == {}


def test_an_export_without_checksums_is_read_with_a_warning(make_export, tmp_path, monkeypatch):
    """Earlier versions wrote none."""
    _, inferring = make_export()
    os.remove(tmp_path / "e" / "g.sha256")
    warnings = []
    monkeypatch.setattr(exported_files.logger, "warning", warnings.append)
    infer(inferring)
    (text,) = warnings
    assert "g.sha256 is absent" in text and "Export again to get checksums" in text
    os.remove(tmp_path / "e" / "g.pdiparams")
    with pytest.raises(UserError, match="is not complete: there is no .*g.pdiparams"):
        infer(inferring)


def test_an_exported_file_that_is_too_large_is_not_read(make_export, tmp_path):
    _, inferring = make_export()
    os.truncate(tmp_path / "e" / "g.pdiparams", 1 << 40)  # sparse
    with pytest.raises(UserError, match="g.pdiparams is larger than 2 GiB, the limit for exported"):
        infer(inferring)


def test_files_of_different_exports_are_refused(make_export, tmp_path, monkeypatch):
    """The later export has no ONNX, and leaves that of the earlier one."""
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "g.onnx").write_bytes(b"earlier")
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        _, inferring = make_export()
    inferring.cfg.INFER.engine = "onnx"
    with pytest.raises(UserError, match="g.sha256 has no checksum of .*g.onnx: .*another export"):
        infer(inferring)
    os.remove(tmp_path / "e" / "g.onnx")
    with pytest.raises(UserError, match="there is no .*g.onnx. Write it with mode=export"):
        infer(inferring)
    (tmp_path / "e" / "g.sha256").write_bytes(bytes(1 << 21))
    inferring.cfg.INFER.engine = "native"
    with pytest.raises(UserError, match="g.sha256 is not a file of checksums"):
        infer(inferring)


def test_the_log_names_the_checksums_of_weights_and_exported_files(
    make_export, tmp_path, monkeypatch
):
    lines = []
    monkeypatch.setattr(exported_files.logger, "info", lines.append)
    _, inferring = make_export()
    weights = hashlib.sha256((tmp_path / "g.pdparams").read_bytes()).hexdigest()
    assert f"Loaded {tmp_path}/g (INFER.pretrained_model_path), SHA-256 {weights}" in lines
    lines.clear()
    infer(inferring)
    assert lines[:3] == [
        f"Reading {path}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in (tmp_path / "e" / f"g.{suffix}" for suffix in ("json", "pdiparams", "settings"))
    ]


def test_export_refuses_weights_with_another_checksum(trained, tmp_path):
    experiment = trained("mnist", make_trained(GENERATORS["mnist"]), "MODEL.gen_net.dim=2")
    digest = hashlib.sha256((tmp_path / "g.pdparams").read_bytes()).hexdigest()
    experiment.cfg.INFER.pretrained_sha256 = digest
    export(experiment)
    shutil.rmtree(tmp_path / "e")
    experiment.cfg.INFER.pretrained_sha256 = "0" * 64
    with pytest.raises(UserError, match=f"SHA-256 {digest}, but INFER.pretrained_sha256 demands 0"):
        export(experiment)
    assert not (tmp_path / "e").exists()


def test_an_export_path_that_cannot_be_written_to_is_named(trained, tmp_path):
    experiment = trained("mnist", make_trained(GENERATORS["mnist"]), "MODEL.gen_net.dim=2")
    (tmp_path / "file").write_bytes(b"")
    experiment.cfg.INFER.export_path = str(tmp_path / "file" / "g")
    with pytest.raises(UserError, match="file can't be written to .*with INFER.export_path="):
        export(experiment)


@pytest.mark.skipif(not HAS_ONNX, reason="needs paddle2onnx")
def test_onnx_that_can_not_be_compared_is_written_with_a_warning(trained, tmp_path, monkeypatch):
    find, warnings = importlib.util.find_spec, []
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    monkeypatch.setattr(exporting.logger, "warning", warnings.append)
    export(trained("mnist", make_trained(GENERATORS["mnist"]), "MODEL.gen_net.dim=2"))
    assert warnings == ["ONNX is not compared: that needs the package onnxruntime."]
    assert (tmp_path / "e" / "g.onnx").is_file()


def test_an_export_with_other_samples_is_refused(trained, monkeypatch):
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


def test_an_export_brings_its_settings_along(trained, configure, tmp_path):
    generator = make_trained(GENERATORS["cifar10 no label"])
    experiment = trained("cifar10", generator, "mode=export")
    export(experiment)
    path = experiment.cfg.INFER.export_path
    settings = f"mode=infer INFER.num_samples=3 INFER.export_path={path}"
    for engine in ENGINES:
        inferring = configure("cifar10", settings, f"INFER.engine={engine}")
        infer(wgangp_cifar10.Cifar10(inferring))
        assert (inferring.MODEL.gen_net.dim, inferring.MODEL.use_label) == (4, False)
    with pytest.raises(UserError, match="MODEL.gen_net.noise_dim=64 was given, but .*_dim=128"):
        other = configure("cifar10", settings, "MODEL.gen_net.noise_dim=64")
        infer(wgangp_cifar10.Cifar10(other))
    # The statistics are part of the program.
    with pytest.raises(UserError, match="=running was given, but .* exported with batch"):
        other = configure("cifar10", settings, "MODEL.gen_net.batch_norm_statistics=running")
        infer(wgangp_cifar10.Cifar10(other))
    # An export by an earlier version has no settings.
    os.remove(f"{path}.settings")
    os.remove(f"{path}.sha256")
    for engine in ENGINES:
        with pytest.raises(UserError, match="does not take noise .*repeat the MODEL"):
            other = configure("cifar10", settings, f"INFER.engine={engine}")
            infer(wgangp_cifar10.Cifar10(other))
    (tmp_path / "e" / "g.settings").write_text("{}")
    with pytest.raises(UserError, match="g.settings: the notes on its training can't be read"):
        infer(wgangp_cifar10.Cifar10(configure("cifar10", settings)))


def test_absent_and_damaged_exported_files_are_named(configure, tmp_path):
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


def test_commands_export_and_infer(run_script, tmp_path):
    weight_files.save_weights(functions.WganGpCifar10Generator(4), f"{tmp_path}/c.pdparams")
    settings = f"MODEL.gen_net.dim=4 INFER.export_path={tmp_path}/out/c"
    weights = f"INFER.pretrained_model_path={tmp_path}/c"
    words = f"mode=export {settings} {weights} hydra.run.dir={tmp_path}/1"
    done = run_script("cifar10", words, is_copy=False)
    assert "its samples differ from the generator's by at most" in done.stdout
    sizes = f"INFER.num_samples=3 INFER.label=7 hydra.run.dir={tmp_path}/2"
    run_script("cifar10", f"mode=infer {settings} {sizes}")
    assert len(list((tmp_path / "2" / "pictures").iterdir())) == 3
