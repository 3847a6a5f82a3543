"""The shift-wise layer: what it computes, how it is stored, and its deploy forms."""

import copy
import random
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from sw_mm.kernels import channel_split, shift_tables
from sw_mm.kernels.shift_conv2d import reference
from sw_mm.layers import ShiftWiseConv2d

DEPLOY_FORMS = ['full', 'official']


def trained_layer(*args, dtype=torch.float64, **kwargs) -> ShiftWiseConv2d:
    """A layer in evaluation mode whose every weight and statistic matters."""
    layer = ShiftWiseConv2d(*args, **kwargs).to(dtype)
    generator = torch.Generator().manual_seed(0)
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.uniform_(0.5, 2.0, generator=generator)
        elif isinstance(module, nn.Conv2d):
            module.weight.data.normal_(generator=generator)
    return layer.eval()


def random_map(channels, height, width, dtype=torch.float64, batch=2):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype)


def relative_error(value, expected):
    return ((value - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize('even_split', [True, False])
@pytest.mark.parametrize(('num_paths', 'num_edges', 'kernel_size'), [(1, 1, 7), (2, 4, 13), (3, 2, 13)])
def test_forward_follows_the_definition(num_paths, num_edges, kernel_size, even_split):
    layer = trained_layer(13, kernel_size, 3, num_paths, num_edges, even_split=even_split)
    x = random_map(13, 9, 8)
    rep, ghost = (part.tolist() for part in channel_split(13, 0.23, even_split))
    weight = sum(path.weight for path in layer.LoRAs)
    horizontal, vertical, centred = reference.shift_conv2d(
        x[:, rep], weight, shift_tables(len(rep), kernel_size, 3, num_edges)
    )
    mixed = layer.bn_lora1(horizontal) + layer.bn_lora2(vertical) + layer.bn_small(centred) + x[:, rep]
    torch.testing.assert_close(layer(x), torch.cat([mixed, x[:, ghost]], dim=1))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_memory_format_is_kept_and_does_not_matter(dtype):
    layer, x = trained_layer(12, 13, dtype=dtype), random_map(12, 10, 11, dtype)
    channels_last = layer(x.contiguous(memory_format=torch.channels_last))
    assert layer(x).is_contiguous()
    assert channels_last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(channels_last, layer(x), rtol=1e-4, atol=1e-4)


def test_training_step_reaches_every_parameter():
    layer, x = trained_layer(12, 13).train(), random_map(12, 6, 7).requires_grad_()
    (layer(x) * random_map(12, 6, 7)).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())
    assert x.grad.abs().sum() > 0
    assert torch.equal(layer.LoRAs[0].weight.grad, layer.LoRAs[1].weight.grad)


def test_bf16_autocast():
    layer, x = trained_layer(12, 13, dtype=torch.float32), random_map(12, 9, 8, torch.float32).requires_grad_()
    expected = layer(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = layer(x)
    assert (out.float() - expected).norm() < 2e-2 * expected.norm()
    out.float().square().mean().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in layer.parameters())


def test_empty_batch():
    layer = trained_layer(12, 13, dtype=torch.float32)
    assert layer(torch.zeros(0, 12, 8, 8)).shape == (0, 12, 8, 8)


def test_state_dict_holds_the_official_names_only():
    state = ShiftWiseConv2d(80, 51).state_dict()
    norm = ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked']
    norms = [f'{name}.{key}' for name in ('bn_lora1', 'bn_lora2', 'bn_small') for key in norm]
    assert list(state) == ['LoRAs.0.weight', 'LoRAs.1.weight', *norms]
    assert state['LoRAs.1.weight'].shape == (1020, 1, 3, 3)
    assert state['bn_small.weight'].shape == (60,)


@pytest.mark.parametrize('form', DEPLOY_FORMS)
@pytest.mark.parametrize(('dtype', 'bound'), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(
    ('kernel_size', 'small_kernel', 'size'),
    [(13, 3, (7, 7)), (13, 3, (20, 11)), (49, 3, (56, 30)), (11, 5, (12, 9)), (51, 3, (1, 14)), (5, 5, (8, 8))],
)
def test_deploy_forms_are_equal(kernel_size, small_kernel, size, dtype, bound, form):
    layer, x = trained_layer(14, kernel_size, small_kernel, dtype=dtype), random_map(14, *size, dtype)
    expected = layer(x)
    layer.switch_to_deploy(form)
    assert relative_error(layer(x), expected) < bound


def test_deploy_in_two_steps():
    layer, x = trained_layer(14, 13), random_map(14, 9, 9)
    expected = layer(x)
    layer.switch_to_deploy('official')
    layer.switch_to_deploy('full')
    torch.testing.assert_close(layer(x), expected)
    with pytest.raises(ValueError, match="form 'official'"):
        layer.switch_to_deploy('official')


@pytest.mark.parametrize('form', DEPLOY_FORMS)
def test_deploy_is_idempotent_and_reloads(form):
    layer, x = trained_layer(14, 13), random_map(14, 9, 9)
    layer.switch_to_deploy(form)
    expected, state = layer(x), copy.deepcopy(layer.state_dict())
    layer.switch_to_deploy(form)
    assert torch.equal(layer(x), expected)
    fresh = ShiftWiseConv2d(14, 13, deploy=True if form == 'full' else form).double().eval()
    fresh.load_state_dict(state)
    assert torch.equal(fresh(x), expected)
    assert fresh.form == layer.form == form


def test_names_of_the_deploy_forms():
    layer = trained_layer(14, 13)
    layer.switch_to_deploy('official')
    assert {'LoRA.weight', 'bn_lora1.weight'} < set(layer.state_dict())
    assert not any(key.startswith('LoRAs') for key in layer.state_dict())
    layer.switch_to_deploy()
    assert {name: tuple(value.shape) for name, value in layer.state_dict().items()} == {
        'horizontal': (10, 1, 3, 15),
        'vertical': (10, 1, 15, 3),
        'bias': (10,),
    }
    assert list(layer.children()) == []


@pytest.mark.parametrize('form', DEPLOY_FORMS)
def test_deploy_keeps_mode_dtype_and_frozenness(form):
    layer = trained_layer(14, 13, dtype=torch.bfloat16).train().requires_grad_(False)
    layer.switch_to_deploy(form)
    assert layer.training
    assert all(p.dtype == torch.bfloat16 and not p.requires_grad for p in layer.parameters())
    trainable = trained_layer(14, 13)
    trainable.switch_to_deploy(form)
    assert all(p.requires_grad for p in trainable.parameters())


def test_norms_without_statistics_cannot_be_folded():
    layer = ShiftWiseConv2d(14, 13, norm_layer=partial(nn.BatchNorm2d, track_running_stats=False))
    names = list(layer.state_dict())
    with pytest.raises(ValueError, match='keeps no running statistics'):
        layer.switch_to_deploy()
    assert list(layer.state_dict()) == names
    assert layer.form == 'training'


@pytest.mark.parametrize('assign', [False, True])
@pytest.mark.parametrize('deploy', [False, True, 'official'])
def test_materialised_from_the_meta_device(deploy, assign):
    source, x = ShiftWiseConv2d(14, 13, deploy=deploy).double().eval(), random_map(14, 9, 9)
    with torch.device('meta'):
        layer = ShiftWiseConv2d(14, 13, deploy=deploy).double().eval()
    assert {tensor.device.type for tensor in (*layer.parameters(), *layer.buffers())} == {'meta'}
    if not assign:
        layer.to_empty(device='cpu')
    layer.load_state_dict(source.state_dict(), assign=assign)
    assert torch.equal(layer(x), source(x))


def test_reset_after_materialisation_makes_the_tables_anew():
    with torch.device('meta'):
        layer = ShiftWiseConv2d(14, 13, deploy=True)
    layer.to_empty(device='cpu')
    layer.channel_order.fill_(0)
    layer.reset_parameters()
    rep, ghost = channel_split(14, 0.23, True)
    assert layer.channel_order.tolist() == [*rep, *ghost]
    assert torch.isfinite(layer(random_map(14, 9, 9, torch.float32))).all()


def test_tables_follow_the_dtype_and_copies():
    layer, x = trained_layer(14, 13, dtype=torch.float32), random_map(14, 9, 9)
    double = copy.deepcopy(layer).double()
    assert double.connections.dtype == torch.float64
    torch.testing.assert_close(double(x).float(), layer(x.float()), rtol=1e-4, atol=1e-4)


def test_compiled_and_exported():
    layer, x = trained_layer(14, 13, dtype=torch.float32), random_map(14, 9, 9, torch.float32)
    expected = layer(x)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-4)
    layer.switch_to_deploy()
    exported = torch.export.export(layer, (x,))
    torch.testing.assert_close(exported.module()(x), expected, rtol=1e-4, atol=1e-4)
    targets = [str(node.target) for node in exported.graph.nodes if node.op == 'call_function']
    assert targets.count('aten.conv2d.default') == 2
    assert not any('sw_mm' in target for target in targets)


def test_building_leaves_numpys_and_pythons_generators_alone():
    states = np.random.get_state()[1].copy(), random.getstate()
    ShiftWiseConv2d(33, 13)
    assert np.array_equal(np.random.get_state()[1], states[0])
    assert random.getstate() == states[1]


def test_building_draws_from_torchs_generator_what_its_convolutions_do():
    """So the seed decides the initial weights, and nothing else moves or resets the stream."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        layer, after = ShiftWiseConv2d(33, 13), torch.rand(3)
        torch.manual_seed(7)
        convs, expected = [nn.Conv2d(24, 120, 3, groups=24, bias=False) for _ in range(2)], torch.rand(3)
    assert torch.equal(after, expected)
    for path, conv in zip(layer.LoRAs, convs, strict=True):
        assert torch.equal(path.weight, conv.weight)


@pytest.mark.parametrize(
    ('in_channels', 'kernel_size', 'size', 'grouped', 'strips', 'centre'),
    [
        (80, 51, 56, 60 * 17 * 9 * 58**2, 60 * 2 * 3 * 51 * 56**2, 60 * 9 * 56**2),
        (320, 47, 14, 246 * 16 * 9 * 16**2, 246 * 2 * 3 * 27 * 14**2, 246 * 9 * 14**2),
    ],
)
def test_macs(in_channels, kernel_size, size, grouped, strips, centre):
    layer = ShiftWiseConv2d(in_channels, kernel_size)
    assert layer.published_macs(size, size) == 2 * grouped
    assert layer.macs_executed(size, size) == strips + centre
    layer.switch_to_deploy('official')
    assert layer.published_macs(size, size) == grouped
    assert layer.macs_executed(size, size) == strips + centre
    layer.switch_to_deploy()
    assert layer.published_macs(size, size) == grouped
    assert layer.macs_executed(size, size) == strips


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        ('small_kernel', {'small_kernel': 4}),
        ('kernel_size', {'kernel_size': 3, 'small_kernel': 5}),
        ('num_paths', {'num_paths': 0}),
        ('num_paths', {'num_paths': 2.0}),
        ('num_edges', {'num_edges': 0}),
        ('ghost_ratio', {'ghost_ratio': 1.0}),
        ('in_channels', {'in_channels': 0}),
        ('deploy', {'deploy': 'half'}),
        ('deploy', {'deploy': 1}),
    ],
)
def test_bad_arguments_are_named(name, arguments):
    with pytest.raises(ValueError, match=name):
        ShiftWiseConv2d(**{'in_channels': 12, 'kernel_size': 13} | arguments)


def test_bad_input_and_bad_form_are_named():
    layer = ShiftWiseConv2d(12, 13)
    with pytest.raises(ValueError, match='in_channels=12'):
        layer(torch.zeros(1, 10, 8, 8))
    with pytest.raises(ValueError, match='form'):
        layer.switch_to_deploy('fast')
