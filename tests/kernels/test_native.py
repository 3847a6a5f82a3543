"""The compiled CPU kernels against the plain form, in blocks, bands and threads; and how they are made."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from sw_mm.kernels import _native, backends, depthwise_conv2d, use_backend
from sw_mm.kernels.depthwise_conv2d import aten, native, reference
from sw_mm.kernels.depthwise_conv2d.geometry import output_size

pytestmark = pytest.mark.skipif(backends()['native'] is not None, reason=str(backends()['native']))

# Without fused multiply-adds, sums of 25000 products are off by 2.2e-6 in fp32, by half as much with them.
FUSED = torch.backends.cpu.get_cpu_capability() != 'DEFAULT'
TOLERANCE = {torch.float32: 2e-6 if FUSED else 3e-6, torch.float16: 1e-3, torch.bfloat16: 5e-3}
ONE = (1, 1)
# Size of the map, kernel, stride, padding (left, right, top, bottom), dilation.
GEOMETRIES = {
    'rows': ((9, 30), (3, 11), ONE, (5, 5, 1, 1), ONE),
    'columns': ((29, 8), (15, 3), ONE, (1, 1, 9, 5), ONE),
    'wider than the map': ((5, 6), (9, 11), ONE, (5, 5, 4, 4), ONE),
    'output larger than the map': ((4, 3), (3, 3), ONE, (9, 7, 8, 6), ONE),
    'cut': ((9, 12), (3, 5), ONE, (-1, 2, 3, -2), ONE),
    'one pixel': ((1, 1), (1, 1), ONE, (0, 0, 0, 0), ONE),
    'stride': ((12, 17), (5, 7), (2, 3), (3, 2, 2, 1), ONE),
    'stride beyond the kernel': ((12, 13), (2, 1), (3, 2), (0, 0, 0, 1), ONE),
    'dilation': ((12, 17), (3, 4), ONE, (4, 5, 3, 3), (3, 2)),
    'stride and dilation': ((13, 19), (4, 3), (2, 3), (2, 3, 4, 1), (3, 2)),
    'equal stride and dilation': ((13, 14), (3, 3), (2, 2), (2, 2, 1, 3), (2, 2)),
    'bands': ((150, 83), (5, 7), ONE, (3, 3, 2, 2), ONE),
    'along rows': ((13, 61), (5, 7), ONE, (4, 1, 3, 2), ONE),
    'down strips': ((13, 61), (5, 5), ONE, (4, 1, 3, 2), ONE),
    'bands, strips': ((150, 83), (7, 7), ONE, (3, 3, 3, 3), ONE),
    'bands, columns': ((140, 90), (7, 3), ONE, (1, 1, 3, 3), ONE),
    'bands, stride': ((150, 83), (5, 4), (2, 3), (3, 1, 2, 4), (1, 2)),
    'bands, dilation': ((150, 83), (3, 5), ONE, (4, 4, 9, 3), (5, 2)),
}


@pytest.fixture(autouse=True)
def all_kernels(monkeypatch, plan_anew):
    """Leave nothing to oneDNN."""
    monkeypatch.setattr(native, '_FEW_TAPS', 0)
    monkeypatch.setattr(native, '_FEW_TAPS_ON_LARGE_MAPS', 0)
    monkeypatch.setattr(native, '_FEW_TAPS_TO_DIFFERENTIATE', 0)


def tensors(geometry, channels=3, batch=2, dtype=torch.float32, channels_last=False):
    """Input, kernels, bias and gradient of the output."""
    size, kernel_size, *steps = geometry
    generator = torch.Generator().manual_seed(0)
    out = output_size(size, kernel_size, *steps)
    shapes = (batch, channels, *size), (channels, 1, *kernel_size), (channels,), (batch, channels, *out)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return [
        made.contiguous(memory_format=memory_format) if made.dim() == 4 else made
        for made in (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    ]


def passes(x, weight, bias, grad, steps):
    return (
        native.forward(x, weight, bias, *steps),
        native.input_grad(grad, weight, tuple(x.shape[2:]), *steps),
        native.weight_grad(x, grad, tuple(weight.shape[2:]), *steps),
    )


def expected_passes(x, weight, bias, grad, steps):
    x, weight = (t.double().requires_grad_() for t in (x, weight))
    out = reference.depthwise_conv2d(x, weight, bias.double(), *steps)
    return out, *torch.autograd.grad(out, (x, weight), grad.double())


def assert_right(inputs, steps):
    for actual, expected in zip(passes(*inputs, steps), expected_passes(*inputs, steps), strict=True):
        assert actual.dtype == inputs[0].dtype
        assert (actual - expected).norm() <= TOLERANCE[actual.dtype] * expected.norm()


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('channels', [1, 16, 37])
@pytest.mark.parametrize('name', GEOMETRIES)
def test_every_pass(name, channels, channels_last):
    geometry = GEOMETRIES[name]
    assert_right(tensors(geometry, channels, channels_last=channels_last), geometry[2:])


@pytest.mark.parametrize('columns', range(1, 27))
def test_every_width(columns):
    """Every width of a tile, at either edge of the map and at both; odd heights too."""
    for kernel in (1, 2, 13):
        geometry = (7 + columns % 2, columns), (3, kernel), ONE, (kernel // 2, kernel // 2, 1, 1), ONE
        assert_right(tensors(geometry, channels=2, batch=1), geometry[2:])


@pytest.mark.parametrize('columns', [24, 25, 31, 32, 40, 55, 56, 57, 63, 65, 90, 113, 128])
def test_every_cut_of_a_row(columns):
    """Maps that are convolved along their rows: numbers and widths of tiles, odd ends, every height of a kernel."""
    for height, rows, taps in ((11, 1, 3), (4, 2, 2), (7, 3, 1), (8, 3, 3), (5, 6, 3), (23, 11, 5), (9, 7, 7)):
        taps = min(taps, columns // 5)
        for padding in ((taps // 2, taps // 2, rows // 2, rows // 2), (9, 2, 0, 12), (-2, 3, -1, rows)):
            geometry = (height, columns), (rows, taps), ONE, padding, ONE
            assert_right(tensors(geometry, channels=2, batch=1), geometry[2:])


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('size', [3, 5, 7])
@pytest.mark.parametrize('columns', [16, 24, 31, 49, 65, 130])
def test_every_strip(columns, size, dtype):
    """Square kernels that roll down strips: numbers and widths of these, maps of few rows and of several bands."""
    half = size // 2
    for rows in (1, 3, 40, 150):
        for padding in (
            (half,) * 4,
            (size + 3, 2, size + 5, size + 2),
            (-2, 3, 1 - rows // 3, size),
            (60, 0, 9, 6),
            (60, 400, size + 5, 6),
            (1 - columns // 2, 3, 1 - rows // 3, size),
        ):
            geometry = (rows, columns), (size, size), ONE, padding, ONE
            assert_right(tensors(geometry, channels=2, batch=1, dtype=dtype), geometry[2:])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('name', ['rows', 'columns', 'stride and dilation', 'bands', 'along rows', 'bands, strips'])
def test_16_bits(name, channels_last, dtype):
    geometry = GEOMETRIES[name]
    assert_right(tensors(geometry, 20, dtype=dtype, channels_last=channels_last), geometry[2:])


def test_bf16_rounds_as_pytorch_does():
    values = torch.tensor(
        [1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.4e38, float('inf'), -float('inf'), float('nan'), 0.0]
    )
    x = values.view(1, 1, 1, -1).bfloat16()
    for last in (False, True):
        maps = x.expand(1, 16, 1, 8).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        twice = native.forward(maps, torch.full((16, 1, 1, 1), 1.00390625).bfloat16(), None, ONE, (0,) * 4, ONE)
        bias = torch.full((16,), 2**-8 + 2**-20)
        sums = native.forward(maps, torch.ones(16, 1, 1, 1).bfloat16(), bias, ONE, (0,) * 4, ONE)
        torch.testing.assert_close(twice, maps, equal_nan=True, rtol=0, atol=0)
        torch.testing.assert_close(sums, (maps.float() + bias[0]).bfloat16(), equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_numbers_are_rounded_as_pytorch_does(dtype):
    """Ties, overflow, infinities, NaN, and numbers that are subnormal or vanish."""
    info = torch.finfo(dtype)
    exact = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        info.max,
        -info.max,
        info.tiny,
        info.smallest_normal / 2,
        -3 * info.smallest_normal / 4,
    ]
    x = torch.tensor([*exact, math.inf, -math.inf, math.nan]).to(dtype)
    factors = [1, -1, 1 + info.eps / 2, 1 + info.eps, 1 - info.eps / 4, 2, 0.5, 0.75, 1 / 3, info.eps, info.eps / 2]
    for factor in factors:
        factor = torch.tensor(factor, dtype=torch.float32)
        expected = (x.float() * factor).to(dtype)
        for channels, size, kernel in ((16, 8, 1), (16, 24, 3), (3, 24, 3)):
            # A number in the middle of a map of zeros meets each tap of a kernel.
            maps = torch.zeros(len(x), channels, 1, size, dtype=dtype)
            maps[..., size // 2] = x.view(-1, 1, 1)
            weight = torch.full((channels, 1, kernel, kernel), float(factor))
            for last in (False, True):
                maps = maps.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
                out = native.forward(maps, weight, None, ONE, (kernel // 2,) * 4, ONE)
                half = kernel // 2
                met = out[..., size // 2 - half : size // 2 + half + 1]
                torch.testing.assert_close(
                    met, expected.view(-1, 1, 1, 1).expand_as(met), equal_nan=True, rtol=0, atol=0
                )


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('name', ['rows', 'along rows', 'down strips'])
def test_nothing_is_read_from_beside_a_view(name, channels_last, dtype):
    x, weight, bias, grad = tensors(GEOMETRIES[name], 37, dtype=dtype, channels_last=channels_last)
    inputs = []
    for tensor in (x, weight, bias, grad):
        surroundings = torch.full([side + 4 for side in tensor.shape], float('nan'), dtype=dtype)
        if tensor.dim() == 4 and channels_last:
            surroundings = surroundings.contiguous(memory_format=torch.channels_last)
        view = surroundings[tuple(slice(2, 2 + side) for side in tensor.shape)]
        inputs.append(view.copy_(tensor))
    assert_right(inputs, GEOMETRIES[name][2:])


@pytest.mark.parametrize('name', ['rows', 'along rows', 'down strips'])
def test_any_strides(name):
    x, weight, bias, grad = tensors(GEOMETRIES[name], 20)
    turned = x.transpose(2, 3).contiguous().transpose(2, 3), weight.flip(1).transpose(0, 3).contiguous().transpose(0, 3)
    spread = grad[:1, :1].expand_as(grad)  # as the gradient of a sum is
    for inputs in ((*turned, bias, grad), (x, weight, bias, spread)):
        assert_right(inputs, GEOMETRIES[name][2:])


@pytest.mark.parametrize('name', ['bands', 'bands, strips'])
@pytest.mark.parametrize('openmp', [True, False])
@pytest.mark.parametrize('batch', [1, 5])
@pytest.mark.parametrize('channels_last', [False, True])
def test_threads_do_not_change_a_bit(channels_last, batch, openmp, name, monkeypatch):
    if not openmp:
        monkeypatch.setattr(_native, 'openmp', lambda: None)
    elif _native.openmp() is None:
        pytest.skip('this PyTorch shares no OpenMP library')
    inputs = tensors(GEOMETRIES[name], 37, batch, channels_last=channels_last)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            results.append(passes(*inputs, GEOMETRIES[name][2:]))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for one, other in zip(results[0], result, strict=True):
            assert torch.equal(one, other)


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason='PyTorch has no MKL')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('channels_last', [False, True])
def test_very_large_fp32_kernels_on_large_maps_are_products_of_spectra(channels_last, dtype, monkeypatch):
    spies = [Mock(wraps=function) for function in (aten._fft_forward, aten._fft_weight_grad)]
    monkeypatch.setattr(aten, '_fft_forward', spies[0])
    monkeypatch.setattr(aten, '_fft_weight_grad', spies[1])
    for size, padding in ((56, (25, 25, 25, 25)), (28, (25, 25, 25, 25)), (80, (30, 22, 28, 24))):
        geometry = (size, size), (51, 51), ONE, padding, ONE
        assert_right(tensors(geometry, channels=2, dtype=dtype, channels_last=channels_last), geometry[2:])
        assert [spy.call_count for spy in spies] == ([2, 1] if dtype is torch.float32 and size > 28 else [0, 0])
        for spy in spies:
            spy.reset_mock()


def test_small_kernels_on_channels_last_maps_are_left_to_onednn(monkeypatch, plan_anew):
    monkeypatch.undo()
    plan_anew()
    monkeypatch.setattr(native, '_Convolutions', None)
    monkeypatch.setattr(native, '_WeightGrads', None)
    geometry = (8, 9), (3, 3), ONE, (1, 1, 1, 1), ONE
    assert_right(tensors(geometry, channels_last=True), geometry[2:])
    with pytest.raises(TypeError, match='not callable'):
        native.forward(*tensors(geometry)[:3], *geometry[2:])


def test_fp64_is_refused():
    x, weight, *_ = tensors(GEOMETRIES['rows'], dtype=torch.float64)
    with use_backend('native'), pytest.raises(RuntimeError, match=r"'native'.*x is torch\.float64"):
        depthwise_conv2d(x, weight, padding=5)


def test_gradients_in_one_memory_are_told_apart():
    """A map's gradient and its transpose share an address, a height and a width."""
    paddings = [3, 3, 1, 1, 5, 5, 1, 1, 1, 1, 1, 1]
    kernels = [torch.randn(2, 1, *size) for size in ((3, 7), (3, 11), (3, 3))]
    grad = torch.randn(2, 2, 9, 9)
    grads = [grad, grad.transpose(2, 3), grad.transpose(0, 1)]
    actual = torch.ops.sw_mm.shift_input_grad(grads, kernels, paddings, 'native')
    doubles = [[tensor.double() for tensor in tensors] for tensors in (grads, kernels)]
    expected = torch.ops.sw_mm.shift_input_grad(*doubles, paddings, 'aten')
    assert (actual - expected).norm() <= 2e-6 * expected.norm()


