"""ConvNeXt with large kernels against its published sizes, its state dicts, and ConvNeXt itself."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from sw_mm.analysis import complexity
from sw_mm.backbones import LargeKernelConvNeXt, SLaK

DEPTHS, CHANNELS = (1, 1, 2, 1), (8, 12, 16, 20)
ORIGINAL = dict(kernel_size=7, small_kernel=None)
ALL = dict(out_indices=(0, 1, 2, 3))
KINDS = {
    'two kernels': {},
    'large kernel alone': dict(small_kernel=13),
    'plain': dict(small_kernel=None),
    'SyncBN': dict(norm_cfg=dict(type='SyncBN')),
}


def build(**kwargs) -> LargeKernelConvNeXt:
    """A net of a few thousand parameters."""
    settings = dict(kernel_size=(13, 11, 9, 7), layer_scale_init_value=1.0)
    return LargeKernelConvNeXt(dict(depths=DEPTHS, channels=CHANNELS), **{**settings, **kwargs})


def batch(*shape: int, **kwargs) -> torch.Tensor:
    return torch.randn(*(shape or (2, 3, 64, 64)), generator=torch.Generator().manual_seed(0), **kwargs)


# With the head for 1000 classes: parameters and billions of MACs at 224 x 224.
OFFICIAL = [
    ({}, 32_120_008, '6.165'),
    (dict(deploy='official'), 31_934_536, '6.111'),
    (dict(small_kernel=None), 31_934_536, '6.111'),
    (dict(arch='SMALL'), 58_648_264, '11.348'),
    (dict(arch='Small', deploy='official'), 58_269_256, '11.260'),
    (dict(arch='base'), 99_824_232, '18.907'),
    (dict(arch='base', deploy='official'), 99_318_888, '18.790'),
    (dict(**ORIGINAL), 28_589_128, '4.456'),
    (dict(arch='small', **ORIGINAL), 50_223_688, '8.684'),
    (dict(arch='base', **ORIGINAL), 88_591_464, '15.355'),
]


@pytest.mark.parametrize(('kwargs', 'params', 'macs'), OFFICIAL)
def test_official_nets_have_their_size(classifier, kwargs, params, macs):
    with torch.device('meta'):
        cost = complexity(classifier(LargeKernelConvNeXt(**kwargs)))
    assert (cost.params, f'{cost.macs / 1e9:.3f}') == (params, macs)


def test_full_form_folds_layer_scale_too():
    with torch.device('meta'):
        official, full = (LargeKernelConvNeXt(deploy=deploy) for deploy in ('official', True))
    scales = sum(3 * c for c in (96, 192, 768)) + 9 * 384
    assert sum(p.numel() for p in official.parameters()) - sum(p.numel() for p in full.parameters()) == scales


@pytest.mark.parametrize(
    ('kwargs', 'entries'), [({}, 360), (dict(deploy='official'), 180), (ORIGINAL, 180), (dict(small_kernel=7), 360)]
)
def test_tiny_has_the_official_state_dict(convnext_shapes, kwargs, entries):
    def mixer(stage: int) -> dict[str, tuple[int, ...]]:
        size = [(k, k) for k in (31, 29, 27, 13)][stage]
        if kwargs is ORIGINAL:
            return dict(dwconv=(7, 7))
        if kwargs.get('deploy'):
            return {'large_kernel.lkb_reparam': size}
        small = (kwargs.get('small_kernel', 5),) * 2
        return {
            f'large_kernel.{name}.{part}': side
            for name, side in (('lkb_origin', size), ('small_conv', small))
            for part in ('conv', 'bn')
        }

    with torch.device('meta'):
        state = LargeKernelConvNeXt(**kwargs).state_dict()
    expected = convnext_shapes((3, 3, 9, 3), (96, 192, 384, 768), mixer)
    assert len(state) == entries
    assert [(key, tuple(tensor.shape)) for key, tensor in state.items()] == list(expected.items())


def test_two_kernels_are_those_of_slak(perturb):
    net = perturb(build()).eval()
    slak = SLaK(dict(depths=DEPTHS, channels=CHANNELS), 3, 1.0, (13, 11, 9, 7), decomposed=False).eval()
    slak.load_state_dict(net.state_dict())
    assert torch.equal(slak(batch())[0], net(batch())[0])


@pytest.mark.parametrize('dense', [False, True])
def test_the_original_is_convnext(perturb, dense):
    """mmpretrain's ConvNeXt gives the same outputs once its names are translated."""
    import sw_mm.compat  # noqa: F401, I001 (the library needs it where mmcv carries no compiled operators)
    from mmpretrain.models import ConvNeXt

    options = dict(out_indices=(0, 1, 2, 3), gap_before_final_norm=False) if dense else {}
    net = perturb(build(**ORIGINAL, **options)).double().eval()
    names = dict(dwconv='depthwise_conv', pwconv1='pointwise_conv1', pwconv2='pointwise_conv2')
    theirs = ConvNeXt(dict(depths=list(DEPTHS), channels=list(CHANNELS)), layer_scale_init_value=1.0, **options)
    theirs.double().eval()  # whose train() returns nothing
    translated = {}
    for key, tensor in net.state_dict().items():
        parts = [names.get(part, part) for part in key.split('.')]
        parts[0] = 'norm3' if parts[0] == 'norm' else parts[0]
        translated['.'.join(parts)] = tensor
    theirs.load_state_dict(translated)
    x = batch(2, 3, 70, 96, dtype=torch.float64)
    for ours, other in zip(net(x), theirs(x), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('kwargs', KINDS.values(), ids=KINDS)
@pytest.mark.parametrize('form', ['full', 'official'])
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_deploy_form_is_equal_and_reloads(perturb, kwargs, form, dtype, tolerance):
    make = partial(build, **kwargs, **ALL)
    net, x = perturb(make()).to(dtype).eval(), batch(dtype=dtype)
    expected = net(x)
    net.switch_to_deploy(form)
    state = copy.deepcopy(net.state_dict())
    net.switch_to_deploy(form)
    torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)
    fresh = make(deploy=form if form == 'official' else True).to(dtype).eval()
    fresh.load_state_dict(state)
    assert list(fresh.state_dict()) == list(state)
    assert not any('.bn.' in key for key in state)
    assert any('gamma' in key for key in state) == (form == 'official')
    for ours, theirs, exact in zip(net(x), fresh(x), expected, strict=True):
        assert torch.equal(ours, theirs)
        assert (ours - exact).abs().max() <= tolerance * exact.abs().max()
    net.switch_to_deploy('full')
    assert list(net.state_dict()) == list(make(deploy=True).state_dict())
    for ours, exact in zip(net(x), expected, strict=True):
        assert (ours - exact).abs().max() <= tolerance * exact.abs().max()


