# SPDX-License-Identifier: Apache-2.0
"""Resuming: a stopped or killed training ends like an uninterrupted one, or says why it can't."""

import errno
import json
import os
import shutil
import signal

import pytest
import stress
from omegaconf import OmegaConf
from trainings import read_records
from trainings import rewrite_checkpoint

import wgangp_mnist
import wgangp_toy
from modes.train import train
from support import archives
from support import sweeps
from support.errors import UserError
from training import checkpoints
from training import records
from training import resume
from training.run_settings import RunSettings

NO_EVALUATION = "TRAIN.eval_during_train=false"


@pytest.mark.parametrize(
    ("stop", "overrides"),
    [
        (1, ""),
        (8, ""),
        (6, "TRAIN.ema.use_ema=true TRAIN.update_freq=2"),
        # Iteration 5 follows the best. At this low rate, iteration 4 remains the best.
        (5, "TRAIN.eval_freq=1 TRAIN.learning_rate=1e-5"),
    ],
)
def test_a_stopped_training_ends_like_an_uninterrupted_one(toy, stop, overrides):
    uninterrupted = toy("uninterrupted", overrides)
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        toy("stopped", overrides, stop=stop)
    assert end.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == former
    folder = toy("stopped", overrides, "TRAIN.resume=auto")
    weights, records = stress.outcome(folder)
    assert len({file for file, _ in weights}) == 4 + ("use_ema" in overrides)
    assert (weights, records) == stress.outcome(uninterrupted)
    assert [record["step"] for record in records] == [1, 3, 4, 6, 8, 9, 12]
    # Nothing is left to do, and nothing changes.
    assert stress.outcome(toy("stopped", overrides, "TRAIN.resume=auto")) == (weights, records)


@pytest.fixture
def finished(toy, make_toy):
    """A finished training: its folder, and whether it is that of settings."""
    folder = toy("run", NO_EVALUATION)

    def is_finished(*overrides):
        experiment = make_toy(NO_EVALUATION, *overrides)
        experiment.cfg.output_dir = str(folder)
        return resume.is_finished(RunSettings.of(experiment.cfg))

    return folder, is_finished


def test_a_finished_training_is_known_by_its_settings(finished):
    folder, is_finished = finished
    assert is_finished() and is_finished("TRAIN.keep=1 TRAIN.resume=auto use_tbd=true")
    for other in ("seed=1", "TRAIN.epochs=4", "DATA.mode=swissroll", "LOSS.k=1"):
        assert not is_finished(other)
    # It was made longer and stopped after its last record.
    os.utime(folder / "model_discriminator.pdparams", (0, 0))
    assert not is_finished()
    # Or it is a copy. The checkpoint of the last iteration is not there to tell.
    for path in (folder / "checkpoints").glob("iteration_*"):
        path.unlink()
    assert is_finished()
    os.utime(folder / "model_discriminator.pdparams")
    assert is_finished()
    for text in ("[", "- 1", "a: ${b}"):
        (folder / "config.yaml").write_text(text)
        assert not is_finished()


def test_a_job_that_is_finished_is_skipped(finished, toy, monkeypatch):
    folder, _ = finished
    before = stress.outcome(folder)
    with pytest.raises(UserError, match="or name a new folder with hydra.run.dir=FOLDER.$"):
        toy("run", NO_EVALUATION)
    monkeypatch.setattr(sweeps, "is_sweep", lambda: True)
    monkeypatch.setattr(wgangp_toy.Toy, "make_networks", None)  # It is not called.
    assert toy("run", NO_EVALUATION) == folder and stress.outcome(folder) == before
    with pytest.raises(UserError, match="or name a new folder with hydra.sweep.dir=FOLDER.$"):
        toy("run", NO_EVALUATION, "seed=7")


def test_final_figures_are_the_newest_of_those_that_compare_trainings():
    lines = [
        {"step": 4, "wasserstein": 1.0, "fid": 9.0, "fid_deviation": 1.0, "best": True},
        {"step": 8, "wasserstein": 0.5, "seconds": 3.0, "learning_rate": 0.1},
    ]
    journal = "".join(json.dumps(line) + "\n" for line in lines)
    assert records.final_figures(journal) == {"step": 8, "wasserstein": 0.5, "fid": 9.0}
    assert records.final_figures("") == {}


def test_checkpoints_that_cannot_be_read_are_not_overwritten(toy, tmp_path, monkeypatch):
    """A network drive may fail for a moment, when a queue restarts its jobs."""
    with pytest.raises(SystemExit):
        toy("run", NO_EVALUATION, stop=6)
    before = stress.outcome(tmp_path / "run")

    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(archives, "open_regular", fail)
        with pytest.raises(UserError, match="run holds checkpoints, but none can be read"):
            toy("run", NO_EVALUATION, "TRAIN.resume=auto")
    assert stress.outcome(tmp_path / "run") == before
    toy("run", NO_EVALUATION, "TRAIN.resume=auto")


