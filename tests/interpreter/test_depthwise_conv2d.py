import random
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sw_mm.kernels.depthwise_conv2d import triton as kernels
from sw_mm.kernels.depthwise_conv2d.geometry import memory_format_of


@dataclass(frozen=True)
class Case:
    size: tuple[int, int]
    kernel_size: tuple[int, int]
    padding: tuple[int, int, int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    images: int = 1
    channels: int = 3
    dtype: torch.dtype = torch.float32

    @property
    def geometry(self) -> tuple:
        return self.stride, self.padding, self.dilation


CASES = {
    # Maps that are not square have their sizes at run time, square ones are compiled for their size.
    'rows': Case((4, 6), (3, 5), (2, 2, 1, 1)),
    'columns': Case((6, 4), (5, 3), (1, 1, 2, 2)),
    'rows, fixed': Case((5, 5), (3, 5), (2, 2, 1, 1), images=2),
    'columns, fixed': Case((5, 5), (5, 3), (1, 1, 2, 2), images=2),
    'one pixel': Case((1, 1), (3, 3), (1, 1, 1, 1)),
    'one pixel out of many': Case((3, 4), (3, 4), (0, 0, 0, 0)),
    'kernel larger than the map': Case((3, 2), (7, 8), (4, 3, 3, 3)),
    'kernel larger than the map, fixed': Case((3, 3), (7, 9), (4, 4, 3, 3)),
    'even kernel': Case((4, 5), (4, 2), (1, 0, 1, 2)),
    'asymmetric padding': Case((4, 5), (3, 4), (0, 3, 2, 0)),
    'asymmetric padding, fixed': Case((4, 4), (3, 4), (3, 0, 0, 2)),
    'cut on the left and above': Case((5, 6), (3, 3), (-1, 2, -2, 1)),
    'cut on the right and below, fixed': Case((6, 6), (3, 3), (2, -1, 1, 0)),
    'output longer than the map': Case((2, 3), (2, 3), (4, 4, 3, 3)),
    'stride 2': Case((5, 6), (3, 3), (1, 1, 1, 1), stride=(2, 2)),
    'stride 2, fixed': Case((6, 6), (3, 3), (1, 1, 1, 1), stride=(2, 2), images=2),
    'stride 2, pixels left over': Case((6, 7), (2, 3), (0, 0, 0, 0), stride=(3, 2)),
    'stride beyond the kernel': Case((5, 7), (1, 2), (0, 0, 0, 0), stride=(3, 4)),
    'dilation 2': Case((5, 4), (3, 3), (2, 2, 2, 2), dilation=(2, 2)),
    'dilation 3, fixed': Case((5, 5), (3, 3), (3, 3, 3, 3), dilation=(3, 3)),
    'stride 2, dilation 2': Case((6, 7), (3, 3), (2, 2, 2, 2), stride=(2, 2), dilation=(2, 2)),
    'stride 2, dilation 3': Case((7, 6), (3, 3), (1, 1, 3, 3), stride=(2, 2), dilation=(3, 3)),
    'stride 4, dilation 6': Case((9, 3), (3, 2), (0, 1, 6, 6), stride=(4, 1), dilation=(6, 1)),
    'wide map': Case((1, 30), (1, 3), (1, 1, 0, 0), channels=2),
    'tall map': Case((30, 1), (3, 1), (0, 0, 1, 1), channels=2),
    'channels by ones': Case((3, 2), (2, 3), (1, 1, 1, 0), channels=65),
    'channels by twos': Case((2, 2), (3, 3), (1, 1, 1, 1), channels=70),
    'channels by fours': Case((2, 2), (3, 3), (1, 1, 1, 1), channels=68),
    'channels fill the blocks': Case((2, 2), (3, 3), (1, 1, 1, 1), channels=64),
    'no image': Case((4, 5), (3, 3), (1, 1, 1, 1), images=0),
    'fp16': Case((4, 6), (3, 5), (2, 2, 1, 1), dtype=torch.float16),
    'bf16': Case((4, 6), (3, 5), (2, 2, 1, 1), dtype=torch.bfloat16),
    'bf16, fixed': Case((5, 5), (5, 3), (1, 1, 2, 2), dtype=torch.bfloat16),
}


def check_all_passes(case: Case, assert_close) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(case.dtype)

    x = draw(case.images, case.channels, *case.size)
    weight, bias = draw(case.channels, 1, *case.kernel_size), draw(case.channels)
    x64, weight64 = x.double().requires_grad_(), weight.double().requires_grad_()
    padded = F.pad(x64, case.padding)
    expected = F.conv2d(padded, weight64, bias.double(), case.stride, 0, case.dilation, case.channels)
    grad = draw(*expected.shape)
    expected_input_grad, expected_weight_grad = torch.autograd.grad(expected, (x64, weight64), grad.double())

    out = kernels.forward(x, weight, bias, *case.geometry)
    input_grad = kernels.input_grad(grad, weight, case.size, *case.geometry)
    weight_grad = kernels.weight_grad(x, grad, case.kernel_size, *case.geometry)
    for tensor in (out, input_grad, weight_grad):
        assert tensor.dtype == case.dtype
        assert tensor.is_contiguous()  # as the inputs are
    assert_close(out, expected.detach())
    assert_close(input_grad, expected_input_grad)
    assert_close(weight_grad, expected_weight_grad)


@pytest.mark.parametrize('case', CASES.values(), ids=CASES.keys())
def test_passes_match_float64(case, assert_close):
    check_all_passes(case, assert_close)


@pytest.mark.parametrize('name', ['rows', 'columns', 'rows, fixed', 'columns, fixed', 'stride 2', 'stride 2, fixed'])
def test_tiles_with_halo_match_float64(name, assert_close, monkeypatch):
    monkeypatch.setattr(kernels, '_LONGEST_TILE', 2)
    check_all_passes(CASES[name], assert_close)


def test_long_lines_of_the_gradient_come_in_segments(assert_close, monkeypatch):
    monkeypatch.setattr(kernels, '_LONGEST_TILE', 3)
    check_all_passes(Case((2, 8), (2, 4), (3, 0, 0, 1)), assert_close)
    check_all_passes(Case((2, 11), (1, 3), (1, 1, 0, 0), stride=(1, 2)), assert_close)


@pytest.mark.parametrize(('warps', 'splits'), [(1, 1), (6, 3), (13, 5), (20, 10), (2048, 25)])
def test_weight_grad_does_not_depend_on_the_split(warps, splits, assert_close, monkeypatch):
    monkeypatch.setattr(kernels, '_WEIGHT_GRAD_WARPS', warps)
    case = Case((5, 5), (3, 3), (1, 1, 1, 1), images=5)
    x = torch.empty(case.images, case.channels, *case.size, device='meta')
    partial = kernels.plan_weight_grad(x, x, case.kernel_size, *case.geometry).arguments['partial']
    assert len(partial) == splits
    check_all_passes(case, assert_close)


def _random_case(seed: int) -> Case:
    rng = random.Random(seed)

    def pair(low: int, high: int) -> tuple[int, int]:
        return rng.randint(low, high), rng.randint(low, high)

    while True:
        size = pair(1, 7) if rng.random() < 0.5 else (rng.randint(1, 6),) * 2
        case = Case(size, pair(1, 5), pair(-1, 4) + pair(-1, 4), pair(1, 3), pair(1, 3), rng.randint(1, 2))
        left, right, top, bottom = case.padding
        padded = size[0] + top + bottom, size[1] + left + right
        if all(padded[i] > case.dilation[i] * (case.kernel_size[i] - 1) for i in (0, 1)):
            return case


@pytest.mark.parametrize('seed', [*range(20), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(20, 300))])
def test_any_geometry_matches_float64(seed, assert_close, monkeypatch):
    monkeypatch.setattr(kernels, '_LONGEST_TILE', 2 + seed % 4)
    check_all_passes(_random_case(seed), assert_close)


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last', 'every other channel', 'cropped', 'expanded'])
def test_any_strides_of_the_input(layout):
    x = torch.randn(2, 6, 6, 5)
    x = {
        'contiguous': x,
        'channels_last': x.contiguous(memory_format=torch.channels_last),
        'every other channel': x.contiguous(memory_format=torch.channels_last)[:, ::2],
        'cropped': x[:, :, 1:4, 1:5],
        'expanded': x[:, :1].expand(-1, 4, -1, -1),
    }[layout]
    weight, bias = torch.randn(3, 3, x.shape[1], 1).permute(2, 3, 0, 1), torch.randn(2 * x.shape[1])[::2]
    out = kernels.forward(x, weight, bias, (1, 1), (1, 1, 1, 1), (1, 1))
    torch.testing.assert_close(out, F.conv2d(x, weight, bias, padding=1, groups=x.shape[1]))
    assert out.is_contiguous(memory_format=memory_format_of(x))


