"""The Triton kernels on a card, at sizes of the models' layers: ``pytest -m gpu``.

Each runs as it is cut up on this card, then by the rules and by other configurations: all with the same bits.
"""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sw_mm.kernels import shift_strips, shift_tables

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device'),
]
DEVICE = 'cuda'

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
# Channels, height, width, kernel, padding (left, right, top, bottom), stride, dilation.
DEPTHWISE = {
    'RepLKNet-31B, stage 1': (128, 56, 56, (31, 31), (15, 15, 15, 15), 1, 1),
    'RepLKNet-31B, stage 4': (1024, 7, 7, (13, 13), (6, 6, 6, 6), 1, 1),
    'UniRepLKNet-T, stage 2': (160, 28, 28, (13, 13), (6, 6, 6, 6), 1, 1),
    'UniRepLKNet-T, dilated branch': (320, 14, 14, (5, 5), (4, 4, 4, 4), 1, 2),
    'SLaK-T, stage 3': (504, 14, 14, (47, 5), (2, 2, 23, 23), 1, 1),
    'MobileNetV2-LK, stride 2': (96, 112, 112, (9, 9), (4, 4, 4, 4), 2, 1),
    'detection, sizes at run time': (60, 50, 84, (3, 51), (25, 25, 1, 1), 1, 1),
    'segmentation, sizes at run time': (122, 128, 128, (49, 3), (1, 1, 24, 24), 1, 1),
    'few channels, even kernel': (5, 33, 31, (4, 6), (2, 3, 1, 2), 1, 1),
}
# Channels, height, width, length of the strips, side of the filters.
SHIFT = {
    'SW-T, stage 1': (60, 56, 56, 51, 3),
    'SW-T, stage 2': (122, 28, 28, 49, 3),
    'SW-T, stage 3': (246, 14, 14, 47, 3),
    'SW-T, stage 4': (492, 7, 7, 13, 3),
    'filters of 5': (60, 28, 28, 51, 5),
    'detection, sizes at run time': (122, 50, 84, 49, 3),
}


CONFIGS = (
    {},
    {'block': 32, 'tile': 8, 'column_tile': 8, 'warps': 1},
    {'block': 64, 'warps': 2, 'registers': 128},
)


@pytest.fixture(params=TOLERANCE, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    if request.param == torch.bfloat16 and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip('bf16 needs a card of compute capability 8.0')
    return request.param


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    error = torch.linalg.vector_norm(actual.double() - expected) / torch.linalg.vector_norm(expected)
    assert error <= TOLERANCE[actual.dtype], float(error)


def check(passes: Callable[[], tuple[Tensor, ...]], expected: tuple[Tensor, ...]) -> None:
    from sw_mm.kernels._tuned import Config, use_table

    first = passes()
    for actual, reference in zip(first, expected, strict=True):
        assert_close(actual, reference)
    for config in (Config(**numbers) for numbers in CONFIGS):
        with use_table(SimpleNamespace(get=lambda key, rules, config=config: config)):
            assert all(map(torch.equal, passes(), first)), config


def draw(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(DEVICE, dtype)


@pytest.mark.parametrize('layer', DEPTHWISE.values(), ids=DEPTHWISE.keys())
def test_depthwise_passes_match_float64(layer, dtype):
    from sw_mm.kernels.depthwise_conv2d import triton as kernels

    channels, height, width, kernel_size, padding, stride, dilation = layer
    geometry = (stride, stride), padding, (dilation, dilation)
    x, weight = draw(4, channels, height, width, dtype=dtype), draw(channels, 1, *kernel_size, dtype=dtype)
    bias = draw(channels, dtype=dtype)
    x64, weight64 = x.double().requires_grad_(), weight.double().requires_grad_()
    expected = F.conv2d(F.pad(x64, padding), weight64, bias.double(), stride, 0, dilation, channels)
    grad = draw(*expected.shape, dtype=dtype)
    expected_grads = torch.autograd.grad(expected, (x64, weight64), grad.double())

    def passes() -> tuple[Tensor, Tensor, Tensor]:
        return (
            kernels.forward(x, weight, bias, *geometry),
            kernels.input_grad(grad, weight, (height, width), *geometry),
            kernels.weight_grad(x, grad, kernel_size, *geometry),
        )

    check(passes, (expected.detach(), *expected_grads))


@pytest.mark.parametrize('layer', SHIFT.values(), ids=SHIFT.keys())
def test_shift_wise_passes_match_float64(layer, dtype):
    from sw_mm.kernels.shift_conv2d import triton as kernels

    channels, height, width, length, k = layer
    tables = shift_tables(channels, length, k, 4)
    along, across = tables.strip_padding, (k // 2, k // 2)
    paddings = along + across, across + along, across + across
    strips = [
        strip.to(DEVICE, dtype) for strip in shift_strips(torch.randn(channels * tables.num_shifts, 1, k, k), tables)
    ]
    x, bias = draw(4, channels, height, width, dtype=dtype), draw(channels, dtype=dtype)
    grads = [draw(*x.shape, dtype=dtype) for _ in strips]
    x64, strips64 = x.double().requires_grad_(), [strip.double().requires_grad_() for strip in strips]
    maps = [
        F.conv2d(F.pad(x64, padding), strip, groups=channels) for strip, padding in zip(strips64, paddings, strict=True)
    ]
    expected_grads = torch.autograd.grad(maps, (x64, *strips64), [grad.double() for grad in grads])
    expected_folded = maps[0] + maps[1] + bias.double()[:, None, None]

    def passes() -> tuple[Tensor, ...]:
        return (
            *kernels.maps(x, strips, paddings),
            kernels.folded(x, strips[:2], bias, paddings[:2]),
            kernels.input_grad(grads, strips, paddings),
            *kernels.weight_grads(x, grads, strips, paddings),
        )

    check(passes, (*(branch.detach() for branch in maps), expected_folded.detach(), *expected_grads))


def test_maps_of_more_than_2_to_the_31_elements():
    from sw_mm.kernels.depthwise_conv2d import triton as kernels

    if torch.cuda.mem_get_info()[0] < 24 * 2**30:
        pytest.skip('needs 24 GiB of free memory')
    x = torch.zeros(3, 64, 3400, 3400, dtype=torch.float16, device=DEVICE).contiguous(memory_format=torch.channels_last)
    assert x.numel() > 2**31
    x[-1, :, -40:] = 0.1 * draw(64, 40, 3400, dtype=torch.float16)  # the gradient must fit into fp16
    weight = draw(64, 1, 3, 5, dtype=torch.float16)
    geometry = (1, 1), (2, 2, 1, 1), (1, 1)
    end = x[-1:, :, -40:].double()
    weight64 = weight.double().requires_grad_()
    expected = F.conv2d(end, weight64, padding=(1, 2), groups=64)
    out = kernels.forward(x, weight, None, *geometry)
    assert_close(out[-1:, :, -39:], expected[:, :, 1:].detach())
    assert not out[0].any()
    del out
    assert_close(kernels.weight_grad(x, x, (3, 5), *geometry), torch.autograd.grad(expected, weight64, end)[0])
