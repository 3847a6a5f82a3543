"""ConvNeXt with large kernels against its published sizes, its state dicts, and ConvNeXt itself."""

import pytest
import torch
from torch import nn

from sw_mm.analysis import complexity
from sw_mm.backbones import LargeKernelConvNeXt, SLaK

DEPTHS, CHANNELS = (1, 1, 2, 1), (8, 12, 16, 20)
ORIGINAL = dict(kernel_size=7, small_kernel=None)
ALL = dict(out_indices=(0, 1, 2, 3))


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


@pytest.mark.parametrize('kwargs', [{}, ORIGINAL])
def test_weights_start_as_in_convnext(kwargs):
    net = build(layer_scale_init_value=0.3, **kwargs)
    filters = torch.cat([m.weight.detach().flatten() for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)])
    assert filters.std() == pytest.approx(0.02, rel=0.05)
    assert all((p == 0).all() for name, p in net.named_parameters() if name.endswith('bias'))
    assert all((p == 0.3).all() for name, p in net.named_parameters() if name.endswith('gamma'))


@pytest.mark.parametrize('small_kernel', [5, None])
@pytest.mark.parametrize(
    ('kwargs', 'name'),
    [
        *((dict(arch=value), 'arch') for value in ('large', None, dict(channels=CHANNELS))),
        (dict(arch=dict(depths=DEPTHS, channels=(8, 8, 8, 8.5))), 'channels'),
        *((dict(kernel_size=value), 'kernel_size') for value in ((31, 29, 27), (31, 29, 27, 14), 31.0, None, True)),
        *((dict(small_kernel=value), 'small_kernel') for value in (4, '3', (3, 3), 0, True)),
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
