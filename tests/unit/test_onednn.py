# SPDX-License-Identifier: Apache-2.0
"""oneDNN's primitives against Paddle's operators in float64, and when they are used."""

import ctypes
import functools
import random
import types
from concurrent import futures

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from helpers import has_onednn
from paddle import nn
from ppsci.utils import logger

import functions
from kernels import availability
from kernels import convolutions
from kernels import elementwise
from kernels import kernel_gradients
from kernels import maps
from kernels import onednn
from kernels import products
from kernels.convolutions import Geometry
from kernels.convolutions import Kernel

TOLERANCE = 2e-5  # as a share of the largest number

pytestmark = pytest.mark.skipif(not has_onednn(), reason="Paddle's wheel has no oneDNN to call")


@pytest.fixture(autouse=True)
def with_onednn(monkeypatch):
    """Also where a variable turns oneDNN off."""
    monkeypatch.delenv(availability.VARIABLE, raising=False)
    monkeypatch.setattr(
        availability, "is_available", functools.cache(availability.is_available.__wrapped__)
    )


def assert_close(found, expected, what=""):
    """A tensor in float32 is one in float64, up to TOLERANCE of the largest number."""
    assert found.shape == expected.shape, what
    difference = np.abs(found.numpy() - expected.numpy()).max()
    assert difference <= TOLERANCE * np.abs(expected.numpy()).max() + 1e-30, what


def assert_maps(geometry, seed=0):
    """A convolution's three maps are those of F.conv2d."""
    paddle.seed(seed)
    x, weight, y, bias = (
        paddle.randn(shape)
        for shape in (
            geometry.x_shape,
            geometry.kernel_shape,
            geometry.y_shape,
            [geometry.n_out],
        )
    )
    pictures = x.transpose([2, 3, 0, 1]).astype("float64")
    kernel = weight.astype("float64")
    pictures.stop_gradient = kernel.stop_gradient = False
    padding = [number for pair in geometry.padding for number in pair]
    expected = F.conv2d(pictures, kernel, None, geometry.stride, padding)
    product = (expected * y.transpose([2, 3, 0, 1]).astype("float64")).sum()
    x_gradient, gradient = paddle.grad(product, [pictures, kernel])
    expected, x_gradient = expected.transpose([2, 3, 0, 1]), x_gradient.transpose([2, 3, 0, 1])

    arranged = Kernel(weight)
    found = convolutions.forward(x, arranged, geometry)
    assert_close(found, expected, f"{geometry}, forward")
    found = convolutions.forward(x, arranged, geometry, bias)
    assert_close(found, expected + bias.astype("float64"), f"{geometry}, forward with a bias")
    found = convolutions.backward_data(y, arranged, geometry)
    assert_close(found, x_gradient, f"{geometry}, backward data")
    found = kernel_gradients.backward_kernel(x, y, geometry)
    assert_close(found, gradient, f"{geometry}, backward kernel")


def draw_geometry(rng):
    """A random convolution whose output has a pixel at least."""
    channels = (1, 2, 3, 4, 5, 8, 16, 17, 32)
    while True:
        geometry = Geometry(
            rng.choice((1, 1, 2, 3, 5, 16, 17, 32)),
            rng.choice(channels),
            rng.choice(channels),
            rng.randint(1, 11),
            rng.randint(1, 11),
            (rng.randint(1, 5), rng.randint(1, 5)),
            rng.choice((1, 1, 2, 2, 3)),
            tuple((rng.randint(0, 2), rng.randint(0, 2)) for _ in range(2)),
        )
        lengths = zip((geometry.height, geometry.width), geometry.padding, geometry.size)
        if all(length + sum(pad) >= size for length, pad, size in lengths):
            return geometry


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tile", [kernel_gradients.TILE, 5])
def test_convolutions_of_random_sizes(tile, seed, monkeypatch):
    monkeypatch.setattr(kernel_gradients, "TILE", tile)
    make_dilated = functools.cache(kernel_gradients._Dilated)
    monkeypatch.setattr(kernel_gradients, "_make_dilated", make_dilated)
    rng = random.Random(seed)
    for number in range(25):
        assert_maps(draw_geometry(rng), number)


