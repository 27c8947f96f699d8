# SPDX-License-Identifier: Apache-2.0
"""How a script starts and ends; Hydra's own features, through a script."""

import errno
import fcntl
import importlib
import json
import logging
import os
import random
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import ppsci
import pytest
from filelock import FileLock
from filelock import Timeout
from helpers import SCRIPTS
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from modes import runner
from support import jobs
from support import launch
from support import sweeps
from support.errors import UserError

TOY = importlib.import_module("wgangp_toy")


@pytest.fixture
def run(capsys):
    """Runs a function as a mode of the toy script; returns the exit status and stderr."""

    def call(cfg, run_mode):
        try:
            jobs.run(cfg, TOY.NAME, TOY.CHOICES, run_mode)
        except SystemExit as stop:
            return stop.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return call


def test_begin_does_not_import_paddle(tmp_path):
    program = (
        "import json, os, sys; from support import launch; "
        "launch.begin('wgangp_toy', {'preset': ['short']}); "
        "print(json.dumps([[name for name in ('paddle', 'ppsci') if name in sys.modules], "
        "os.environ['MKL_NUM_THREADS']]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    environment.pop("MKL_NUM_THREADS", None)
    command = [sys.executable, "-c", program, "TRAIN.epochs=3"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    imported, threads = json.loads(done.stdout)
    assert imported == [] and int(threads) >= 1


def test_signals_are_handled_before_other_modules_are_imported():
    program = (
        "import sys; sys.path.insert(0, '.'); from support import launch; "
        "print({'typing', 'logging', 're', 'hydra'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=SCRIPTS, capture_output=True, check=True
    )
    assert done.stdout == b"set()\n"


@pytest.mark.parametrize("closed", ["0 1 2", "1", "2"])
def test_closed_streams_are_not_replaced_by_files(closed, tmp_path):
    """Without that, the next file that is opened would get what is written to the stream."""
    program = (
        "import os, sys; sys.path.insert(0, '.'); from support import launch\n"
        "launch.open_closed_streams()\n"
        "file = open(sys.argv[1], 'w')\n"
        "print('out'); print('err', file=sys.stderr); os.write(2, b'raw')\n"
        "print(file.fileno() > 2, sys.stdin.closed, file=file)\n"
    )
    redirections = " ".join(f"{number}>&-" for number in closed.split())
    command = f'exec "$0" -c "$1" "$2" {redirections}'
    subprocess.run(
        ["bash", "-c", command, sys.executable, program, tmp_path / "file"],
        cwd=SCRIPTS,
        capture_output=True,
        check=True,
    )
    assert (tmp_path / "file").read_text() == "True False\n"


def test_help_into_a_pipe_that_nobody_reads_says_nothing():
    command = f"'{sys.executable}' wgangp_toy.py --help 2>&1 >&3 | cat"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        ["bash", "-c", command.replace("&3", f"&{writer}")],
        cwd=SCRIPTS,
        pass_fds=[writer],
        capture_output=True,
        check=True,
    )
    os.close(writer)
    assert done.stdout + done.stderr == b""


def test_begin_refuses_in_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wgangp_toy.py", "TRAIN.epochs=0"])
    with pytest.raises(SystemExit) as stop:
        launch.begin(TOY.NAME, TOY.CHOICES)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "Error: TRAIN.epochs=0 must be at least 1.\n"
    assert list(tmp_path.iterdir()) == []


def test_run_runs_the_mode_and_frees_the_folder(configure, run, tmp_path):
    ran = []
    cfg = configure("toy")
    assert run(cfg, ran.append) == (0, "")
    assert run(cfg, ran.append) == (0, "")
    assert ran == [cfg, cfg]
    log = (tmp_path / "train.log").read_text()
    assert log.count("Processor settings: MKL_NUM_THREADS=") == 2


def test_run_seeds_every_generator(configure, run):
    drawn = []
    for seed in (1, 2, 1):

        def draw(_):
            drawn.append((random.random(), np.random.rand(), float(paddle.rand([1]))))

        assert run(configure("toy", f"seed={seed}"), draw)[0] == 0
    assert drawn[0] == drawn[2]
    assert all(one != other for one, other in zip(drawn[0], drawn[1]))


def test_run_refuses_a_wrong_setting_before_it_writes(configure, run, tmp_path):
    cfg = configure("toy", f"+TRAIN.epochz=3 output_dir={tmp_path}/new")
    cfg.output_dir = f"{tmp_path}/new"
    status, text = run(cfg, None)
    assert status == 2 and text.count("\n") == 1
    assert text.startswith("Error: unknown setting TRAIN.epochz. Did you mean TRAIN.epochs?")
    assert not (tmp_path / "new").exists()


def test_run_makes_the_output_folder_or_says_why_not(configure, run, tmp_path):
    cfg = configure("toy")
    cfg.output_dir = f"{tmp_path}/a/b"
    assert run(cfg, lambda cfg: None) == (0, "")
    assert (tmp_path / "a" / "b" / "train.log").is_file()
    cfg.output_dir = f"{tmp_path}/a/b/train.log/c"
    status, text = run(cfg, None)
    assert status == 2 and "train.log/c can't be written to" in text and text.count("\n") == 1


@pytest.mark.parametrize("mode", ["train", "eval", "export", "infer"])
def test_an_error_of_the_users_is_one_line_in_terminal_and_log(configure, capfd, tmp_path, mode):
    def refuse(cfg):
        logging.getLogger("ppsci").info("before")
        raise UserError("that does not fit.")

    with pytest.raises(SystemExit) as stop:
        jobs.run(configure("toy", f"mode={mode}"), TOY.NAME, TOY.CHOICES, refuse)
    assert stop.value.code == 2
    done = capfd.readouterr()
    assert done.err == "Error: that does not fit.\n" and "fit" not in done.out
    log = tmp_path / f"{mode}.log"
    assert log.exists() == (mode in ("train", "eval"))  # ppsci's choice
    if log.exists():
        lines = log.read_text().splitlines()
        assert lines[-2].endswith("INFO: before")
        assert lines[-1].endswith("ppsci ERROR: that does not fit.")


def test_other_errors_keep_their_traceback(configure):
    def fail(cfg):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        jobs.run(configure("toy"), TOY.NAME, TOY.CHOICES, fail)


def test_a_folder_in_use_is_refused(configure, run, tmp_path, monkeypatch):
    with FileLock(tmp_path / ".train.lock"):
        status, text = run(configure("toy"), None)
        assert status == 2
        assert text.startswith(f"Error: another process (mode=train) writes into {tmp_path}. Wait")
        assert not (tmp_path / "train.log").exists()
        # another mode, and another process of the same run, have no lock to wait for
        assert run(configure("toy", "mode=eval"), lambda cfg: None)[0] == 0
        monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
        assert run(configure("toy"), lambda cfg: None)[0] == 0


def test_ctrl_c_ends_with_one_line(configure, run):
    def interrupt(cfg):
        raise KeyboardInterrupt

    assert run(configure("toy"), interrupt) == (130, "Error: interrupted.\n")


@pytest.fixture
def script(monkeypatch, tmp_path, capsys):
    """Runs the toy script in this process, as a program with a command line.

    Returns the exit status and what it prints; `script.ran` collects the settings of its runs,
    which do nothing else.
    """
    monkeypatch.chdir(tmp_path)
    root, hydra_config = logging.getLogger(), HydraConfig.instance()
    handlers, level, former = root.handlers[:], root.level, hydra_config.cfg

    def run_mode(experiment):
        settings = OmegaConf.to_container(experiment.cfg, resolve=True)
        call.ran.append(OmegaConf.create(settings))

    monkeypatch.setattr(runner, "run_mode", run_mode)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["wgangp_toy.py", *arguments])
        try:
            runpy.run_path(str(SCRIPTS / "wgangp_toy.py"), run_name="__main__")
            status = 0
        except SystemExit as stop:
            status = stop.code
        done = capsys.readouterr()
        return status, done.out + done.err

    call.ran = []
    yield call
    # --info changes the log, --multirun leaves its configuration
    root.handlers[:], hydra_config.cfg = handlers, former
    root.setLevel(level)


