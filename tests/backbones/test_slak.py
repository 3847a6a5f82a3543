"""SLaK against its published sizes, its official state dict and its definition."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sw_mm.analysis import complexity
from sw_mm.backbones import SLaK

DEPTHS, CHANNELS = (1, 1, 2, 1), (8, 12, 16, 20)
DENSE = dict(decomposed=False)
ALL = dict(out_indices=(0, 1, 2, 3))
STRIPS = ('LoRA1', 'LoRA2', 'small_conv')
LARGE = ('lkb_origin', 'small_conv')
# What there is of path norms, and of branches.
KINDS = {
    'decomposed': {},
    'dense': DENSE,
    'dense alone': dict(DENSE, small_kernel=100),
    'decomposed without norms': dict(norm_cfg=None),
    'dense without norms': dict(DENSE, norm_cfg=None),
    'no layer scale': dict(layer_scale_init_value=0.0),
}


def build(**kwargs) -> SLaK:
    """A net of a few thousand parameters."""
    settings = dict(width_factor=1.0, kernel_size=(13, 11, 9, 7), layer_scale_init_value=1.0)
    return SLaK(dict(depths=DEPTHS, channels=CHANNELS), **{**settings, **kwargs})


def batch(*shape: int, **kwargs) -> torch.Tensor:
    return torch.randn(*(shape or (2, 3, 64, 64)), generator=torch.Generator().manual_seed(0), **kwargs)


def definition(net: SLaK, x: torch.Tensor) -> list[torch.Tensor]:
    """Compute the four maps from the official state dict alone, before the output norms."""
    state = net.state_dict()

    def layer_norm(name: str, y: torch.Tensor) -> torch.Tensor:
        weight, bias = state[f'{name}.weight'], state[f'{name}.bias']
        return F.layer_norm(y.movedim(1, 3), weight.shape, weight, bias, 1e-6).movedim(3, 1)

    def branch(name: str, y: torch.Tensor) -> torch.Tensor:
        weight = state[f'{name}.conv.weight']
        y = F.conv2d(y, weight, padding=[side // 2 for side in weight.shape[2:]], groups=len(weight))
        if f'{name}.bn.weight' not in state:
            return y
        return F.batch_norm(y, *(state[f'{name}.bn.{k}'] for k in ('running_mean', 'running_var', 'weight', 'bias')))

    def linear(name: str, y: torch.Tensor) -> torch.Tensor:
        return F.linear(y.movedim(1, 3), state[f'{name}.weight'], state[f'{name}.bias']).movedim(3, 1)

    maps = []
    for stage, depth in enumerate(DEPTHS):
        at = f'downsample_layers.{stage}'
        if stage:
            x = layer_norm(f'{at}.0', x)
        conv = f'{at}.{1 if stage else 0}'
        x = F.conv2d(x, state[f'{conv}.weight'], state[f'{conv}.bias'], 2 if stage else 4)
        if not stage:
            x = layer_norm(f'{at}.1', x)
        for block in (f'stages.{stage}.{b}' for b in range(depth)):
            names = (f'{block}.large_kernel.{name}' for name in ('LoRA1', 'LoRA2', 'lkb_origin', 'small_conv'))
            y = sum(branch(name, x) for name in names if f'{name}.conv.weight' in state)
            y = linear(f'{block}.pwconv2', F.gelu(linear(f'{block}.pwconv1', layer_norm(f'{block}.norm', y))))
            x = x + state.get(f'{block}.gamma', torch.ones(())).view(-1, 1, 1) * y
        maps.append(x)
    return maps


@pytest.mark.parametrize('size', [(64, 64), (75, 109)])
@pytest.mark.parametrize('kwargs', KINDS.values(), ids=KINDS)
def test_the_net_is_its_definition(perturb, kwargs, size):
    net, x = perturb(build(**kwargs, **ALL)).double().eval(), batch(1, 3, *size, dtype=torch.float64)
    maps = definition(net, x)
    for i, (ours, exact) in enumerate(zip(net(x), maps, strict=True)):
        assert ours.shape == (1, CHANNELS[i], size[0] // 4 >> i, size[1] // 4 >> i)
        torch.testing.assert_close(ours, net.get_submodule(f'norm{i}')(exact), rtol=1e-9, atol=1e-9)
    pooled = build(**kwargs).double().eval()
    pooled.load_state_dict(net.state_dict(), strict=False)
    state = pooled.state_dict()
    expected = F.layer_norm(maps[-1].mean((2, 3)), CHANNELS[-1:], state['norm.weight'], state['norm.bias'], 1e-6)
    (ours,) = pooled(x)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


# With the head for 1000 classes: entries of the state dict, parameters, billions of MACs at 224 x 224.
OFFICIAL = [
    ({}, 470, 50_703_838, '8.705'),
    (dict(arch='small'), 920, 91_131_820, '16.604'),
    (dict(arch='BASE'), 920, 157_950_792, '28.509'),
    (dict(arch='Large'), 920, 346_624_518, '61.931'),
    (dict(kernel_size=(31, 29, 27, 13)), 470, 49_581_838, '8.178'),
    (dict(kernel_size=(61, 59, 57, 13)), 470, 51_264_838, '8.968'),
    (dict(width_factor=1), 470, 30_816_232, '5.419'),
    (dict(width_factor=1, kernel_size=7, small_kernel=100, **DENSE), 254, 28_595_752, '4.456'),
    (dict(width_factor=1, kernel_size=(31, 29, 27, 13), **DENSE), 362, 32_120_008, '6.165'),
    (dict(width_factor=1, kernel_size=(31, 29, 27, 13), deploy='official', **DENSE), 182, 31_934_536, '6.111'),
    (dict(deploy='official'), 470, 50_703_838, '8.705'),
]


@pytest.mark.parametrize(('kwargs', 'entries', 'params', 'macs'), OFFICIAL)
def test_official_nets_have_their_size(classifier, kwargs, entries, params, macs):
    with torch.device('meta'):
        net = classifier(SLaK(**kwargs))
    cost = complexity(net)
    assert (len(net.state_dict()), cost.params, f'{cost.macs / 1e9:.3f}') == (entries, params, macs)


@pytest.mark.parametrize(('arch', 'macs'), [('tiny', '25.579'), ('small', '48.794'), ('base', '83.779')])
def test_cost_at_384_pixels(classifier, arch, macs):
    with torch.device('meta'):
        assert f'{complexity(classifier(SLaK(arch)), (3, 384, 384)).macs / 1e9:.3f}' == macs


def test_the_full_form_saves_the_square_kernels(classifier):
    with torch.device('meta'):
        net = classifier(SLaK(deploy=True))
    cost = complexity(net)
    assert (cost.params, f'{cost.macs / 1e9:.3f}') == (50_437_114, '8.635')
    assert cost.executed_macs < cost.macs, 'taps beyond the map of 7 x 7 cost nothing'


@pytest.mark.parametrize(('arch', 'params'), [('tiny', 49_706_582), ('small', 90_134_564), ('base', 156_621_118)])
def test_dense_outputs_have_a_norm_each(arch, params):
    with torch.device('meta'):
        net = SLaK(arch, **ALL)
    assert sum(p.numel() for p in net.parameters()) == params
    assert [name for name, _ in net.named_children()][2:] == ['norm0', 'norm1', 'norm2', 'norm3']


@pytest.mark.parametrize(
    ('kwargs', 'names'), [({}, STRIPS), (dict(deploy='official'), STRIPS), (dict(kernel_size=61, **DENSE), LARGE)]
)
def test_tiny_has_the_official_state_dict(convnext_shapes, kwargs, names):
    with torch.device('meta'):
        state = SLaK(**kwargs).state_dict()

    def mixer(stage: int) -> dict[str, tuple[int, ...]]:
        k = 61 if names is LARGE else (51, 49, 47, 13)[stage]
        sizes = dict(LoRA1=(k, 5), LoRA2=(5, k), lkb_origin=(k, k), small_conv=(5, 5))
        return {
            f'large_kernel.{name}.{part}': size
            for name, size in sizes.items()
            if name in names
            for part in ('conv', 'bn')
        }

    expected = convnext_shapes((3, 3, 9, 3), (124, 249, 499, 998), mixer)
    assert [(key, tuple(tensor.shape)) for key, tensor in state.items()] == list(expected.items())


def test_full_form_has_two_strips():
    keys = [key for key in build(deploy=True).state_dict() if key.startswith('stages.2.1')]
    mixer = ['vertical.weight', 'vertical.bias', 'horizontal.weight']
    rest = [f'{name}.{part}' for name in ('norm', 'pwconv1', 'pwconv2') for part in ('weight', 'bias')]
    assert keys == [f'stages.2.1.{key}' for key in (*(f'large_kernel.{name}' for name in mixer), *rest)]


def test_weights_start_as_in_the_paper():
    net = build(layer_scale_init_value=1e-6)
    filters = torch.cat([m.weight.detach().flatten() for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)])
    assert filters.std() == pytest.approx(0.02, rel=0.05)
    assert filters.mean() == pytest.approx(0, abs=0.001)
    for name, tensor in net.state_dict().items():
        if name.endswith('gamma'):
            assert (tensor == 1e-6).all(), name
        elif name.endswith('bias'):
            assert (tensor == 0).all(), name
        elif name.endswith('weight') and tensor.ndim == 1:
            assert (tensor == 1).all(), name


@pytest.mark.parametrize(
    ('kwargs', 'name'),
    [
        *((dict(arch=value), 'arch') for value in ('huge', None, dict(depths=DEPTHS), dict(depths=1, channels=8, a=1))),
        (dict(arch=dict(depths=(1, 1, 1), channels=CHANNELS)), 'depths'),
        *((dict(width_factor=value), 'width_factor') for value in (0.01, -1, '1', None, float('inf'), True)),
        *((dict(kernel_size=value), 'kernel_size') for value in ((51, 49, 47), (51, 49, 47, 14), 51.0, '5151', None)),
        *((dict(small_kernel=value), 'small_kernel') for value in (4, '3', (3, 3), None, 13, 51, 0)),
        *((dict(small_kernel=value, **DENSE), 'small_kernel') for value in (4, '3', (3, 3), 0)),
    ],
)
def test_bad_arguments_are_named(kwargs, name):
    with torch.device('meta'), pytest.raises(ValueError, match=name):
        SLaK(**{'arch': dict(depths=DEPTHS, channels=CHANNELS), **kwargs})


@pytest.mark.parametrize(
    ('arch', 'name', 'depth'),
    [
        ('tiny', 'downsample_layers.0.0.weight', (0, 8)),
        ('tiny', 'stages.0.2.gamma', (1, 8)),
        ('tiny', 'stages.2.8.large_kernel.LoRA1.conv.weight', (5, 8)),
        ('tiny', 'downsample_layers.3.1.bias', (6, 8)),
        ('tiny', 'norm.weight', (7, 8)),
        ('small', 'stages.2.26.gamma', (11, 14)),
        ('small', 'stages.3.0.gamma', (12, 14)),
        ('small', 'norm3.weight', (13, 14)),
    ],
)
def test_layer_depths_are_the_official_ones(arch, name, depth):
    with torch.device('meta'):
        assert SLaK(arch).get_layer_depth(f'backbone.{name}', prefix='backbone.') == depth