AROUND = ((1, 1), (1, 1))
CASES = {
    "1x1": Geometry(4, 8, 16, 6, 6, (1, 1), 1, ((0, 0), (0, 0))),
    "1x1 of one pixel": Geometry(4, 8, 16, 1, 1, (1, 1), 1, ((0, 0), (0, 0))),
    "one of all": Geometry(1, 1, 1, 1, 1, (1, 1), 1, ((0, 0), (0, 0))),
    "a row": Geometry(3, 4, 5, 1, 9, (1, 7), 1, ((0, 0), (3, 3))),
    "a column": Geometry(3, 4, 5, 9, 1, (7, 1), 1, ((3, 3), (0, 0))),
    "1x7": Geometry(2, 16, 8, 9, 9, (1, 7), 1, ((0, 0), (3, 3))),
    "7x1": Geometry(2, 16, 8, 9, 9, (7, 1), 1, ((3, 3), (0, 0))),
    "as large as the picture": Geometry(3, 5, 6, 4, 4, (4, 4), 1, ((0, 0), (0, 0))),
    "larger than the picture": Geometry(3, 5, 6, 2, 2, (5, 5), 1, ((2, 2), (2, 2))),
    "MNIST's 5x5": Geometry(5, 8, 16, 14, 14, (5, 5), 2, ((1, 2), (1, 2))),
    "MNIST's 5x5 of 7x7": Geometry(5, 8, 16, 7, 7, (5, 5), 2, ((2, 2), (2, 2))),
    "MNIST's last": Geometry(5, 1, 16, 28, 28, (5, 5), 2, ((1, 2), (1, 2))),
    "folded": Geometry(2, 16, 16, 16, 16, (4, 4), 2, AROUND),
    "folded, few channels": Geometry(2, 3, 16, 16, 16, (4, 4), 2, AROUND),
    "odd sizes of stride 2": Geometry(2, 3, 4, 9, 7, (4, 4), 2, AROUND),
    "stride over the end": Geometry(2, 3, 4, 8, 8, (3, 3), 3, ((0, 0), (0, 0))),
    "to a picture": Geometry(2, 16, 3, 32, 32, (3, 3), 1, AROUND),
    "from a picture": Geometry(2, 3, 16, 32, 32, (3, 3), 1, AROUND),
    "from one channel": Geometry(2, 1, 16, 12, 12, (3, 3), 1, AROUND),
    "tiles": Geometry(16, 4, 5, 40, 32, (3, 3), 1, AROUND),
    "tiles in slices": Geometry(32, 33, 5, 41, 64, (5, 4), 2, ((2, 1), (1, 2))),
    "wide batch": Geometry(64, 16, 16, 4, 4, (3, 3), 1, AROUND),
}


@pytest.mark.parametrize("name", CASES)
def test_convolutions_of_special_sizes(name):
    assert_maps(CASES[name])


def test_masks_of_views():
    """oneDNN gets bare addresses, and a view's rows lie apart."""
    wide, tangent = paddle.randn([6, 8]), paddle.randn([6, 4])
    for entered in (wide[:, 2:6], wide[:4].t()[:6, :4], paddle.randn([6, 1]).expand([6, 4])):
        found = maps._mask(tangent, entered, 0.0).numpy()
        np.testing.assert_array_equal(found, np.where(entered.numpy() > 0, tangent.numpy(), 0))


def multiply_by_onednn(a, b, transposed, bias):
    rows, inner = a.shape[::-1] if transposed == "a" else a.shape
    columns = b.shape[0] if transposed == "b" else b.shape[1]
    if 1 in (rows, inner, columns):  # what oneDNN reads wrongly
        return products.multiply(a, b, transposed, bias)
    return products.multiply_by_onednn(
        a, b, (rows, inner, columns, transposed, bias is not None), bias
    )


@pytest.mark.parametrize("multiply", [products.multiply, multiply_by_onednn])
def test_products_of_random_sizes(multiply):
    rng = random.Random(0)
    for _ in range(60):
        rows, inner, columns = (rng.choice((1, 1, 2, 3, 16, 33, 128)) for _ in range(3))
        a, b, bias = paddle.randn([rows, inner]), paddle.randn([inner, columns]), None
        if rng.random() < 0.5:
            bias = paddle.randn([columns])
        expected = a.astype("float64") @ b.astype("float64")
        if bias is not None:
            expected += bias.astype("float64")
        for transposed in ("", "a", "b"):
            left = a.t().contiguous() if transposed == "a" else a
            right = b.t().contiguous() if transposed == "b" else b
            found = multiply(left, right, transposed, bias)
            what = f"[{rows}, {inner}] @ [{inner}, {columns}] {transposed} {bias is not None}"
            assert_close(found, expected, what)