def test_a_run_gets_hydras_folder(script, tmp_path):
    status, text = script("seed=7", "device=cpu")
    assert status == 0, text
    (cfg,) = script.ran
    assert cfg.seed == 7
    assert cfg.output_dir.startswith(f"{tmp_path}/outputs_wgangp_toy/20")
    assert os.listdir(cfg.output_dir) != []


def test_multirun_runs_each_combination(script, tmp_path):
    arguments = ("--multirun", "seed=1,2", "LOSS=gan,wgan_gp", "hydra.sweep.dir=sweep")
    status, text = script(*arguments, "device=cpu")
    assert status == 0, text
    assert [(cfg.seed, cfg.LOSS.name, cfg.TRAIN.optimizer) for cfg in script.ran] == [
        (1, "gan", "SGD"),
        (1, "wgan_gp", "Adam"),
        (2, "gan", "SGD"),
        (2, "wgan_gp", "Adam"),
    ]
    folders = [f"{tmp_path}/sweep/{number}" for number in range(4)]
    assert [cfg.output_dir for cfg in script.ran] == folders
    for folder in folders:
        assert "Processor settings" in (tmp_path / folder / "train.log").read_text()


def test_multirun_checks_each_job_at_its_start(script, tmp_path):
    """Values are checked one by one before the first job; a combination only by its own job."""
    values = ("mode=train,eval", "MODEL.arch=paper,published")
    status, text = script("-m", *values, "hydra.sweep.dir=sweep", "device=cpu")
    refused = f"Error: job 1 ({tmp_path}/sweep/1): MODEL.arch=published is for mode=eval"
    assert status == 2 and text.count(refused) == 1 and "Traceback" not in text
    assert [(cfg.mode, cfg.MODEL.arch) for cfg in script.ran] == [
        ("train", "paper"),
        ("eval", "paper"),
        ("eval", "published"),
    ]
    # The first job's log is not the place for it.
    assert "published" not in (tmp_path / "sweep" / "0" / "train.log").read_text()


