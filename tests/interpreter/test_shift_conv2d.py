from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sw_mm.kernels.depthwise_conv2d import triton as depthwise
from sw_mm.kernels.shift_conv2d import triton as kernels


@dataclass(frozen=True)
class Case:
    size: tuple[int, int]
    kernel_size: int
    small_kernel: int
    images: int = 1
    channels: int = 3
    dtype: torch.dtype = torch.float32
    cropped: int = 0

    @property
    def length(self) -> int:
        return -(-self.kernel_size // self.small_kernel) * self.small_kernel

    @property
    def paddings(self) -> list[tuple[int, int, int, int]]:
        before = self.kernel_size // 2 - self.cropped
        along = before, self.length - 2 * self.cropped - 1 - before
        across = (self.small_kernel // 2,) * 2
        return [along + across, across + along, across + across]

    @property
    def kernel_shapes(self) -> list[tuple[int, int, int, int]]:
        k, length = self.small_kernel, self.length - 2 * self.cropped
        return [(self.channels, 1, *size) for size in ((k, length), (length, k), (k, k))]


CASES = {
    # Maps that are not square have their sizes at run time, square ones are compiled for their size.
    'open sizes': Case((4, 6), 5, 3),
    'open sizes, tall': Case((6, 3), 5, 3),
    'fixed size': Case((5, 5), 5, 3, images=2),
    'strips inside the map': Case((7, 8), 4, 1),
    'strips reach over the map': Case((2, 3), 11, 3),
    'strips reach over the map, fixed': Case((3, 3), 13, 3),
    'strips cropped to the map': Case((4, 4), 13, 3, cropped=3),
    'filters of 5': Case((3, 4), 9, 5),
    'one pixel': Case((1, 1), 5, 3),
    'channels by ones': Case((3, 3), 4, 3, channels=65),
    'channels by twos': Case((3, 2), 4, 3, channels=70),
    'no image': Case((4, 4), 5, 3, images=0),
    'fp16': Case((4, 6), 5, 3, dtype=torch.float16),
    'bf16': Case((4, 4), 5, 3, dtype=torch.bfloat16),
}


def check_all_passes(case: Case, assert_close) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(case.dtype)

    x, bias = draw(case.images, case.channels, *case.size), draw(case.channels)
    strips, paddings = [draw(*shape) for shape in case.kernel_shapes], case.paddings
    grads = [draw(*x.shape) for _ in strips]
    x64, strips64 = x.double().requires_grad_(), [strip.double().requires_grad_() for strip in strips]
    expected = [
        F.conv2d(F.pad(x64, padding), strip, groups=case.channels)
        for strip, padding in zip(strips64, paddings, strict=True)
    ]
    expected_input_grad, *expected_weight_grads = torch.autograd.grad(
        expected, [x64, *strips64], [grad.double() for grad in grads]
    )

    maps = kernels.maps(x, strips, paddings)
    folded = kernels.folded(x, strips[:2], bias, paddings[:2])
    input_grad = kernels.input_grad(grads, strips, paddings)
    for tensor in (*maps, folded, input_grad):
        assert tensor.dtype == case.dtype
        assert tensor.is_contiguous()  # as the inputs are
    for actual, branch in zip(maps, expected, strict=True):
        assert_close(actual, branch.detach())
    assert_close(folded, (expected[0] + expected[1]).detach() + bias.double()[:, None, None])
    assert_close(input_grad, expected_input_grad)
    for actual, gradient in zip(kernels.weight_grads(x, grads, strips, paddings), expected_weight_grads, strict=True):
        assert_close(actual, gradient)


@pytest.mark.parametrize('case', CASES.values(), ids=CASES.keys())
def test_passes_match_float64(case, assert_close):
    check_all_passes(case, assert_close)


@pytest.mark.parametrize('name', ['open sizes', 'fixed size', 'strips reach over the map, fixed'])
def test_tiles_with_halo_match_float64(name, assert_close, monkeypatch):
    monkeypatch.setattr(kernels, '_LONGEST_TILE', 2)
    monkeypatch.setattr(kernels, '_LONGEST_PAIR_TILE', 2)
    monkeypatch.setattr(depthwise, '_LONGEST_TILE', 2)
    check_all_passes(CASES[name], assert_close)


@pytest.mark.parametrize('rows', [1, 2, 3])
@pytest.mark.parametrize('size', [(5, 4), (5, 5)])
def test_any_number_of_rows_a_program(rows, size, assert_close, monkeypatch):
    monkeypatch.setattr(kernels, '_MOST_ROWS', rows)
    case = Case(size, 5, 3)
    x = torch.empty(1, case.channels, *size, device='meta')
    strips = [torch.empty(shape, device='meta') for shape in case.kernel_shapes]
    assert kernels.plan_folded(x, strips[:2], None, case.paddings[:2]).constants['ROWS'] == rows
    check_all_passes(case, assert_close)


def test_gradient_of_the_folded_form():
    case = Case((4, 5), 5, 3)
    strips, paddings = [torch.randn(shape) for shape in case.kernel_shapes[:2]], case.paddings[:2]
    x, grad = torch.randn(1, 3, 4, 5, requires_grad=True), torch.randn(1, 3, 4, 5)
    out = sum(F.conv2d(F.pad(x, p), strip, groups=3) for strip, p in zip(strips, paddings, strict=True))
    torch.testing.assert_close(kernels.folded(x.detach(), strips, None, paddings), out.detach())
    expected = torch.autograd.grad(out, x, grad)[0]
    torch.testing.assert_close(kernels.input_grad((grad, grad), strips, paddings), expected)


def test_an_infinite_pixel_stays_within_reach():
    """Neighbouring rows share the pixels that a program loads; each must use those within its own reach only."""
    case = Case((9, 9), 4, 1)
    strips, paddings = [torch.ones(shape) for shape in case.kernel_shapes[:2]], case.paddings[:2]
    x = torch.zeros(1, 3, 9, 9)
    x[:, :, 4, 4] = torch.inf
    out = kernels.folded(x, strips, None, paddings)
    expected = sum(F.conv2d(F.pad(x, p), strip, groups=3) for strip, p in zip(strips, paddings, strict=True))
    assert out.isinf().sum() == expected.isinf().sum()
    assert torch.equal(out, expected)