def test_the_folder_of_checkpoints_stands_for_its_run(toy, tmp_path):
    with pytest.raises(SystemExit):
        toy("run", NO_EVALUATION, stop=6)
    folder = toy("other", NO_EVALUATION, f"TRAIN.resume={tmp_path}/run/checkpoints")
    assert [record["step"] for record in read_records(folder)][:3] == [1, 3, 4]
    with pytest.raises(SystemExit):  # Here, it is the name of a run.
        toy("checkpoints", NO_EVALUATION, stop=6)
    again = toy("checkpoints", NO_EVALUATION, f"TRAIN.resume={tmp_path}/checkpoints")
    assert stress.outcome(again) == stress.outcome(folder)
    weights = folder / "model_generator.pdparams"
    with pytest.raises(UserError, match="holds the weights of one network"):
        toy("new", NO_EVALUATION, f"TRAIN.resume={weights}")


def test_a_stop_in_the_last_iteration_ends_like_no_stop(toy):
    folder = toy("stopped", stop=12)
    assert stress.outcome(folder) == stress.outcome(toy("uninterrupted"))


@pytest.mark.parametrize("is_sweep", [False, True])
def test_a_stop_in_the_last_iteration_ends_a_sweep(is_sweep, toy, monkeypatch):
    ends = []
    monkeypatch.setattr(sweeps, "is_sweep", lambda: is_sweep)
    monkeypatch.setattr(sweeps, "end_after_job", ends.append)
    folder = toy("stopped", "TRAIN.eval_during_train=false", stop=12)
    assert len(ends) == is_sweep and (folder / "model_generator.pdparams").exists()


def test_the_clock_of_records_continues(toy, tmp_path):
    with pytest.raises(SystemExit):
        toy("run", stop=8)
    rewrite_checkpoint(tmp_path / "run" / "checkpoints" / "iteration_08.npz", seconds=1000.0)
    records = read_records(toy("run", "TRAIN.resume=auto"))
    assert [record["step"] for record in records if record["seconds"] >= 1000] == [9, 12]


def test_later_checkpoints_are_set_aside_when_a_run_goes_back(toy):
    settings = "TRAIN.epochs=4 TRAIN.eval_during_train=false"
    folder = toy("run", settings, "TRAIN.keep=1")
    uninterrupted = stress.outcome(folder)
    early = toy("early", settings, "TRAIN.keep=0") / "checkpoints" / "iteration_08.npz"
    # The second of four checkpoints lies next to a newer one.
    path = early.rename(folder / "checkpoints" / "iteration_08.npz")
    toy("run", settings, f"TRAIN.keep=1 TRAIN.resume={path}")
    assert stress.outcome(folder) == uninterrupted
    names = {path.name for path in (folder / "checkpoints").iterdir()}
    assert names == {"iteration_16.npz", "iteration_16.npz.abandoned"}
    # A folder stands for its newest checkpoint.
    assert resume.newest(str(folder)).contents["iteration"] == 16


def test_a_best_checkpoint_of_a_later_iteration_is_ignored(toy):
    settings = "TRAIN.eval_freq=1 TRAIN.learning_rate=2e-3"  # The best comes after iteration 4.
    folder = toy("run", settings)
    best = checkpoints.read(str(folder / "checkpoints" / "best.npz")).contents
    assert best["iteration"] > 4
    first = checkpoints.list_newest_first(str(folder / "checkpoints"))[-1]
    assert checkpoints.read(first).contents["iteration"] == 4
    expected = stress.outcome(folder)
    toy("run", settings, f"TRAIN.resume={first}")
    weights, records = stress.outcome(folder)
    again = checkpoints.read(str(folder / "checkpoints" / "best.npz")).contents
    values = [record["wasserstein_2"] for record in records if record.get("best")]
    assert again["best"] == values[-1]
    assert weights == expected[0]


def test_a_best_that_was_not_written_yet_stays_the_best(toy, tmp_path):
    """The training was killed between its checkpoint and the copy of the best."""
    settings = "TRAIN.eval_freq=1 TRAIN.learning_rate=1e-5 TRAIN.keep=0"  # Too low to change much.
    folder = toy("run", settings)
    assert [record["step"] for record in read_records(folder) if record.get("best")] == [4]
    (tmp_path / "killed" / "checkpoints").mkdir(parents=True)
    shutil.copy(folder / "checkpoints" / "iteration_04.npz", tmp_path / "killed" / "checkpoints")
    killed = toy("killed", settings, "TRAIN.resume=auto")
    assert stress.outcome(killed) == stress.outcome(folder)