def test_a_sweep_ends_with_a_table_of_all_jobs(script, monkeypatch, tmp_path):
    def run_mode(experiment):
        seed = experiment.cfg.seed
        if seed == 2:
            raise UserError("no luck | here.")
        if seed == 3:
            raise ZeroDivisionError("a fault")
        return {"step": 8, "fid": seed / 7}

    monkeypatch.setattr(runner, "run_mode", run_mode)
    status, text = script("-m", "seed=1,2,3,4", "hydra.sweep.dir=sweep", "device=cpu")
    table = (tmp_path / "sweep" / "sweep_summary.md").read_text()
    assert [line.split() for line in table.splitlines()[2:]] == [
        "| 0 | seed=1 | finished | 8 | 0.14286 | |".split(),
        "| 1 | seed=2 | failed | | | no luck \\| here. |".split(),
        "| 2 | seed=3 | failed | | | ZeroDivisionError: a fault |".split(),
        "| 3 | seed=4 | finished | 8 | 0.57143 | |".split(),
    ]
    assert table in text and text.count("Traceback") == 1
    assert status == 1 and "Error: 2 of 4 jobs failed: 1, 2. The same command" in text
    jobs = json.loads((tmp_path / "sweep" / "sweep_summary.json").read_text())
    assert [job["folder"] for job in jobs] == ["0", "1", "2", "3"]
    assert jobs[3]["figures"] == {"step": 8, "fid": 4 / 7}
    assert "device=cpu" in jobs[3]["settings"]


def test_a_signal_ends_a_sweep(script, monkeypatch, tmp_path):
    def run_mode(experiment):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run_mode", run_mode)
    status, text = script("-m", "seed=1,2", "hydra.sweep.dir=sweep", "device=cpu")
    assert status == 130 and text.endswith("Error: interrupted.\n")
    (job,) = json.loads((tmp_path / "sweep" / "sweep_summary.json").read_text())
    assert job["status"] == "interrupted"


def test_a_signal_that_comes_late_lets_the_job_finish_and_ends_the_sweep(
    script, monkeypatch, tmp_path
):
    def run_mode(experiment):
        sweeps.end_after_job(signal.SIGTERM)
        return {"step": 8}

    monkeypatch.setattr(runner, "run_mode", run_mode)
    status, text = script("-m", "seed=1,2", "hydra.sweep.dir=sweep", "device=cpu")
    assert status == 143
    (job,) = json.loads((tmp_path / "sweep" / "sweep_summary.json").read_text())
    assert (job["status"], job["figures"]) == ("finished", {"step": 8})