def test_tiny_runs_for_real_and_folds():
    net = LargeKernelConvNeXt(layer_scale_init_value=1.0).eval()
    x = batch(1, 3, 224, 224)
    with torch.no_grad():
        (expected,) = net(x)
        net.switch_to_deploy()
        (folded,) = net(x)
    assert expected.shape == (1, 768)
    assert expected.std() > 0.1
    torch.testing.assert_close(folded, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize('kwargs', [{}, ORIGINAL])
def test_every_parameter_gets_a_finite_gradient(kwargs):
    net = build(drop_path_rate=0.1, **kwargs, **ALL).train()
    sum(m.square().mean() for m in net(batch())).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_checkpointing_changes_no_gradient_and_no_statistic():
    nets = plain, spared = [build(drop_path_rate=0.5, with_cp=with_cp, **ALL) for with_cp in (False, True)]
    spared.load_state_dict(plain.state_dict())
    for net in nets:
        torch.manual_seed(5)
        sum(m.square().mean() for m in net(batch())).backward()
    torch.testing.assert_close(spared.state_dict(), plain.state_dict(), rtol=0, atol=0)
    for ours, theirs in zip(spared.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0)


@pytest.mark.parametrize(('name', 'kind'), [('SyncBN', nn.SyncBatchNorm), ('BN', nn.BatchNorm2d)])
def test_norm_cfg_reaches_every_batch_norm(name, kind):
    net = build(norm_cfg=dict(type=name, eps=1e-3, momentum=0.03, requires_grad=False))
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 2 * sum(DEPTHS)
    for norm in norms:
        assert isinstance(norm, kind)
        assert (norm.eps, norm.momentum, norm.weight.requires_grad) == (1e-3, 0.03, False)


@pytest.mark.parametrize('kwargs', [{}, ORIGINAL])
def test_weights_start_as_in_convnext(kwargs):
    net = build(layer_scale_init_value=0.3, **kwargs)
    filters = torch.cat([m.weight.detach().flatten() for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)])
    assert filters.std() == pytest.approx(0.02, rel=0.05)
    assert all((p == 0).all() for name, p in net.named_parameters() if name.endswith('bias'))
    assert all((p == 0.3).all() for name, p in net.named_parameters() if name.endswith('gamma'))