def test_no_bias_is_no_bias():
    x, weight = torch.randn(1, 3, 4, 4), torch.randn(3, 1, 3, 3)
    out = kernels.forward(x, weight, None, (1, 1), (1, 1, 1, 1), (1, 1))
    torch.testing.assert_close(out, F.conv2d(x, weight, padding=1, groups=3))


def test_padding_stays_clear_of_infinities():
    """What a tap meets outside the map is not multiplied with zero, which would make NaN of an infinite weight."""
    x, weight = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3)
    weight[0, 0, 0, 0] = torch.inf
    out = kernels.forward(x, weight, None, (1, 1), (1, 1, 1, 1), (1, 1))
    assert out[0, 0, 0].tolist() == [4, 6, 4]
    assert out[0, 0, 1:, 1:].isinf().all()


def test_unsupported_tells_why():
    x, weight = torch.randn(1, 2, 3, 3), torch.randn(2, 1, 3, 3)
    assert kernels.unsupported(x, weight) is None
    assert kernels.unsupported(x.bfloat16(), weight.bfloat16(), torch.randn(2).bfloat16()) is None
    assert 'x is torch.float64' in kernels.unsupported(x.double(), weight)
    assert 'bias is torch.int64' in kernels.unsupported(x, weight, torch.ones(2, dtype=torch.int64))
    assert 'weight is on meta; the Triton kernels need a CUDA device' in kernels.unsupported(x, weight.to('meta'))