def test_a_signal_in_the_last_job_of_a_sweep_changes_nothing(script, monkeypatch, tmp_path):
    def run_mode(experiment):
        if experiment.cfg.seed == 2:
            sweeps.end_after_job(signal.SIGTERM)

    monkeypatch.setattr(runner, "run_mode", run_mode)
    status, text = script("-m", "seed=1,2", "hydra.sweep.dir=sweep", "device=cpu")
    assert status == 0 and (tmp_path / "sweep" / "sweep_summary.md").read_text() in text
    assert script("-m", "seed=1", "hydra.sweep.dir=other", "device=cpu")[0] == 0


@pytest.mark.parametrize("mode", ["infer", "export"])
def test_one_process_draws_and_exports(mode, script, monkeypatch):
    monkeypatch.setenv("PADDLE_TRAINERS_NUM", "2")
    status, text = script(
        f"mode={mode}", "device=cpu", "INFER.pretrained_model_path=toy_8gaussians"
    )
    assert status == 2 and f"mode={mode} runs in one process: start it with python alone" in text


def test_relative_paths_hold_where_the_user_stands(script, tmp_path):
    status, text = script("hydra.job.chdir=true", "output_dir=out", "device=cpu")
    assert status == 0, text
    assert list(tmp_path.rglob("train.log")) == [tmp_path / "out" / "train.log"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, None])
def test_a_drive_without_locks_is_a_warning(configure, run, monkeypatch, tmp_path, number):
    """FileLock's releases raise one of three errors."""

    def acquire(*_, **__):
        if number == errno.ENOTSUP:
            raise Timeout("x")
        raise NotImplementedError if number is None else OSError(number, os.strerror(number))

    def flock(*_):
        raise OSError(number or errno.ENOSYS, "no locks")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    monkeypatch.setattr(fcntl, "flock", flock)
    cfg = configure("toy")
    assert run(cfg, lambda _: None)[0] == 0
    assert "has no locks: nothing keeps another process" in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize("name", [".train.lock", "train.log"])
def test_a_file_of_another_user_is_named(configure, run, monkeypatch, tmp_path, name):
    """Root may open all files, so the system's refusal is simulated by a folder in its place."""
    (tmp_path / name).mkdir()
    status, text = run(configure("toy"), lambda _: pytest.fail("the job ran"))
    assert status == 2 and text.startswith(f"Error: {tmp_path} can't be written to ([Errno ")
    assert name in text and "choose another folder with hydra.run.dir=FOLDER." in text


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_names_are_printed_in_any_encoding(tmp_path, encoding):
    program = "from support import launch; launch.escape_unprintable(); print('图 ≥ ü')"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(SCRIPTS)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True
    )
    text = "图 ≥ ü".encode(encoding, "backslashreplace")
    assert done.stdout.split(b"\n")[0].rstrip() == text


@pytest.mark.parametrize("version", ["1.4.0", "1.4", "1.5.0", "1.40"])
def test_other_versions_are_a_warning(configure, run, monkeypatch, tmp_path, version):
    monkeypatch.setattr(ppsci, "__version__", version)
    assert run(configure("toy"), lambda _: None)[0] == 0
    text = f"tested with ppsci 1.4, and {version} is installed"
    assert (text in (tmp_path / "train.log").read_text()) == (version in ("1.5.0", "1.40"))


@pytest.mark.parametrize("is_hydras", [True, False])
def test_messages_name_the_setting_that_chooses_the_folder(script, is_hydras, monkeypatch):
    found = []
    monkeypatch.setattr(jobs, "check_writable", lambda _, text: found.append(text))
    folder = "hydra.run.dir=a" if is_hydras else "output_dir=a"
    assert script(folder, "device=cpu")[0] == 0
    assert found == [f"Choose another output folder with {folder.partition('=')[0]}=FOLDER."]


def test_runs_of_the_same_second_have_their_own_folders(script):
    for _ in range(5):  # A second, or a day, may end between the two.
        script.ran.clear()
        assert script("device=cpu")[0] == script("-m", "device=cpu", "seed=1,2")[0] == 0
        single, *jobs = (Path(cfg.output_dir) for cfg in script.ran)
        (sweep,) = {job.parent for job in jobs}
        if single.parent == sweep.parent and single.name[:8] == sweep.name[:8]:
            break
    assert single != sweep and single.parent == sweep.parent
    assert (sweep / "sweep_summary.md").is_file()


