import pytest
import torch
from torch import nn

from sw_mm.layers import GlobalResponseNorm, LayerNorm2d, set_norm_eval


def test_layer_norm_2d_normalises_the_channels_of_each_position():
    norm = LayerNorm2d(6).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    spread = x - x.mean(1, keepdim=True)
    expected = spread / (spread.square().mean(1, keepdim=True) + 1e-6).sqrt()
    expected = expected * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)
    result = norm(x)
    torch.testing.assert_close(result, expected)
    assert result.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('use_bias', [True, False])
def test_global_response_norm_is_its_formula(use_bias):
    norm = GlobalResponseNorm(5, use_bias=use_bias).double()
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    assert torch.equal(norm(x), x), 'zero parameters make it the identity'
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    energy = (x**2).sum((1, 2), keepdim=True) ** 0.5
    expected = norm.gamma * (x * energy / (energy.mean(3, keepdim=True) + 1e-6)) + x
    expected = expected + norm.beta if use_bias else expected
    torch.testing.assert_close(norm(x), expected)
    assert {name: tuple(p.shape) for name, p in norm.named_parameters()} == dict.fromkeys(
        ['gamma', 'beta'] if use_bias else ['gamma'], (1, 1, 1, 5)
    )


def test_global_response_norm_survives_dead_channels():
    norm = GlobalResponseNorm(3)
    nn.init.ones_(norm.gamma)
    x = torch.zeros(1, 2, 2, 3)
    x[..., 0] = 1
    x.requires_grad_()
    norm(x).sum().backward()
    assert x.grad.isfinite().all()
    assert norm.gamma.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_global_response_norm_sums_low_precision_in_float32(dtype):
    norm = GlobalResponseNorm(4)
    nn.init.ones_(norm.gamma)
    x = torch.full((1, 64, 64, 4), 300.0, dtype=dtype)  # the sum of squares is far beyond what float16 can hold
    result = norm(x)
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), torch.full_like(x, 600.0).float(), rtol=0.01, atol=0)


def test_set_norm_eval_touches_batch_norms_only():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.SyncBatchNorm(4)), nn.Dropout())
    set_norm_eval(net)
    assert [m.training for m in (net, net[0], net[1], net[2], net[2][0], net[3])] == [
        True,
        True,
        False,
        True,
        False,
        True,
    ]
