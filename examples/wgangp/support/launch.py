# SPDX-License-Identifier: Apache-2.0
"""How a script starts and ends."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from os import path as osp
from typing import Callable
from typing import ContextManager
from typing import Mapping
from typing import Sequence

from filelock import FileLock
from filelock import Timeout
from omegaconf import DictConfig

from support import command_line
from support.errors import UserError
from support.errors import fail
from support.processor import PROCESSOR_VARIABLES
from support.processor import prepare
from support.settings import check_settings
from support.signals import end_on_signals
from support.storage import check_writable


def begin(script: str, choices: Mapping[str, Sequence]) -> None:
    """Prepares a script's process, before Paddle is imported: it takes seconds to load.

    Sets the processor's variables, which Paddle reads while it is imported, and refuses a wrong
    command line: exits with status 2 after one line that says what is wrong.

    Args:
        script: Name of the script's file in conf/, without the suffix.
        choices: Values of the script's own settings, in addition to `settings.CHOICES`.
    """
    prepare()
    end_on_signals()
    try:
        command_line.check(script, choices, sys.argv[1:])
    except UserError as error:
        fail(str(error))


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
    logging.raiseExceptions = False  # a full disk is reported once, not by every line of the log
    end_on_signals()
    try:
        check_settings(cfg, script, choices)
        check_writable(cfg.output_dir, "Name another output folder by hydra.run.dir=.")
        with _lock(cfg):
            _initialise(cfg)
            try:
                run_mode(cfg)
            except UserError as error:
                _log_to_file(str(error))
                raise
    except UserError as error:
        fail(str(error))
    except Timeout:
        fail(
            f"another process (mode={cfg.mode}) writes into {cfg.output_dir}. Wait for its end, "
            "or name another folder by hydra.run.dir=."
        )
    except KeyboardInterrupt:
        fail("interrupted.", 130)


def _lock(cfg: DictConfig) -> ContextManager:
    """Locks the output folder for one mode; of several processes, the first does it for all."""
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
        log.handlers[:] = files
        log.error(message)