def test_a_best_figure_of_other_samples_is_not_compared(toy):
    settings = "TRAIN.eval_freq=1 TRAIN.learning_rate=1e-5"
    toy("run", settings, "TRAIN.eval_num_samples=20")
    folder = toy("run", settings, "TRAIN.resume=auto TRAIN.epochs=4 TRAIN.eval_num_samples=50")
    records = read_records(folder)
    best = [record["wasserstein_2"] for record in records if record.get("best")]
    # Its figure is worse, but it is the first with 50 samples.
    assert records[-1]["step"] == 16 and records[-1]["best"]
    assert records[-1]["wasserstein_2"] > min(best[:-1])


def test_other_networks_and_data_are_refused_by_name(toy, configure, tmp_path):
    path = toy("run") / "checkpoints" / "iteration_12"
    for overrides, message in (
        ("MODEL.dis_net.dim=16", "MODEL.dis_net.dim was 8 and is 16"),
        ("TRAIN.ema.use_ema=true", "TRAIN.ema.use_ema was False and is True"),
        ("DATA.mode=swissroll", "on other data: 8gaussians; this is swissroll"),
    ):
        with pytest.raises(UserError, match=message):
            toy("other", overrides, f"TRAIN.resume={path}")
    with pytest.raises(UserError, match="no checkpoint .*nowhere.npz"):
        toy("other", f"TRAIN.resume={tmp_path}/nowhere")
    cfg = configure("mnist", f"DATA.source=digits TRAIN.resume={path}")
    cfg.output_dir = str(tmp_path / "mnist")
    with pytest.raises(UserError, match="of another training"):
        train(wgangp_mnist.Mnist(cfg))


def test_a_longer_training_continues_and_its_other_settings_are_named(toy, monkeypatch):
    path = toy("run") / "checkpoints" / "iteration_12"
    warnings = []
    monkeypatch.setattr(resume.logger, "warning", warnings.append)
    folder = toy("longer", f"TRAIN.resume={path} TRAIN.epochs=4 TRAIN.learning_rate=0.1")
    assert "TRAIN.epochs was 3 and is 4" in warnings[0]
    assert "TRAIN.learning_rate was" in warnings[0]
    # The rate falls to 0 over 16 iterations, from this run's own rate.
    last = read_records(folder)[-1]
    assert last["step"] == 16 and last["learning_rate"] == pytest.approx(0.1 / 16)


def make_checkpoint(cfg, **machine):
    """A checkpoint of a configuration on this machine, without arrays."""
    contents = {
        "settings": OmegaConf.to_container(cfg, resolve=True),
        "machine": {**checkpoints.describe_machine(), **machine},
    }
    return checkpoints.Checkpoint("former.npz", contents, {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("mode", "eval"), ("output_dir", "elsewhere"), ("device", "gpu")),
        *(("use_tbd", True), ("use_vdl", True), ("DATA.data_path", "elsewhere")),
        *(("TRAIN.resume", "auto"), ("TRAIN.keep", 7), ("EVAL.num_samples", 7)),
        *(("EVAL.inception_weights", "x.pth"), ("EVAL.pretrained_gen_model_path", "x")),
        *(("EVAL.pretrained_dis_model_path", "x"), ("INFER.frames", 3)),
    ],
)
def test_harmless_settings_may_change_silently(key, value, configure, monkeypatch):
    warnings = []
    monkeypatch.setattr(resume.logger, "warning", warnings.append)
    cfg = configure("cifar10")
    checkpoint = make_checkpoint(cfg)
    OmegaConf.update(cfg, key, value)
    resume.check_settings(RunSettings.of(cfg), checkpoint)
    assert warnings == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("seed", 7), ("log_freq", 7), ("TRAIN.batch_size", 7), ("LOSS.penalty_weight", 7)),
        *(("EVAL.batch_size", 7), ("MODEL.gen_net.batch_norm_statistics", "running")),
        ("MODEL.gen_net.batch_norm_groups", 1),
    ],
)
def test_other_settings_are_named_in_a_warning(key, value, configure, monkeypatch):
    warnings = []
    monkeypatch.setattr(resume.logger, "warning", warnings.append)
    cfg = configure("cifar10")
    checkpoint, former = make_checkpoint(cfg), OmegaConf.select(cfg, key)
    OmegaConf.update(cfg, key, value)
    resume.check_settings(RunSettings.of(cfg), checkpoint)
    (text,) = warnings
    assert text.endswith(f"uninterrupted one: {key} was {former} and is {value}.")