def test_settings_of_new_tensors_do_not_matter():
    geometry = GEOMETRIES['rows']
    inputs = tensors(geometry, 20)
    expected = passes(*inputs, geometry[2:])
    for dtype in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(dtype)
        try:
            with torch.device('meta'):
                actual = passes(*inputs, geometry[2:])
        finally:
            torch.set_default_dtype(torch.float32)
        for one, other in zip(actual, expected, strict=True):
            assert torch.equal(one, other)


def test_tensors_that_are_not_what_they_hold():
    weight = torch.randn(3, 1, 3, 5)
    negative = torch.randn(2, 3, 6, 7, dtype=torch.complex64).conj().imag
    assert negative.is_neg()
    for x in (negative, torch._efficientzerotensor(2, 3, 6, 7)):
        expected = reference.depthwise_conv2d(x.clone(), weight, padding=(2, 2, 1, 1))
        torch.testing.assert_close(depthwise_conv2d(x, weight, padding=(2, 2, 1, 1)), expected)
    with torch.autograd.forward_ad.dual_level():
        x = torch.autograd.forward_ad.make_dual(torch.randn(2, 3, 6, 7), torch.randn(2, 3, 6, 7))
        tangent = torch.autograd.forward_ad.unpack_dual(depthwise_conv2d(x, weight, padding=(1, 2))).tangent
        inner = torch.autograd.forward_ad.unpack_dual(x).tangent
    torch.testing.assert_close(tangent, reference.depthwise_conv2d(inner, weight, padding=(2, 2, 1, 1)))


