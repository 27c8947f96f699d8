# SPDX-License-Identifier: Apache-2.0
"""How a script starts and ends.

Hydra and other slow modules are imported inside functions, so that signals are handled from the
first milliseconds on.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import sys
import threading
from os import path as osp
from typing import TYPE_CHECKING
from typing import Callable
from typing import ContextManager
from typing import Mapping
from typing import Optional
from typing import Sequence

from support import signals
from support.errors import UserError
from support.errors import fail
from support.errors import printable
from support.processor import PROCESSOR_VARIABLES
from support.processor import prepare
from support.storage import check_writable

if TYPE_CHECKING:
    from omegaconf import DictConfig

# What the loader of libraries, Python, C++ and Paddle's reader say when memory is too small.
MEMORY_TEXTS = (
    *("failed to map segment", "cannot allocate memory", "Cannot allocate memory"),
    *("can't start new thread", "Resource temporarily unavailable", "Blocking queue is killed"),
)


def begin(script: str, choices: Mapping[str, Sequence]) -> None:
    """Prepares a script's process, before Paddle is imported: it takes seconds to load.

    Sets the processor's variables, which Paddle reads while it is imported, and refuses a wrong
    command line: exits with status 2 after one line that says what is wrong. SIGTERM is held
    back from here on, until `run` handles it.

    Args:
        script: Name of the script's file in conf/, without the suffix.
        choices: Values of the script's own settings, in addition to `settings.CHOICES`.
    """
    signals.end_at_once_on_signals()
    sys.excepthook, threading.excepthook = _report, _report_thread
    from support import command_line

    prepare()
    try:
        command_line.check(script, choices, sys.argv[1:])
    except UserError as error:
        fail(str(error))
    if "paddle" not in sys.modules:
        signals.hold_sigterm()


def run(
    cfg: DictConfig,
    script: str,
    choices: Mapping[str, Sequence],
    run_mode: Callable[[DictConfig], None],
) -> None:
    """Checks a configuration and runs it; an error of the user's becomes one line and status 2.

    Args:
        cfg: The script's configuration, as Hydra composed it.
        script: Name of the script's file in conf/, without the suffix.
        choices: Values of the script's own settings, in addition to `settings.CHOICES`.
        run_mode: Does what cfg.mode asks for.
    """
    try:
        signals.end_on_signals()
        _run(cfg, script, choices, run_mode)
    except KeyboardInterrupt:
        fail("interrupted.", 130)
    except SystemExit:
        signals.ignore_signals()  # The status is decided.
        raise
    signals.end_at_once_on_signals()  # Nothing is written any more.


def _run(cfg, script, choices, run_mode) -> None:
    from filelock import Timeout

    from support.settings import check_settings

    logging.raiseExceptions = False  # a full disk is reported once, not by every line of the log
    try:
        check_settings(cfg, script, choices)
        check_writable(cfg.output_dir, "Name another output folder by hydra.run.dir=.")
        with _lock(cfg):
            _initialise(cfg)
            try:
                run_mode(cfg)
            except Exception as error:
                if explain(error) is not None:
                    _log_to_file(explain(error))
                raise
    except Timeout:
        fail(
            f"another process (mode={cfg.mode}) writes into {cfg.output_dir}. Wait for its end, "
            "or name another folder by hydra.run.dir=."
        )
    except Exception as error:
        if explain(error) is None:
            raise
        fail(explain(error))


def explain(error: BaseException) -> Optional[str]:
    """The message for an error that the user can correct; None for a fault of the program."""
    if isinstance(error, UserError):
        return str(error)
    is_system = isinstance(error, (OSError, ImportError, RuntimeError, SystemError))
    if not (
        isinstance(error, MemoryError)
        or getattr(error, "errno", None) == errno.ENOMEM
        or (is_system and any(text in str(error) for text in MEMORY_TEXTS))
    ):
        return None
    # Paddle writes its kind of error, or a whole C++ traceback, before what it has to say.
    text = re.sub(r"(?s)^.*ResourceExhausted(Error:|\))", "", str(error)).strip()
    reason = f" ({printable(text.splitlines()[0])})" if text else ""
    return (
        f"there is not enough memory{reason}. Choose smaller batches (TRAIN.batch_size, "
        "EVAL.batch_size) or networks, or allow more memory (ulimit -v). What was saved is "
        "intact: TRAIN.resume continues a training."
    )


def _report(kind, error, trace) -> None:
    """An excepthook: little memory becomes one line, also where a module can't be imported."""
    if explain(error) is None:
        sys.__excepthook__(kind, error, trace)
    else:
        fail(explain(error))


def _report_thread(arguments) -> None:
    """An excepthook of threads: the process ends if one of them runs out of memory.

    Paddle reads data in a thread, and without it the training would wait for ever.
    """
    message = explain(arguments.exc_value)
    if message is None:
        threading.__excepthook__(arguments)
        return
    try:
        _log_to_file(message)
        fail(message)
    finally:
        os._exit(2)


def _lock(cfg: DictConfig) -> ContextManager:
    """Locks the output folder for one mode; of several processes, the first does it for all."""
    from filelock import FileLock

    if int(os.environ.get("PADDLE_TRAINER_ID", 0)) > 0:
        return contextlib.nullcontext()
    return FileLock(osp.join(cfg.output_dir, f".{cfg.mode}.lock"), timeout=0)


def _initialise(cfg: DictConfig) -> None:
    """Does what ppsci does before an example runs: seeds, opens the log, sets the device."""
    from ppsci.utils import logger
    from ppsci.utils.callbacks import InitCallback

    try:
        InitCallback().on_job_start(cfg)
    except ValueError as error:  # no such device: ppsci's Solver takes the CPU, with a warning
        logger.warning(f"device={cfg.device}: {error}")
    variables = (f"{name}={os.environ.get(name, 'unset')}" for name in PROCESSOR_VARIABLES)
    logger.info(f"Processor settings: {', '.join(variables)}")


def _log_to_file(message: str) -> None:
    """Logs an error into the log's file only: the terminal gets it as the last line."""
    log = logging.getLogger("ppsci")
    files = [handler for handler in log.handlers if isinstance(handler, logging.FileHandler)]
    if files:
        handlers, log.handlers[:] = log.handlers[:], files
        try:
            log.error(message)
        finally:
            log.handlers[:] = handlers
