# SPDX-License-Identifier: Apache-2.0
"""Settings of the environment that libraries read while they are imported."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import warnings

PROCESSOR_VARIABLES = (
    *("MKL_NUM_THREADS", "FLAGS_paddle_num_threads", "MKL_DEBUG_CPU_TYPE"),
    "NVIDIA_TF32_OVERRIDE",
)

LARGEST_KEPT = 32 << 20  # bytes; glibc admits no more


def prepare() -> None:
    """Sets Paddle's threads and its path for matrices; call it before Paddle is imported.

    Matplotlib gets the backend that writes files: a notebook names its own (MPLBACKEND) for the
    processes that it starts, too, which may not have it. In a notebook's own process it stays, and
    shows pictures.

    By default Paddle's wheel runs on ONE thread, and its matrix library takes a slow path on
    AMD processors unless the environment names their type: together a factor of three. Paddle's GPU
    build lets products and convolutions round float32 to the 10 bits of TF32 on GPUs that can
    (Ampere and later); here they keep float32. Variables that the user has set stay as they are.
    """
    processes = int(os.environ.get("PADDLE_LOCAL_SIZE", 1))  # on this machine, by Paddle's launcher
    for name in PROCESSOR_VARIABLES[:2]:
        os.environ.setdefault(name, str(max(count_cores() // processes, 1)))
    if _is_amd_with_avx2():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # cuBLAS and cuDNN read it when they load.
    if "ipykernel.kernelapp" not in sys.modules:
        os.environ["MPLBACKEND"] = "Agg"
    _keep_memory()
    # Paddle warns at each import that C++ extensions, which nobody builds here, would need it.
    warnings.filterwarnings("ignore", message="No ccache found")
    # pooch imports tqdm's bars of notebooks, which warn that ipywidgets is missing.
    warnings.filterwarnings("ignore", message="IProgress not found")


def count_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _keep_memory() -> None:
    """Makes the C library keep freed memory for the process.

    Paddle's CPU allocator asks the C library for the memory of each tensor. By default glibc gets
    a large piece from the kernel and gives it back when it is freed, and the kernel clears its
    pages each time. Keeping them makes a training step 17% faster on MNIST and 6% on CIFAR-10
    (two cores, glibc's malloc). Pieces of LARGEST_KEPT bytes or more go back to the kernel, since
    a few of them would fragment the memory; so would arenas of several threads, since a freed piece
    stays with its arena. A variable MALLOC_... in the environment turns this off.
    """
    if platform.system() != "Linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    # Names in malloc.h
    mmap_threshold, trim_threshold, top_pad, arena_max = -3, -1, -2, -8
    try:
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, LARGEST_KEPT)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 64 << 20)
        mallopt(arena_max, 1)
    except (OSError, AttributeError):
        pass  # another C library, which is only slower


def _is_amd_with_avx2() -> bool:
    if platform.system() != "Linux":
        return False
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return False
    return "AuthenticAMD" in text and " avx2 " in text
