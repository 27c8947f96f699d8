# SPDX-License-Identifier: Apache-2.0
"""Processor settings that Paddle reads while it is imported."""

from __future__ import annotations

import ctypes
import os
import platform
import warnings

SETTINGS = ("MKL_NUM_THREADS", "FLAGS_paddle_num_threads", "MKL_DEBUG_CPU_TYPE")


def prepare() -> None:
    """Sets threads and matrix path, which Paddle reads once, while it is imported.

    Its wheel runs on ONE thread by default, and its matrix library takes a slow path on
    AMD processors unless told their type: together a factor of three. What the user's
    environment already says is left alone.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    processes = int(os.environ.get("PADDLE_LOCAL_SIZE", 1))  # of Paddle's launcher, here
    for name in SETTINGS[:2]:
        os.environ.setdefault(name, str(max(cores // processes, 1)))
    if _is_amd_with_avx2():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    _keep_memory()
    # said by paddle at each import, about building C++ extensions, which nobody does here
    warnings.filterwarnings("ignore", message="No ccache found")


def _keep_memory() -> None:
    """Tells the C library to keep freed memory for the process.

    Paddle's CPU allocator asks it for each tensor anew. By default a large piece comes from
    the kernel and goes back there, and filling its pages costs ten times what the arithmetic
    of a ReLU does.
    """
    if platform.system() != "Linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mmap_max, trim_threshold, top_pad = -4, -1, -2  # of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 64 << 20)
    except (OSError, AttributeError):
        pass  # another C library: only slower


def _is_amd_with_avx2() -> bool:
    if platform.system() != "Linux":
        return False
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return False
    return "AuthenticAMD" in text and " avx2 " in text
