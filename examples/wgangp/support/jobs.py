# SPDX-License-Identifier: Apache-2.0
"""How a script runs a mode, once Hydra has composed its configuration."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from os import path as osp
from typing import Any
from typing import Callable
from typing import Dict
from typing import Mapping
from typing import Optional
from typing import Sequence

from filelock import FileLock
from filelock import Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from support import paths
from support import processes
from support import settings
from support import signals
from support import storage
from support import sweeps
from support.errors import UserError
from support.errors import explain
from support.errors import fail
from support.errors import printable
from support.errors import require
from support.processor import PROCESSOR_VARIABLES
from support.storage import check_writable

TESTED = {"paddle": "3.2", "ppsci": "1.4"}  # versions, as far as they matter
# What ppsci logs about itself for each network and measure; a terminal does not get it.
REPEATED = ("Auto collation is disabled", "Set to_static=False")
# What a mode returns: figures by name, for the table of a sweep.
RunMode = Callable[[DictConfig], Optional[Dict[str, Any]]]


def run(cfg: DictConfig, script: str, choices: Mapping[str, Sequence], run_mode: RunMode) -> None:
    """Checks a configuration and runs it; an error of the user's becomes one line and status 2.

    In a sweep, such an error ends the job, and the next one starts.

    Args:
        cfg: The script's configuration, as Hydra composed it.
        script: Name of the script's file in conf/, without the suffix.
        choices: Values of the script's own settings, in addition to `settings.CHOICES`.
        run_mode: Does what cfg.mode asks for.
    """
    try:
        signals.end_on_signals()
        try:
            if sweeps.is_sweep():
                sweeps.run_job(lambda: _run(cfg, script, choices, run_mode))
            else:
                _run(cfg, script, choices, run_mode)
        except Exception as error:
            if explain(error) is None:
                raise
            fail(explain(error))
    except KeyboardInterrupt:
        fail("interrupted.", 130)
    except SystemExit:
        signals.ignore_signals()  # The status is decided.
        raise
    signals.end_at_once_on_signals()  # Nothing is written any more.


def _run(
    cfg: DictConfig, script: str, choices: Mapping[str, Sequence], run_mode: RunMode
) -> Optional[Dict[str, Any]]:
    from paddle.utils import unique_name

    logging.raiseExceptions = False  # a full disk is reported once, not by every line of the log
    if HydraConfig.initialized():
        # With hydra.job.chdir, Hydra has changed the folder, and relative paths would fail.
        os.chdir(HydraConfig.get().runtime.cwd)
    settings.check_settings(cfg, script, choices)
    paths.replace_file_urls(cfg)
    sweeps.note_folder(cfg.output_dir)
    key = sweeps.folder_key()
    check_writable(cfg.output_dir, f"Choose another output folder with {key}=FOLDER.")
    with contextlib.ExitStack() as stack:
        with storage.writing_to(cfg.output_dir, key):  # Its files may belong to another user.
            is_locked = _lock(cfg, key, stack)
            _initialise(cfg)
        if not is_locked:
            logging.getLogger("ppsci").warning(
                f"The drive of {printable(cfg.output_dir)} has no locks: nothing keeps another "
                "process from writing into this folder."
            )
        try:
            # Paddle numbers the layers of a process. Each job of a sweep begins with 0.
            with unique_name.guard():
                return run_mode(cfg)
        except Exception as error:
            if explain(error) is not None:
                log_to_file(explain(error))
            raise
        finally:
            _close_log()


def _lock(cfg: DictConfig, key: str, stack: contextlib.ExitStack) -> bool:
    """Locks the output folder for one mode; of several processes, the first does it for all.

    Args:
        cfg: The configuration.
        key: The setting that names another folder.
        stack: Gives the lock back.

    Returns:
        Whether it is locked; False on drives that have no locks.

    Raises:
        UserError: If another process holds the lock.
    """
    if int(os.environ.get("PADDLE_TRAINER_ID", 0)) > 0:
        return True
    path = osp.join(cfg.output_dir, f".{cfg.mode}.lock")
    try:
        stack.enter_context(FileLock(path, timeout=0))
    except (Timeout, NotImplementedError, OSError) as error:
        if not _has_locks(path):
            return False
        if not isinstance(error, Timeout):
            raise
        raise UserError(
            f"another process (mode={cfg.mode}) writes into {printable(cfg.output_dir)}. Wait for "
            f"its end, or choose another folder with {key}=FOLDER."
        ) from None
    return True


def _has_locks(path: str) -> bool:
    """Whether the drive of a file has locks; FileLock's releases differ in what they raise."""
    try:
        import fcntl

        with open(path, "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, BlockingIOError):
        return True
    except OSError as error:
        return error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
    return True


def _initialise(cfg: DictConfig) -> None:
    """Does what ppsci does before an example runs: seeds, opens the log, sets the device.

    Raises:
        UserError: If there is no such device.
    """
    from ppsci.utils import logger
    from ppsci.utils.callbacks import InitCallback

    if processes.has_others():
        processes.connect_once()
    if cfg.device == "cpu":  # A GPU build would choose NCCL, which can't send tensors of a CPU.
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
    _require_gpu(cfg.device)
    try:
        InitCallback().on_job_start(cfg)
    except (ValueError, OSError, RuntimeError) as error:
        # An OSError with a number is of the log's file.
        if cfg.device in (None, "cpu") or getattr(error, "errno", None) is not None:
            raise
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise UserError(_describe_device(cfg.device, reason)) from None
    _warn_of_versions()
    for handler in logging.getLogger("ppsci").handlers:
        if handler.stream.isatty():
            handler.addFilter(lambda line: not line.getMessage().startswith(REPEATED))
    variables = (f"{name}={os.environ.get(name, 'unset')}" for name in PROCESSOR_VARIABLES)
    logger.info(f"Processor settings: {', '.join(variables)}")


def _warn_of_versions() -> None:
    """Warns if Paddle or ppsci, which may be a clone, have another version than the tests'."""
    import paddle
    import ppsci

    for package, tested in TESTED.items():
        found = {"paddle": paddle, "ppsci": ppsci}[package].__version__
        if not f"{found}.".startswith(f"{tested}."):
            logging.getLogger("ppsci").warning(
                f"This suite was tested with {package} {tested}, and {found} is installed: if "
                "something fails, install the versions of requirements.txt."
            )


def _require_gpu(device: Optional[str]) -> None:
    """Refuses device=gpu where none can be seen: Paddle's GPU build would end the process."""
    import paddle

    if device == "gpu" and paddle.is_compiled_with_cuda():
        require(paddle.device.cuda.device_count() > 0, _describe_device(device, "no GPU was found"))


def _describe_device(device: str, reason: str) -> str:
    """The message for a device that can't be used."""
    return (
        f"device={device} can't be used here ({printable(reason)}). Leave the setting out "
        "or give device=cpu to train on the processor. A GPU needs its driver and Paddle's "
        "GPU build (the package paddlepaddle-gpu)."
    )


def _list_log_files() -> Sequence[logging.Handler]:
    handlers = logging.getLogger("ppsci").handlers
    return [handler for handler in handlers if isinstance(handler, logging.FileHandler)]


def log_to_file(message: str) -> None:
    """Logs an error into the log's file only: the terminal gets it as the last line."""
    log, files = logging.getLogger("ppsci"), _list_log_files()
    if files:
        handlers, log.handlers[:] = log.handlers[:], files
        try:
            log.error(message)
        finally:
            log.handlers[:] = handlers


def _close_log() -> None:
    """Closes the log's file; the next job of a sweep has its own."""
    for handler in _list_log_files():
        logging.getLogger("ppsci").removeHandler(handler)
        handler.close()
