# SPDX-License-Identifier: Apache-2.0
"""The oneDNN library inside Paddle's own wheel, reached from Python.

Paddle's dynamic mode computes convolutions on a CPU with kernels of its own, which are several
times slower. The library is called through `ctypes` on the memory of Paddle's tensors, so no
compiler and no further package is needed. The names below are those of oneDNN's C interface
(`dnnl.h`, version 3).
"""

from __future__ import annotations

import ctypes
import functools
import threading
from os import path as osp
from typing import Optional
from typing import Sequence

import paddle

MAJOR, OPENMP = 3, 2  # the version that the constants belong to, and DNNL_RUNTIME_OMP
FLOAT32, ANY_FORMAT = 3, 1
TRAINING, INFERENCE, BACKWARD, BACKWARD_DATA = 64, 96, 128, 160
GLOBAL_STATISTICS, SCALE_FLAG, SHIFT_FLAG = 1, 2, 4  # of a batch normalisation
DIRECT, RELU, MULTIPLY, ADD = 1, 0x20, 0x1FFF1, 0x1FFF0
MAX_POOL, MEAN_POOL = 0x1FF, 0x3FF  # the mean without padding
# Arguments of primitives
SRC, SRC_1, DST, WEIGHTS, BIAS, MEAN, VARIANCE, SCALE = 1, 2, 17, 33, 41, 49, 50, 51
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_SCALE, DIFF_SHIFT = 129, 145, 161, 255, 256
POST_OP = 32768  # DNNL_ARG_ATTR_MULTIPLE_POST_OP_BASE
QUERY_MEMORY_OF_ARGUMENT, QUERY_IMPLEMENTATION = 255, 8

Handle = ctypes.c_void_p


class Unavailable(Exception):
    """Says why Paddle's oneDNN is not used."""


class _Version(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("major", "minor", "patch")),
        ("hash", ctypes.c_char_p),
        ("cpu_runtime", ctypes.c_uint),
        ("gpu_runtime", ctypes.c_uint),
    ]


class _Argument(ctypes.Structure):
    _fields_ = [("name", ctypes.c_int), ("memory", Handle)]


class Library:
    """The loaded library with an engine and a stream.

    Raises:
        Unavailable: If the wheel has no such library, or one of another kind.
    """

    def __init__(self):
        folder = osp.join(osp.dirname(paddle.__file__), "libs")
        try:
            self._functions = ctypes.CDLL(osp.join(folder, f"libdnnl.so.{MAJOR}"))
            openmp = ctypes.CDLL(osp.join(folder, "libiomp5.so"))
            self._functions.dnnl_version.restype = ctypes.POINTER(_Version)
            version = self._functions.dnnl_version().contents
        except (OSError, AttributeError) as error:
            raise Unavailable(f"Paddle's wheel has no such library ({error})") from None
        self.version = f"{version.major}.{version.minor}.{version.patch}"
        if version.major != MAJOR or version.cpu_runtime != OPENMP:
            raise Unavailable(f"its version {self.version} or its threads are of another kind")
        # The library is bound to this OpenMP, which Paddle leaves at one thread whatever its own
        # number of threads is.
        self.threads = int(paddle.get_flags("FLAGS_paddle_num_threads").popitem()[1])
        openmp.omp_set_num_threads(self.threads)
        self.query_memory = self._functions.dnnl_primitive_desc_query_md
        self.query_memory.argtypes = (Handle, ctypes.c_int, ctypes.c_int)
        self.query_memory.restype = Handle
        self.size_of = self._functions.dnnl_memory_desc_get_size
        self.size_of.argtypes, self.size_of.restype = (Handle,), ctypes.c_size_t
        self.is_equal = self._functions.dnnl_memory_desc_equal
        self.is_equal.argtypes = (Handle, Handle)
        self.set_pointer = self._functions.dnnl_memory_set_data_handle
        self.set_pointer.argtypes = (Handle, Handle)
        self.run = self._functions.dnnl_primitive_execute
        self.run.argtypes = (Handle, Handle, ctypes.c_int, ctypes.POINTER(_Argument))
        self.engine = self.create("engine_create", 1, ctypes.c_size_t(0))
        self.stream = self.create("stream_create", self.engine, 1)

    def call(self, name: str, *args) -> None:
        """Calls `dnnl_NAME`.

        Raises:
            RuntimeError: If it fails.
        """
        status = getattr(self._functions, f"dnnl_{name}")(*args)
        if status:
            raise RuntimeError(f"oneDNN's {name} failed with status {status}")

    def create(self, name: str, *args) -> Handle:
        """Calls `dnnl_NAME`, whose first argument is where it puts the handle that it makes."""
        handle = Handle()
        self.call(name, ctypes.byref(handle), *args)
        return handle


