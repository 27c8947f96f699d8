# SPDX-License-Identifier: Apache-2.0
"""Several processes, as Paddle's launcher starts them, and their connection on CPUs."""

from __future__ import annotations

import os
from typing import Any


def has_others() -> bool:
    """Whether Paddle's launcher has started several processes."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", 1)) > 1


def connect_once() -> None:
    """Makes all groups of all processes use one connection where gloo, the CPU backend, connects.

    fleet makes several groups of all processes. Each would connect again, but Paddle 3.2 keeps the
    addresses of all gloo groups under the same keys, so a process may read the address of an
    earlier group and fail ("Connection refused", "TIMEOUT"). Of four processes, most starts fail.
    """
    from paddle.distributed import collective

    connect = collective._new_process_group_impl
    if connect.__module__ == __name__:  # A sweep calls this for each job.
        return

    def connect_or_reuse(backend: str, store: Any, rank: int, world_size: int, *rest, **options):
        default = collective._get_group_map_by_name().get(collective._default_group_name)
        if backend == "gloo" and default is not None and default.nranks == world_size:
            return default.process_group
        return connect(backend, store, rank, world_size, *rest, **options)

    collective._new_process_group_impl = connect_or_reuse