def test_options_of_the_base_take_effect():
    net = build(in_channels=5, drop_path_rate=0.4, frozen_stages=1, norm_eval=True, gap_before_final_norm=False)
    net.train()
    rates = [block.drop_path.drop_prob for stage in net.stages for block in stage]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    trainable = {name.split('.')[1] for name, p in net.named_parameters() if p.requires_grad and name[0] in 'ds'}
    assert trainable == {'1', '2', '3'}
    assert not any(m.training for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert net(batch(2, 5, 32, 64))[0].shape == (2, CHANNELS[-1], 1, 2)
    with pytest.raises(ValueError, match='at least 32 pixels'):
        net(batch(2, 5, 31, 64))


@pytest.mark.parametrize('small_kernel', [5, None])
@pytest.mark.parametrize(
    ('kwargs', 'name'),
    [
        *((dict(arch=value), 'arch') for value in ('large', None, dict(channels=CHANNELS))),
        (dict(arch=dict(depths=DEPTHS, channels=(8, 8, 8, 8.5))), 'channels'),
        (dict(in_channels=0), 'in_channels'),
        *((dict(kernel_size=value), 'kernel_size') for value in ((31, 29, 27), (31, 29, 27, 14), 31.0, None, True)),
        *((dict(small_kernel=value), 'small_kernel') for value in (4, '3', (3, 3), 0, True)),
        *((dict(drop_path_rate=value), 'drop_path_rate') for value in (1.0, -1, None)),
        *((dict(layer_scale_init_value=value), 'layer_scale_init_value') for value in (-1, 'x', None)),
        *((dict(deploy=value), 'deploy') for value in ('fast', 1, None)),
        *((dict(norm_cfg=value), 'norm_cfg') for value in ('BN', {}, None, dict(type='GN', num_groups=1))),
    ],
)
def test_bad_arguments_are_named(kwargs, name, small_kernel):
    arguments = dict(arch=dict(depths=DEPTHS, channels=CHANNELS), small_kernel=small_kernel)
    with torch.device('meta'), pytest.raises(ValueError, match=name):
        LargeKernelConvNeXt(**{**arguments, **kwargs})


@pytest.mark.parametrize(
    ('arch', 'name', 'depth'),
    [
        ('tiny', 'downsample_layers.1.0.weight', (2, 8)),
        ('tiny', 'stages.2.8.dwconv.bias', (5, 8)),
        ('base', 'stages.2.26.gamma', (11, 14)),
        ('base', 'stages.3.0.gamma', (12, 14)),
        ('base', 'norm.weight', (13, 14)),
    ],
)
def test_layer_depths_are_the_official_ones(arch, name, depth):
    with torch.device('meta'):
        assert LargeKernelConvNeXt(arch).get_layer_depth(f'backbone.{name}', prefix='backbone.') == depth