@functools.cache
def library() -> Library:
    """Loads the library.

    Raises:
        Unavailable: If it can't be used here.
    """
    return Library()


def integers(values: Sequence[int]) -> ctypes.Array:
    """Numbers as the library takes dimensions."""
    return (ctypes.c_int64 * len(values))(*values)


def describe(dims: Sequence[int], order: Optional[Sequence[int]] = None) -> Handle:
    """Describes a dense float32 tensor.

    Args:
        dims: Its dimensions in oneDNN's order, such as (N, C, H, W).
        order: The dimensions from outermost to innermost in memory; None for that of `dims`.
    """
    strides, step = [0] * len(dims), 1
    for axis in reversed(order or range(len(dims))):
        strides[axis] = step
        step *= dims[axis]
    return describe_strided(dims, strides)


def describe_strided(dims: Sequence[int], strides: Sequence[int]) -> Handle:
    """Describes a float32 tensor by the numbers from one index of a dimension to the next."""
    name = "memory_desc_create_with_strides"
    return library().create(name, len(dims), integers(dims), FLOAT32, integers(strides))


def describe_any(dims: Sequence[int]) -> Handle:
    """Describes a float32 tensor in whatever format suits a primitive best."""
    name = "memory_desc_create_with_tag"
    return library().create(name, len(dims), integers(dims), FLOAT32, ANY_FORMAT)


class Primitive:
    """A primitive whose arguments are addresses of float32 data.

    Args:
        description: The primitive's descriptor.
        roles: Names of the arguments, in the order of the addresses in a call.

    Attributes:
        memories: Descriptors of the arguments' memory.
        implementation: The name of the kernel that oneDNN has chosen, such as "gemm:jit:f32".
    """

    def __init__(self, description: Handle, roles: Sequence[int]):
        own = library()
        self._primitive = own.create("primitive_create", description)
        self._description = description  # owns the descriptors of memories
        name = ctypes.c_char_p()
        own.call("primitive_desc_query", description, QUERY_IMPLEMENTATION, 0, ctypes.byref(name))
        self.implementation = name.value.decode()
        self.memories = [
            Handle(own.query_memory(description, QUERY_MEMORY_OF_ARGUMENT, role)) for role in roles
        ]
        self._handles = [
            own.create("memory_create", memory, own.engine, None) for memory in self.memories
        ]
        self._arguments = (_Argument * len(roles))(*map(_Argument, roles, self._handles))
        self._lock = threading.Lock()

    def __call__(self, *addresses: int) -> None:
        own = library()
        with self._lock:  # Another thread must not change the addresses before the run ends.
            for handle, address in zip(self._handles, addresses):
                own.set_pointer(handle, address)
            status = own.run(self._primitive, own.stream, len(addresses), self._arguments)
        if status:
            raise RuntimeError(f"a primitive of oneDNN failed with status {status}")


def make_additions(is_accumulated: bool, added: Optional[Handle] = None) -> Handle:
    """Attributes by which a primitive adds to its result.

    Args:
        is_accumulated: Whether it adds what is in the place of the result.
        added: Describes a further argument that it adds (`post_operation`); None for none.
    """
    own = library()
    attributes, operations = own.create("primitive_attr_create"), own.create("post_ops_create")
    if is_accumulated:
        own.call("post_ops_append_sum", operations, ctypes.c_float(1), 0, 0)
    if added is not None:
        own.call("post_ops_append_binary", operations, ADD, added)
    own.call("primitive_attr_set_post_ops", attributes, operations)
    return attributes


def post_operation(number: int) -> int:
    """The name of the argument of an operation after the primitive's own, from 0 on."""
    return POST_OP * (number + 1) | SRC_1


def make_reorder(source: Handle, target: Handle) -> Primitive:
    """Makes a primitive that copies from one layout to another; its arguments are both."""
    own = library()
    name = "reorder_primitive_desc_create"
    description = own.create(name, source, own.engine, target, own.engine, None)
    return Primitive(description, (SRC, DST))
