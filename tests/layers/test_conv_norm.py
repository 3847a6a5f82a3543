"""Convolutions that merge with the batch norm behind them, against PyTorch's own."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sw_mm.analysis import complexity
from sw_mm.layers import ConvNorm, DepthwiseConv2d, set_weights

CHANNELS = 5
# Size of the kernel, stride and dilation.
GEOMETRIES = [(1, 1, 1), (7, 1, 1), (7, 2, 1), (5, 3, 2), (3, 2, 4), ((13, 3), 1, 1), ((3, 13), 2, 1), ((5, 1), 2, 3)]


def trained(module: nn.Module) -> nn.Module:
    """The module in float64 and eval mode, with no parameter or statistic at its start."""
    generator = torch.Generator().manual_seed(0)
    for tensor in module.double().state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
    return module.eval()


def random_map(height: int = 9, width: int = 8) -> torch.Tensor:
    return torch.randn(2, CHANNELS, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('size', [(9, 8), (12, 12), (1, 3)])
@pytest.mark.parametrize(('kernel_size', 'stride', 'dilation'), GEOMETRIES)
def test_depthwise_convolution_is_pytorchs(kernel_size, stride, dilation, size, bias):
    conv, x = trained(DepthwiseConv2d(CHANNELS, kernel_size, stride, dilation, bias)), random_map(*size)
    expected = F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, groups=CHANNELS)
    torch.testing.assert_close(conv(x), expected)
    assert expected.shape[2:] == tuple((side - 1) // stride + 1 for side in size)
    plain = nn.Conv2d(
        CHANNELS, CHANNELS, kernel_size, stride, conv.padding, dilation, groups=CHANNELS, bias=bias
    ).double()
    plain.load_state_dict(conv.state_dict())
    torch.testing.assert_close(conv(x), plain(x))


@pytest.mark.parametrize(('kernel_size', 'stride', 'dilation'), GEOMETRIES)
def test_published_macs_count_every_tap_at_every_position(kernel_size, stride, dilation):
    conv = DepthwiseConv2d(CHANNELS, kernel_size, stride, dilation)
    rows, columns = conv.kernel_size
    for height, width in ((9, 8), (1, 3)):
        out = conv(random_map(height, width).float())
        assert conv.published_macs(height, width) == rows * columns * out[0].numel()


def test_taps_beyond_the_map_are_published_but_not_executed():
    cost = complexity(DepthwiseConv2d(CHANNELS, 31), (CHANNELS, 7, 6))
    assert cost.macs == CHANNELS * 31 * 31 * 7 * 6
    assert cost.executed_macs == CHANNELS * 13 * 11 * 7 * 6


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        *(('channels', dict(channels=value)) for value in (0, 5.0, None, True)),
        *(('kernel_size', dict(kernel_size=value)) for value in (0, 4, 3.0, (3, 4), (3, 3, 3), (3,), None, '3')),
        *(('stride', dict(stride=value)) for value in (0, -1, 2.0, (2, 2))),
        *(('dilation', dict(dilation=value)) for value in (0, 1.5, None)),
    ],
)
def test_bad_arguments_are_named(name, arguments):
    with pytest.raises(ValueError, match=f'{name} must be'):
        DepthwiseConv2d(**{'channels': CHANNELS, 'kernel_size': 3, **arguments})


def test_numbers_of_numpy_are_as_good_as_pythons():
    numpy = DepthwiseConv2d(np.int64(4), (np.int32(3), np.int64(5)), np.int64(2), np.int64(3))
    assert str(numpy) == str(DepthwiseConv2d(4, (3, 5), 2, 3))
    assert {type(number) for number in (*numpy.kernel_size, *numpy.padding, numpy.groups)} == {int}


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('norm', [nn.BatchNorm2d, nn.SyncBatchNorm, partial(nn.BatchNorm2d, affine=False)])
def test_absorbing_a_norm_is_exact(norm, bias):
    conv, norm, x = trained(DepthwiseConv2d(CHANNELS, 5, 2, bias=bias)), trained(norm(CHANNELS)), random_map()
    expected = norm(conv(x))
    conv.absorb_norm(norm)
    torch.testing.assert_close(conv(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    'conv',
    [
        lambda: nn.Conv2d(CHANNELS, 6, 1, bias=False),
        lambda: nn.Conv2d(CHANNELS, 6, 3, 2),
        lambda: DepthwiseConv2d(5, 3),
    ],
)
@pytest.mark.parametrize('with_norm', [True, False])
@pytest.mark.parametrize('act', [None, nn.ReLU()])
def test_folding_is_exact_and_idempotent(conv, with_norm, act):
    conv, x = conv(), random_map()
    layer = trained(ConvNorm(conv, nn.BatchNorm2d(conv.out_channels) if with_norm else None, act))
    expected = layer.conv(x)
    expected = layer.bn(expected) if with_norm else expected
    expected = expected if act is None else act(expected)
    torch.testing.assert_close(layer(x), expected)
    weight, bias = layer.folded()
    assert weight.dtype == bias.dtype == torch.float64
    assert not weight.requires_grad
    assert not bias.requires_grad
    layer.switch_to_deploy()
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.conv.weight, weight)
    torch.testing.assert_close(layer.conv.bias if layer.conv.bias is not None else torch.zeros_like(bias), bias)
    state = copy.deepcopy(layer.state_dict())
    assert set(state) <= {'conv.weight', 'conv.bias'}
    layer.switch_to_deploy()
    torch.testing.assert_close(layer.state_dict(), state, rtol=0, atol=0)


def test_folding_keeps_dtype_and_rounds_once():
    layer = trained(ConvNorm(DepthwiseConv2d(CHANNELS, 3, bias=False), nn.BatchNorm2d(CHANNELS))).float()
    weight, _ = copy.deepcopy(layer).double().folded()
    layer.switch_to_deploy()
    assert layer.conv.weight.dtype == layer.conv.bias.dtype == torch.float32
    assert torch.equal(layer.conv.weight, weight.float())


def test_norms_without_statistics_cannot_be_folded():
    layer = ConvNorm(DepthwiseConv2d(CHANNELS, 3), nn.BatchNorm2d(CHANNELS, track_running_stats=False))
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ValueError, match='keeps no running statistics'):
        layer.switch_to_deploy()
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize('trainable', [True, False])
def test_new_weights_are_as_trainable_as_the_old_ones(trainable):
    layer = nn.Linear(3, 2, bias=False).requires_grad_(trainable)
    set_weights(layer, torch.ones(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    assert [(p.dtype, p.requires_grad) for p in layer.parameters()] == [(torch.float32, trainable)] * 2
    assert layer(torch.ones(1, 3)).tolist() == [[3, 3]]
    set_weights(layer, torch.ones(4, 3), None)
    assert list(layer.state_dict()) == ['weight']
    assert layer(torch.ones(1, 3)).shape == (1, 4)