def test_maps_without_rows():
    x = torch.randn(2, 3, 0, 5, requires_grad=True)
    weight = torch.randn(3, 1, 3, 3, requires_grad=True)
    depthwise_conv2d(x, weight, padding=2).sum().backward()
    assert x.grad.shape == x.shape
    assert not weight.grad.any()


def test_steps_beyond_the_map():
    geometry = (11, 12), (3, 3), (2, 2**40), (300, 300, 300, 300), (300, 300)
    assert_right(tensors(geometry, 3), geometry[2:])


def test_operators_called_by_themselves_are_checked():
    x, weight, bias, grad = tensors(GEOMETRIES['rows'])
    steps = *GEOMETRIES['rows'][2:], 'native'
    wide = [grad, torch.cat([grad, grad], 3)]
    for call in (
        lambda: torch.ops.sw_mm.depthwise_conv2d(x, weight, bias[:1], *steps),
        lambda: torch.ops.sw_mm.depthwise_conv2d(x, weight, None, *steps[:2], (0, 1), 'native'),
        lambda: torch.ops.sw_mm.depthwise_conv2d(x.double(), weight.double(), None, *steps),
        lambda: torch.ops.sw_mm.shift_weight_grads(x, wide, [weight] * 2, [5, 5, 1, 1] * 2, 'native'),
        lambda: torch.ops.sw_mm.depthwise_conv2d(x, weight[:2], None, *steps),
        lambda: torch.ops.sw_mm.depthwise_conv2d_input_grad(grad, weight.repeat(1, 2, 1, 1), x.shape[2:], *steps),
        lambda: torch.ops.sw_mm.depthwise_conv2d_weight_grad(x, grad[:1], weight.shape[2:], *steps),
        lambda: torch.ops.sw_mm.depthwise_conv2d_weight_grad(x[0], grad[0], weight.shape[2:], *steps),
    ):
        with pytest.raises(ValueError, match='must'):
            call()