@pytest.mark.parametrize("implementation", ["gemm:jit:f32", "brg_matmul:avx512_core"])
@pytest.mark.parametrize("inner", [1, 127, 128])
def test_large_products_are_onednns_where_it_has_a_fast_kernel(implementation, inner, monkeypatch):
    """128^2 * 64 are 2^20 multiplications, 127 * 128 * 64 are fewer."""
    calls = []
    monkeypatch.setattr(
        products, "_make_product", lambda *_: types.SimpleNamespace(implementation=implementation)
    )
    monkeypatch.setattr(products, "_suits_onednn", products._suits_onednn.__wrapped__)
    monkeypatch.setattr(products, "multiply_by_onednn", lambda *args: calls.append(args))
    a, b = paddle.randn([64, inner]), paddle.randn([inner, 128])
    found = products.multiply(a, b)
    if inner == 128 and implementation.startswith("brg"):
        assert found is None and calls == [(a, b, (64, 128, 128, "", False), None)]
    else:
        assert not calls
        assert_close(found, a.astype("float64") @ b.astype("float64"))


def test_onednn_names_its_kernel():
    """The name decides who multiplies, so another form of it would go unseen."""
    name = products._make_product(64, 128, 128, "", False).implementation
    assert name.startswith(("gemm:", "brg_matmul:")), name


def test_threads_do_not_disturb_each_other():
    """A primitive holds the addresses of its arguments until it has run."""
    pairs = [(paddle.randn([64, 96]), paddle.randn([96, 80])) for _ in range(3)]
    expected = [multiply_by_onednn(*pair, "", None).numpy() for pair in pairs]

    def multiply(number):
        found = (multiply_by_onednn(*pairs[number], "", None).numpy() for _ in range(300))
        return all(np.array_equal(one, expected[number]) for one in found)

    with futures.ThreadPoolExecutor(3) as pool:
        assert all(pool.map(multiply, range(3)))


# oneDNN gets addresses only, so sizes are checked before.
def test_channels_that_do_not_fit_are_refused():
    wide, narrow = paddle.randn([2, 5, 8, 8]), paddle.randn([2, 1, 8, 8])
    conv, transposed = nn.Conv2D(3, 4, 3, padding=1), nn.Conv2DTranspose(3, 4, 4, 2, [1, 1, 1, 1])
    for x in (wide, narrow):
        for apply, layer in (
            (maps.conv, conv),
            (maps.conv_mean_pool, conv),
            (maps.upsample_conv, conv),
            (maps.conv_transpose, transposed),
        ):
            with pytest.raises(ValueError, match="A map of 3 channels got pictures of"):
                apply(x, layer)


@pytest.mark.parametrize("width", [2, 4])
def test_features_that_do_not_fit_are_refused(width):
    with pytest.raises(ValueError, match="can't be multiplied by"):
        maps.linear(paddle.randn([5, width]), nn.Linear(3, 4))


def test_weights_of_another_precision_are_refused():
    conv, linear = nn.Conv2D(3, 4, 3), nn.Linear(3, 4)
    conv.to(dtype="float64")
    linear.to(dtype="float64")
    with pytest.raises(ValueError, match="float64"):
        maps.conv(paddle.randn([2, 3, 8, 8]), conv)
    with pytest.raises(ValueError, match="float64"):
        maps.linear(paddle.randn([2, 3]), linear)


@pytest.mark.parametrize("is_shifted", [False, True])
def test_products_are_accumulated(is_shifted):
    x, y, (scale, offset) = (
        paddle.randn([5, 6, 3, 4]),
        paddle.randn([5, 6, 3, 4]),
        paddle.randn([2, 3, 4]),
    )
    expected = y.astype("float64") + x.astype("float64") * scale.astype("float64")
    if is_shifted:
        expected = expected + offset.astype("float64")
    found = elementwise.accumulate(y, x, scale, offset if is_shifted else None)
    assert found is y
    assert_close(found, expected)


def test_gradients_are_scaled_and_summed():
    x, y, (scale, mean) = (
        paddle.randn([9, 7, 3, 4]),
        paddle.randn([9, 7, 3, 4]),
        paddle.randn([2, 3, 4]),
    )
    found = elementwise.scale_and_sum(x, y, scale, mean, x.var([0, 1], unbiased=False))
    x, y, scale, mean = (part.astype("float64") for part in (x, y, scale, mean))
    for part, expected in zip(found, (y * scale, y.sum([0, 1]), (y * (x - mean)).sum([0, 1]))):
        assert_close(part, expected)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_labels_of_another_number_than_the_noise_are_refused(count):
    generator = functions.WganGpCifar10Generator(4)
    with pytest.raises(ValueError):
        generator.generate(paddle.randn([4, 128]), paddle.zeros([count], "int64"))