@pytest.mark.parametrize("device", ["gpu", "xpu"])
def test_a_device_that_paddle_does_not_have_is_refused(configure, run, device):
    if getattr(paddle, f"is_compiled_with_{'cuda' if device == 'gpu' else device}")():
        pytest.skip(f"this Paddle has {device}")
    cfg = configure("toy")
    cfg.device = device
    status, text = run(cfg, None)
    assert status == 2 and text.startswith(f"Error: device={device} can't be used here (The dev")
    assert "device=cpu" in text


def test_a_gpu_that_cannot_be_seen_is_refused(configure, run, monkeypatch):
    """Paddle's GPU build would end the process without an exception."""
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 0)
    cfg = configure("toy")
    cfg.device = "gpu"
    status, text = run(cfg, lambda _: pytest.fail("the job ran"))
    assert status == 2 and "device=gpu can't be used here (no GPU was found)." in text
    assert "paddlepaddle-gpu" in text


def test_processes_on_cpus_are_connected_by_gloo(configure, run, monkeypatch):
    """Paddle's GPU build would choose NCCL, which refuses the tensors of a CPU."""
    monkeypatch.setenv("PADDLE_DISTRI_BACKEND", "auto")
    cfg = configure("toy")
    cfg.device = "cpu"
    found = []
    assert run(cfg, lambda _: found.append(os.environ["PADDLE_DISTRI_BACKEND"]))[0] == 0
    assert found == ["gloo"]


def test_multirun_checks_all_values_before_the_first_job(script):
    status, text = script("-m", "TRAIN.epochs=1,0", "hydra.sweep.dir=sweep", "device=cpu")
    assert status == 2 and "Error: TRAIN.epochs=0 must be at least 1.\n" in text
    assert script.ran == []


def test_cfg_job_prints_the_composed_settings(script):
    status, text = script("--cfg", "job", "preset=authors", "LOSS=wgan_div", "TRAIN.epochs=7")
    assert status == 0
    cfg = OmegaConf.create(text)
    assert (cfg.TRAIN.epochs, cfg.MODEL.gen_net.dim, cfg.TRAIN.beta2) == (7, 512, 0.999)


def test_info_shows_the_defaults_list(script):
    status, text = script("--info", "defaults", "preset=authors")
    assert status == 0 and "preset/authors" in text and "LOSS/wgan_gp" in text


@pytest.mark.parametrize(
    ("line", "completions"),
    [
        ("TRAIN.ep", {"TRAIN.epochs="}),
        ("LOSS=wgan_", {"LOSS=wgan_div", "LOSS=wgan_gp", "LOSS=wgan_lp"}),
        ("preset=", {"preset=authors", "preset=laptop", "preset=short"}),
    ],
)
def test_tab_completion(script, monkeypatch, line, completions):
    monkeypatch.setenv("COMP_LINE", f"python wgangp_toy.py {line}")
    status, text = script("-sc", "query=bash")
    assert status == 0 and completions <= set(text.split())


def test_a_users_own_configurations_and_groups(script, tmp_path):
    (tmp_path / "own" / "pace").mkdir(parents=True)
    (tmp_path / "own" / "pace" / "quick.yaml").write_text("# @package _global_\nTRAIN: {epochs: 3}")
    (tmp_path / "own" / "mine.yaml").write_text(
        "defaults: [wgangp_toy, pace: quick, _self_]\n"
        "seed: 5\nhydra: {run: {dir: mine}}\nTRAIN: {n_critic: 2}"
    )
    arguments = ("--config-dir", "own", "--config-name", "mine", "device=cpu")
    status, text = script(*arguments)
    assert status == 0, text
    (cfg,) = script.ran
    assert (cfg.seed, cfg.TRAIN.epochs, cfg.TRAIN.n_critic, cfg.TRAIN.beta1) == (5, 3, 2, 0.5)
    assert cfg.output_dir == str(tmp_path / "mine") and (tmp_path / "mine" / "train.log").is_file()
    status, text = script("-cd", "own", "+pace=quick", "device=cpu")
    assert status == 0 and script.ran[-1].TRAIN.epochs == 3 and script.ran[-1].TRAIN.n_critic == 5
