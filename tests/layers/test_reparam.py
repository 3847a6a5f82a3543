"""Folding algebra against the layers it folds."""

from functools import partial

import pytest
import torch
from torch import nn

from sw_mm.layers.reparam import embed_kernel, fuse_norm, norm_as_affine, scale_outputs


def trained_norm(channels: int, **kwargs) -> nn.BatchNorm2d:
    """A batch norm in evaluation mode whose every number matters."""
    norm = nn.BatchNorm2d(channels, **kwargs).double().eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
        tensor.data.uniform_(0.5, 2.0, generator=generator)
    return norm


@pytest.mark.parametrize('options', [{}, {'affine': False}, {'eps': 0.1}])
def test_affine_form_of_a_norm(options):
    norm, x = trained_norm(5, **options), torch.randn(2, 5, 3, 4, dtype=torch.float64)
    scale, shift = norm_as_affine(norm)
    torch.testing.assert_close(scale.view(-1, 1, 1) * x + shift.view(-1, 1, 1), norm(x))


def test_affine_form_is_computed_in_float64():
    norm = trained_norm(5).float()
    scale, shift = norm_as_affine(norm)
    assert scale.dtype == shift.dtype == torch.float64
    exact = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    torch.testing.assert_close(scale, exact, rtol=1e-14, atol=0)
    assert not scale.requires_grad


@pytest.mark.parametrize('bias', [True, False])
def test_norm_fused_into_a_convolution(bias):
    conv, norm = nn.Conv2d(6, 4, 3, groups=2, bias=bias).double(), trained_norm(4)
    x = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    weight, fused_bias = fuse_norm(conv.weight, conv.bias, norm)
    torch.testing.assert_close(nn.functional.conv2d(x, weight, fused_bias, groups=2), norm(conv(x)))


def test_norm_fused_into_a_linear_layer():
    linear, norm = nn.Linear(6, 4).double(), trained_norm(4)
    x = torch.randn(3, 6, dtype=torch.float64)
    weight, bias = fuse_norm(linear.weight, linear.bias, norm)
    torch.testing.assert_close(nn.functional.linear(x, weight, bias), norm(linear(x)[..., None, None])[..., 0, 0])


@pytest.mark.parametrize('shape', [(4,), (4, 3), (4, 1, 3, 5)])
def test_outputs_are_scaled(shape):
    weight, scale = torch.randn(shape), torch.randn(4)
    expected = torch.stack([row.double() * factor.double() for row, factor in zip(weight, scale, strict=True)])
    torch.testing.assert_close(scale_outputs(weight, scale), expected)


@pytest.mark.parametrize('norm', [nn.BatchNorm2d(4, track_running_stats=False), nn.GroupNorm(2, 4)])
def test_norm_without_statistics_is_refused(norm):
    with pytest.raises(ValueError, match=f'{type(norm).__name__} keeps no running statistics'):
        norm_as_affine(norm)


@pytest.mark.parametrize(
    ('kernel', 'size', 'dilation'),
    [
        ((3, 3), (7, 7), 1),
        ((3, 3), (7, 7), 3),
        ((5, 3), (13, 9), 2),
        ((1, 5), (3, 5), 1),
        ((3, 3), (3, 3), 1),
        ((2, 2), (6, 4), 3),
    ],
)
def test_embedded_kernel_has_the_same_effect(kernel, size, dilation):
    weight, x = torch.randn(4, 1, *kernel), torch.randn(2, 4, 9, 8, dtype=torch.float64)
    embedded = embed_kernel(weight, size, dilation)
    assert (embedded.dtype, tuple(embedded.shape)) == (torch.float64, (4, 1, *size))
    assert embedded.count_nonzero() == weight.numel()
    conv = partial(nn.functional.conv2d, x, groups=4)
    outer = [side // 2 for side in size]
    inner = [
        padding - (side - dilation * (taps - 1) - 1) // 2
        for padding, side, taps in zip(outer, size, kernel, strict=True)
    ]
    torch.testing.assert_close(
        conv(embedded, padding=outer), conv(weight.double(), padding=inner, dilation=dilation), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(('size', 'dilation'), [((5, 5), 3), ((6, 6), 1), ((7, 6), 1), ((1, 1), 1)])
def test_kernel_without_a_place_in_the_centre_is_refused(size, dilation):
    with pytest.raises(ValueError, match=f'size=.{size[0]}, {size[1]}'):
        embed_kernel(torch.ones(4, 1, 3, 3), size, dilation)