SCRIPT = """
import torch
from torch.nn import functional as F
from sw_mm.kernels import backends, depthwise_conv2d, use_backend
print(torch.backends.cpu.get_cpu_capability())
print(backends()['native'] or 'usable')
x, weight = torch.randn(2, 19, 14, 23), torch.randn(19, 1, 5, 9, requires_grad=True)
def weight_grad(function):
    out = function()
    return out, torch.autograd.grad(out.square().sum(), weight)[0]
ours = weight_grad(lambda: depthwise_conv2d(x, weight, padding=(2, 4)))
plain = weight_grad(lambda: F.conv2d(x, weight, padding=(2, 4), groups=19))
torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-3)
try:
    with use_backend('native'):
        depthwise_conv2d(x, weight, padding=(2, 4))
except RuntimeError as error:
    print(error)
"""


def run(code=SCRIPT, **environment):
    """Run a script in an environment of its own; give what it prints, line by line."""
    kept = {name: value for name, value in os.environ.items() if name in ('PATH', 'HOME', 'XDG_CACHE_HOME')}
    result = subprocess.run(
        [sys.executable, '-c', code], env=kept | environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.mark.parametrize('capability', ['avx2', 'default'])
def test_smaller_vectors(capability):
    """Compiled for less than this processor has, as on others."""
    with_all, usable, *rest = run(ATEN_CPU_CAPABILITY=capability)
    assert with_all.lower().startswith(capability)
    assert (usable, rest) == ('usable', [])


CONVERSIONS = """
import torch
from sw_mm.kernels.depthwise_conv2d import native
def convolved(x, weight):
    return native.forward(x, weight, None, (1, 1), (0, 0, 0, 0), (1, 1))
every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(1, 1, 256, 256)
one = torch.ones(1, 1, 1, 1)
for dtype in (torch.float16, torch.bfloat16):
    x = every.view(dtype)
    torch.testing.assert_close(convolved(x, one), x, rtol=0, atol=0, equal_nan=True)
x = every.view(torch.float16)
assert torch.set_flush_denormal(True)  # flushes numbers of fp32, not what is subnormal in fp16
torch.testing.assert_close(convolved(x, one), x, rtol=0, atol=0, equal_nan=True)
"""


@pytest.mark.parametrize('environment', [{}, {'ATEN_CPU_CAPABILITY': 'avx2'}, {'ATEN_CPU_CAPABILITY': 'default'}])
def test_every_number_of_16_bits(environment):
    assert not run(CONVERSIONS, **environment)


@pytest.mark.parametrize(
    ('environment', 'reason'),
    [
        ({'PATH': ''}, r'no C\+\+ compiler .*none of c\+\+, g\+\+, clang\+\+ is on the PATH'),
        ({'CXX': 'no-such-compiler'}, "CXX names 'no-such-compiler'"),
        ({'CXX': 'false'}, 'false cannot compile them'),
        ({'CXX': 'g++ "'}, 'No closing quotation'),
    ],
)
def test_without_a_compiler_there_is_a_reason_and_another_backend(environment, reason, tmp_path):
    _, why, error = run(XDG_CACHE_HOME=str(tmp_path), **environment)
    assert re.search(reason, why)
    assert why in error


def test_compiled_once(tmp_path):
    run(XDG_CACHE_HOME=str(tmp_path))
    (binary,) = (tmp_path / 'sw_mm' / 'native').iterdir()
    made = binary.stat().st_mtime_ns
    assert run(XDG_CACHE_HOME=str(tmp_path), PATH='')[1] == 'usable'
    assert binary.stat().st_mtime_ns == made


def test_what_cannot_be_loaded_is_made_anew(tmp_path):
    run(XDG_CACHE_HOME=str(tmp_path))
    (binary,) = (tmp_path / 'sw_mm' / 'native').iterdir()
    binary.write_bytes(b'')
    assert run(XDG_CACHE_HOME=str(tmp_path))[1] == 'usable'
    assert binary.stat().st_size


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path):
    (tmp_path / 'sw_mm').touch()
    assert run(XDG_CACHE_HOME=str(tmp_path), TMPDIR=str(tmp_path))[1] == 'usable'


def test_a_compiled_model_may_need_them_first():
    code = """
import torch
from sw_mm.kernels import depthwise_conv2d
x, weight = torch.randn(2, 3, 9, 8), torch.randn(3, 1, 5, 5)
print(torch.compile(lambda x: depthwise_conv2d(x, weight, padding=2), fullgraph=True, backend='aot_eager')(x).shape)
"""
    assert run(code) == ['torch.Size([2, 3, 9, 8])']


def test_the_source_is_part_of_the_package():
    assert Path(_native.__file__).with_suffix('.cpp').is_file()
