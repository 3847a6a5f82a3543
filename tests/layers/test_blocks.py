import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sw_mm.layers import DropPath, GRNBlock, LayerNormBlock, SqueezeExcite

CHANNELS = 8


def mixer():
    return nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS)


def make(design: str, **kwargs) -> nn.Module:
    if design == 'grn':
        return GRNBlock(mixer(), CHANNELS, nn.BatchNorm2d, **kwargs)
    return LayerNormBlock(mixer(), CHANNELS, **kwargs)


@pytest.fixture(params=['grn', 'layer norm'])
def design(request):
    return request.param


@pytest.fixture
def x():
    return torch.randn(2, CHANNELS, 5, 6, dtype=torch.float64)


@pytest.fixture
def block(design):
    return trained(make(design))


def trained(block: nn.Module) -> nn.Module:
    """The block in float64 and eval mode, with no parameter or statistic at its start."""
    block = block.double().eval()
    for tensor in block.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand_like(tensor))
    return block


def test_grn_block_is_its_formula(x):
    block = trained(make('grn'))
    weights = block.state_dict()

    def norm(name, y):
        mean, var, scale, shift = (weights[f'{name}.{k}'] for k in ('running_mean', 'running_var', 'weight', 'bias'))
        return F.batch_norm(y, mean, var, scale, shift)

    y = norm('norm', block.large_kernel(x))
    gate = F.relu(F.conv2d(y.mean((2, 3), keepdim=True), weights['se.down.weight'], weights['se.down.bias']))
    y = y * F.conv2d(gate, weights['se.up.weight'], weights['se.up.bias']).sigmoid()
    y = F.gelu(F.conv2d(y, weights['pwconv1.1.weight'][..., None, None], weights['pwconv1.1.bias']))
    energy = y.square().sum((2, 3), keepdim=True).sqrt()
    gamma, beta = (weights[f'act.1.{k}'].view(-1, 1, 1) for k in ('gamma', 'beta'))
    y = gamma * y * energy / (energy.mean(1, keepdim=True) + 1e-6) + beta + y
    y = norm('pwconv2.2', F.conv2d(y, weights['pwconv2.0.weight'][..., None, None]))
    torch.testing.assert_close(block(x), x + weights['gamma'].view(-1, 1, 1) * y)


def test_layer_norm_block_is_its_formula(x):
    block = trained(make('layer norm'))
    weights = block.state_dict()
    y = F.layer_norm(
        block.large_kernel(x).movedim(1, 3), (CHANNELS,), weights['norm.weight'], weights['norm.bias'], 1e-6
    )
    y = F.gelu(F.linear(y, weights['pwconv1.weight'], weights['pwconv1.bias']))
    y = F.linear(y, weights['pwconv2.weight'], weights['pwconv2.bias'])
    torch.testing.assert_close(block(x), x + (weights['gamma'] * y).movedim(3, 1))


@pytest.mark.parametrize('layer_scale', [1e-6, 0.0])
def test_switch_to_deploy_is_exact_and_idempotent(design, x, layer_scale):
    block = trained(make(design, layer_scale_init_value=layer_scale))
    expected = block(x)
    block.switch_to_deploy()
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)
    folded = copy.deepcopy(block.state_dict())
    block.switch_to_deploy()
    torch.testing.assert_close(block.state_dict(), folded, rtol=0, atol=0)
    fresh = make(design, deploy=True).double().eval()
    fresh.load_state_dict(folded)
    assert torch.equal(fresh(x), block(x))
    assert not any(m.training for m in block.modules())


def test_official_form_leaves_the_feed_forward_part(block):
    before = copy.deepcopy(block.state_dict())
    block.switch_to_deploy('official')
    torch.testing.assert_close(block.state_dict(), before, rtol=0, atol=0)


def test_mixer_name_goes_into_the_state_dict():
    block = LayerNormBlock(mixer(), CHANNELS, mixer_name='dwconv')
    assert [name for name, _ in block.named_children()][:2] == ['dwconv', 'drop_path']
    assert block(torch.randn(1, CHANNELS, 2, 2)).shape == (1, CHANNELS, 2, 2)


def test_layer_scale_starts_at_its_value(design):
    assert make(design, layer_scale_init_value=0.5).gamma.tolist() == [0.5] * CHANNELS
    assert make(design, layer_scale_init_value=0.0).gamma is None


@pytest.mark.parametrize('value', [-1e-6, None, '1', float('inf')])
def test_layer_scale_rejects_what_is_no_scale(design, value):
    with pytest.raises(ValueError, match='layer_scale_init_value'):
        make(design, layer_scale_init_value=value)


def test_squeeze_excite_scales_channels_by_a_gate_of_the_means(x):
    gate = SqueezeExcite(CHANNELS, 2).double()
    for parameter in gate.parameters():
        nn.init.normal_(parameter)
    factor = gate(x) / x
    torch.testing.assert_close(factor, factor[:, :, :1, :1].expand_as(factor))
    shuffled = x.flatten(2)[:, :, torch.randperm(30)].view_as(x)
    torch.testing.assert_close((gate(shuffled) / shuffled)[..., :1], factor[..., :1])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_squeeze_excite_stays_in_range_under_autocast(dtype):
    gate, x = SqueezeExcite(64, 16), 3e4 * torch.rand(2, 64, 5, 6)
    nn.init.uniform_(gate.down.weight, 0.0, 0.2)
    expected = gate(x.to(dtype).float())
    with torch.autocast('cpu', dtype):
        result = gate(x.to(dtype))
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-3)


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    drop = DropPath(0.25)
    x = torch.ones(4000, 2, 2)
    kept = drop(x)
    torch.testing.assert_close(kept.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))
    assert kept.mean() == pytest.approx(1, abs=0.05)
    assert drop.eval()(x) is x
    assert DropPath(0.0).train()(x) is x


@pytest.mark.parametrize('rate', [-0.1, 1.0, None, '0', True])
def test_drop_path_rejects_what_is_no_probability(rate):
    with pytest.raises(ValueError, match='drop_prob'):
        DropPath(rate)