@pytest.mark.parametrize("groups", [1, 2])
def test_a_checkpoint_from_before_there_were_groups_is_of_whole_batches(
    groups, configure, monkeypatch
):
    warnings = []
    monkeypatch.setattr(resume.logger, "warning", warnings.append)
    cfg = configure("cifar10", f"MODEL.gen_net.batch_norm_groups={groups}")
    checkpoint = make_checkpoint(cfg)
    del checkpoint.contents["settings"]["MODEL"]["gen_net"]["batch_norm_groups"]
    resume.check_settings(RunSettings.of(cfg), checkpoint)
    changes = [text.partition("uninterrupted one: ")[2] for text in warnings]
    assert changes == ["MODEL.gen_net.batch_norm_groups was 1 and is 2."] * (groups - 1)


def test_a_job_of_a_sweep_continues_no_other_job(configure, monkeypatch):
    """Its folder is its number, and the same number can be another job in a changed sweep."""
    cfg = configure("cifar10", "TRAIN.resume=auto")
    checkpoint = make_checkpoint(cfg)
    cfg.seed = 7
    resume.check_settings(RunSettings.of(cfg), checkpoint)
    monkeypatch.setattr(sweeps, "is_sweep", lambda: True)
    with pytest.raises(UserError, match="is of another job: seed was 42 and is 7. .*sweep.dir="):
        resume.check_settings(RunSettings.of(cfg), checkpoint)
    cfg.TRAIN.resume = checkpoint.path  # Several jobs can continue one training.
    resume.check_settings(RunSettings.of(cfg), checkpoint)
    cfg.seed, cfg.TRAIN.resume, cfg.TRAIN.epochs, cfg.TRAIN.keep = 42, "auto", 10**6, 9
    resume.check_settings(RunSettings.of(cfg), checkpoint)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("LOSS.name", "gan"), ("TRAIN.optimizer", "SGD"), ("TRAIN.critic_optimizer", "SGD")),
        *(("TRAIN.ema.decay", 0.5), ("MODEL.use_label", False), ("MODEL.gen_net.dim", 7)),
    ],
)
def test_settings_of_other_networks_are_refused(key, value, configure):
    cfg = configure("cifar10", "TRAIN.critic_optimizer=Adam")
    checkpoint, former = make_checkpoint(cfg), OmegaConf.select(cfg, key)
    OmegaConf.update(cfg, key, value)
    with pytest.raises(UserError, match=f"of another training: {key} was {former} and is {value}"):
        resume.check_settings(RunSettings.of(cfg), checkpoint)


def test_another_machine_is_named_in_a_warning(configure, monkeypatch):
    warnings = []
    monkeypatch.setattr(resume.logger, "warning", warnings.append)
    cfg = configure("cifar10")
    resume.check_settings(RunSettings.of(cfg), make_checkpoint(cfg, processes="7", paddle="1.0"))
    (text,) = warnings
    version = checkpoints.describe_machine()["paddle"]
    assert f"paddle was 1.0 and is {version}, processes was 7 and is 1." in text
    changed = make_checkpoint(cfg, operators="Paddle of elsewhere")
    resume.check_settings(RunSettings.of(cfg), changed)
    assert "operators was Paddle of elsewhere and is " in warnings[1]
    # Checkpoints of earlier versions do not say which operators they were made with.
    del changed.contents["machine"]["operators"]
    resume.check_settings(RunSettings.of(cfg), changed)
    assert len(warnings) == 2


def test_a_folder_resumes_from_its_newest_checkpoint(toy, tmp_path):
    folder = toy("run", "TRAIN.epochs=2 TRAIN.lr_schedule=constant")
    longer = toy("longer", f"TRAIN.resume={folder} TRAIN.lr_schedule=constant")
    expected = stress.outcome(toy("uninterrupted", "TRAIN.lr_schedule=constant"))
    assert stress.outcome(longer) == expected
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no checkpoint to resume from"):
        toy("other", f"TRAIN.resume={tmp_path}/empty")


def test_the_best_checkpoint_replaces_absent_others(toy):
    folder = toy("run")
    for path in checkpoints.list_newest_first(str(folder / "checkpoints")):
        os.remove(path)
    assert resume.newest(str(folder)).path == str(folder / "checkpoints" / "best.npz")


def test_a_checkpoint_of_another_folder_does_not_overwrite_a_training(toy):
    path = toy("one") / "checkpoints" / "iteration_08"
    other = toy("two", "seed=7 TRAIN.epochs=4")
    before = {file: file.read_bytes() for file in other.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match="two holds another training already"):
        toy("two", f"TRAIN.resume={path}")
    assert {file: file.read_bytes() for file in other.rglob("*") if file.is_file()} == before


def test_a_finished_training_without_checkpoints_is_not_started_again(toy):
    toy("run", "TRAIN.save_freq=0 TRAIN.eval_during_train=false")
    with pytest.raises(UserError, match="holds no checkpoint to resume from"):
        toy("run", "TRAIN.save_freq=0 TRAIN.resume=auto")
    with pytest.raises(UserError, match="Continue it with TRAIN.resume=auto"):
        toy("run")