class Wheel:
    """A library of Paddle's wheel whose version is another one."""

    def __init__(self, **version):
        self.version = onednn._Version(major=3, minor=6, patch=2, cpu_runtime=2)
        for name, number in version.items():
            setattr(self.version, name, number)

    def __call__(self, path):
        def dnnl_version():
            return ctypes.pointer(self.version)

        return types.SimpleNamespace(dnnl_version=dnnl_version)


@pytest.fixture
def log_lines(monkeypatch):
    """Lines of the log."""
    lines = []
    monkeypatch.setattr(logger, "info", lines.append)
    return lines


@pytest.fixture
def loads_again(monkeypatch):
    """The library is loaded again; primitives belong to the one that was loaded before."""
    monkeypatch.setattr(onednn, "library", functools.cache(onednn.Library))


def assert_plain(lines, reason):
    """Networks run on Paddle's operators; the log gives the reason once."""
    critic = functions.WganGpMnistDiscriminator(2)
    x = paddle.randn([2, 1, 28, 28])
    for _ in range(2):
        assert not isinstance(maps.conv(x, critic.conv_1), maps.Pictures)
        assert np.isfinite(critic.score(x)[0].numpy()).all()
    assert len(lines) == 1
    assert lines[0].startswith("Networks run on Paddle's own CPU operators: ")
    assert reason in lines[0] and lines[0].endswith(".")


def test_the_log_says_that_onednn_is_used(log_lines):
    """Where the library loads, its results are right."""
    for _ in range(2):
        assert isinstance(maps.enter(paddle.randn([1, 1, 2, 2])), maps.Pictures)
    assert len(log_lines) == 1
    assert log_lines[0].startswith("Networks run on oneDNN 3.")
    assert "thread" in log_lines[0]


def test_a_variable_turns_onednn_off(log_lines, monkeypatch):
    monkeypatch.setenv("WGANGP_ONEDNN", "0")
    assert_plain(log_lines, "WGANGP_ONEDNN is 0")


def test_other_platforms_go_without(log_lines, monkeypatch):
    monkeypatch.setattr(availability.platform, "system", lambda: "Darwin")
    assert_plain(log_lines, "this is Darwin")


def test_a_wheel_without_the_library(log_lines, loads_again, monkeypatch, tmp_path):
    monkeypatch.setattr(onednn.paddle, "__file__", str(tmp_path / "__init__.py"))
    assert_plain(log_lines, "Paddle's wheel has no such library")


@pytest.mark.parametrize("version", [{"major": 2}, {"major": 4}, {"cpu_runtime": 4}], ids=str)
def test_libraries_of_another_kind(version, log_lines, loads_again, monkeypatch):
    monkeypatch.setattr(onednn.ctypes, "CDLL", Wheel(**version))
    assert_plain(log_lines, "of another kind")


def test_a_library_without_a_function(log_lines, loads_again, monkeypatch):
    monkeypatch.setattr(onednn.ctypes, "CDLL", lambda path: types.SimpleNamespace())
    assert_plain(log_lines, "Paddle's wheel has no such library")


@pytest.mark.parametrize(
    "map", ["forward", "backward_data", "backward_kernel", "multiply_by_onednn"]
)
@pytest.mark.parametrize("wrong", [1.001, np.nan])
def test_a_self_test_that_differs(map, wrong, log_lines, monkeypatch):
    modules = {"multiply_by_onednn": products, "backward_kernel": kernel_gradients}
    module = modules.get(map, convolutions)
    right = getattr(module, map)
    monkeypatch.setattr(module, map, lambda *args: right(*args) * wrong)
    assert_plain(log_lines, "results differ from Paddle's")


def test_a_self_test_that_fails(log_lines, monkeypatch):
    def fail(*_):
        raise RuntimeError("a primitive of oneDNN failed with status 2")

    monkeypatch.setattr(convolutions, "backward_data", fail)
    assert_plain(log_lines, "self-test failed (a primitive of oneDNN failed with status 2)")


def test_the_self_test_takes_no_random_numbers(log_lines):
    paddle.seed(5)
    expected = paddle.rand([3]).numpy()
    paddle.seed(5)
    availability.is_available()
    np.testing.assert_array_equal(paddle.rand([3]).numpy(), expected)
