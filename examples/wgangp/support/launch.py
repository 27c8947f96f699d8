# SPDX-License-Identifier: Apache-2.0
"""How a script starts and ends."""

from __future__ import annotations

import logging
import os
from os import path as osp
from typing import Callable
from typing import Dict
from typing import Sequence

from support.errors import UserError
from support.errors import fail
from support.errors import require
from support.processor import SETTINGS
from support.settings import check_setting
from support.settings import flatten
from support.settings import shipped_settings
from support.signals import end_on_signals


def launch(cfg, script: str, choices: Dict[str, Sequence], **modes: Callable) -> None:
    """Checks `cfg`, runs the function of its mode, turns a UserError into one line and status 2.

    Args:
        cfg: The script's configuration, as Hydra composed it.
        script: Name of the script's file in conf/, without the suffix.
        choices: What some of the script's settings may be.
        **modes: A function of the configuration for each mode, by name.
    """
    from filelock import FileLock
    from filelock import Timeout
    from omegaconf import OmegaConf
    from ppsci.utils import logger

    logging.raiseExceptions = False  # a full disk is told once, not by every line of the log
    end_on_signals()
    lock = FileLock(osp.join(cfg.output_dir, f".{cfg.mode}.lock"))
    try:
        # the first of those that paddle.distributed.launch started, or the only one
        if int(os.environ.get("PADDLE_TRAINER_ID", 0)) == 0:
            lock.acquire(timeout=0)
        default, given = shipped_settings(script), OmegaConf.to_container(cfg, resolve=True)
        for key, value in flatten(given).items():
            check_setting(key, value, default, choices)
        missing = [key for key in flatten(default) if key not in flatten(given)]
        require(not missing, f"the configuration lacks {', '.join(missing)}.")
        require(
            cfg.mode != "train" or cfg.MODEL.arch != "published",
            "MODEL.arch=published is for mode=eval: those networks are not the paper's.",
        )
        settings = ", ".join(f"{name}={os.environ.get(name, 'unset')}" for name in SETTINGS)
        logger.info(f"Processor settings: {settings}")
        modes[cfg.mode](cfg)
    except UserError as error:
        # into the log, too, but not to the terminal twice
        for log in logger._logger.handlers:
            if isinstance(log, logging.FileHandler):
                log.emit(logging.LogRecord("ppsci", logging.ERROR, "", 0, str(error), None, None))
        fail(str(error))
    except Timeout:
        fail(
            f"another process (mode={cfg.mode}) writes into {cfg.output_dir}. Wait for its end, "
            "or name another folder by hydra.run.dir=."
        )
    except KeyboardInterrupt:
        fail("interrupted.", 130)
    finally:
        lock.release()
