"""UniRepLKNet against its published sizes, its official state dict, and its definition."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from torch import nn

from sw_mm.analysis import complexity
from sw_mm.backbones import UniRepLKNet
from sw_mm.layers import DepthwiseConv2d, DilatedReparamConv2d

DEPTHS, CHANNELS = (1, 1, 2, 1), (8, 12, 16, 20)
ARCH = dict(depths=DEPTHS, channels=CHANNELS)
ALL = dict(out_indices=(0, 1, 2, 3))
# Every official side, small ones with and without branches, a side of one's own, and blocks without a kernel.
SIDES = dict(
    arch=dict(depths=(3, 3, 3, 2), channels=CHANNELS),
    kernel_size=((3, 5, 7), (9, 11, 13), (15, 17, 19), (0, 1)),
    branches={5: ((3, 1), (3, 2)), 11: (), 19: ((9, 2), (3, 9))},
)
NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')


def on_meta(*args, **kwargs) -> UniRepLKNet:
    with torch.device('meta'):
        return UniRepLKNet(*args, **kwargs)


def batch(*shape: int, **kwargs) -> torch.Tensor:
    return torch.randn(*(shape or (2, 3, 64, 64)), generator=torch.Generator().manual_seed(0), **kwargs)


def published(arch: str, form: bool | str, side: int, classifier: type[nn.Module]) -> tuple[int, int, float]:
    """Entries, parameters and billions of MACs of a net, with the head for 1000 classes."""
    with torch.device('meta'):
        net = classifier(UniRepLKNet(arch, deploy=form))
    cost = complexity(net, (3, side, side))
    return len(net.state_dict()), cost.params, cost.macs / 1e9


# In the training and in the deploy form: entries of the state dict, parameters, billions of MACs at 224 x 224.
OFFICIAL = [
    ('A', (626, 156), (4_649_060, 4_437_300), ('0.675', '0.640')),
    ('F', (626, 156), (6_489_328, 6_235_216), ('0.947', '0.905')),
    ('P', (626, 156), (11_080_520, 10_741_704), ('1.629', '1.573')),
    ('N', (738, 178), (18_818_880, 18_318_560), ('2.849', '2.767')),
    ('T', (1116, 321), (31_693_420, 31_037_980), ('5.004', '4.899')),
    ('S', (1305, 420), (56_456_704, 55_645_984), ('9.219', '9.094')),
    ('B', (1305, 420), (99_089_416, 98_008_456), ('16.224', '16.057')),
    ('L', (1305, 420), (220_076_056, 218_454_616), ('36.132', '35.882')),
    ('XL', (1305, 420), (388_690_984, 386_529_064), ('63.904', '63.570')),
]


@pytest.mark.parametrize(('arch', 'entries', 'params', 'macs'), OFFICIAL)
def test_official_nets_have_their_size(arch, entries, params, macs, classifier):
    for form, expected in zip((False, True), zip(entries, params, macs, strict=True), strict=True):
        (*counts, count) = published(arch, form, 224, classifier)
        assert (*counts, f'{count:.3f}') == expected


@pytest.mark.parametrize(
    ('arch', 'side', 'macs'),
    [
        ('s', 384, ('27.087', '26.718')),
        ('b', 384, ('47.668', '47.176')),
        ('l', 384, ('106.16', '105.42')),
        ('xl', 384, ('187.76', '186.77')),
        ('l', 192, ('26.55', '26.37')),
        ('xl', 192, ('46.96', '46.71')),
    ],
)
def test_cost_at_other_sizes(arch, side, macs, classifier):
    for form, expected in zip((False, True), macs, strict=True):
        (_, _, count) = published(arch, form, side, classifier)
        assert f'{count:.{len(expected.partition(".")[2])}f}' == expected


def official_shapes(
    depths: tuple[int, ...], channels: tuple[int, ...], small: str, deploy: bool, dense: bool
) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the official state dict in its order; ``small`` lists the 3x3 blocks of stage 2 as 3."""
    shapes = []

    def layer(name: str, *weight: int, bias: bool = True) -> None:
        shapes.append((f'{name}.weight', weight))
        if bias:
            shapes.append((f'{name}.bias', weight[:1]))

    def norm(name: str, c: int) -> None:
        shapes.extend((f'{name}.{key}', () if key == 'num_batches_tracked' else (c,)) for key in NORM)

    def depthwise(name: str, c: int, k: int, norm_name: str = '') -> None:
        layer(name, c, 1, k, k, bias=deploy)
        if norm_name and not deploy:
            norm(norm_name, c)

    first = channels[0]
    layer('downsample_layers.0.0', first // 2, 3, 3, 3)
    layer('downsample_layers.0.1', first // 2)
    layer('downsample_layers.0.3', first, first // 2, 3, 3)
    layer('downsample_layers.0.4', first)
    for i, c in enumerate(channels[1:], start=1):
        layer(f'downsample_layers.{i}.0', c, c // 2, 3, 3)
        layer(f'downsample_layers.{i}.1', c)
    for stage, (depth, c) in enumerate(zip(depths, channels, strict=True)):
        for b in range(depth):
            at = f'stages.{stage}.{b}'
            if not deploy:
                shapes.append((f'{at}.gamma', (c,)))
            if stage == 0 or (stage == 2 and small[b] == '3'):
                depthwise(f'{at}.dwconv', c, 3)
            else:
                depthwise(f'{at}.dwconv.lk_origin', c, 13, f'{at}.dwconv.origin_bn')
                for k, r in ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)) if not deploy else ():
                    depthwise(f'{at}.dwconv.dil_conv_k{k}_{r}', c, k, f'{at}.dwconv.dil_bn_k{k}_{r}')
            if not deploy:
                norm(f'{at}.norm', c)
            layer(f'{at}.se.down', c // 4, c, 1, 1)
            layer(f'{at}.se.up', c, c // 4, 1, 1)
            layer(f'{at}.pwconv1.1', 4 * c, c)
            shapes.extend((f'{at}.act.1.{key}', (1, 1, 1, 4 * c)) for key in ('gamma', 'beta')[: 1 if deploy else 2])
            layer(f'{at}.pwconv2.0', c, 4 * c, bias=deploy)
            if not deploy:
                norm(f'{at}.pwconv2.2', c)
    for i, c in enumerate(channels) if dense else ():
        layer(f'norm{i}', c)
    if not dense:
        layer('norm', channels[-1])
    return shapes


TINY, LARGE = '13' * 9, '133' * 9


@pytest.mark.parametrize(
    ('kwargs', 'depths', 'first', 'small'),
    [
        (dict(arch='a'), (2, 2, 6, 2), 40, '1' * 6),
        (dict(arch='f'), (2, 2, 6, 2), 48, '1' * 6),
        (dict(arch='p'), (2, 2, 6, 2), 64, '1' * 6),
        (dict(arch='n'), (2, 2, 8, 2), 80, '1' * 8),
        ({}, (3, 3, 18, 3), 80, TINY),
        (dict(gap_before_final_norm=False, **ALL), (3, 3, 18, 3), 80, TINY),
        (dict(arch='s'), (3, 3, 27, 3), 96, LARGE),
        (dict(arch='b'), (3, 3, 27, 3), 128, LARGE),
        (dict(arch='l', **ALL), (3, 3, 27, 3), 192, LARGE),
        (dict(arch='xL'), (3, 3, 27, 3), 256, LARGE),
        (dict(arch=dict(depths=(1, 1, 11, 1), channels=(8, 16, 32, 64))), (1, 1, 11, 1), 8, '1' * 11),
    ],
)
@pytest.mark.parametrize('deploy', [False, 'official', True])
def test_nets_have_the_official_state_dict(kwargs, depths, first, small, deploy):
    channels = tuple(first << i for i in range(4))
    state = on_meta(**kwargs, deploy=deploy).state_dict()
    assert [(key, tuple(tensor.shape)) for key, tensor in state.items()] == (
        official_shapes(depths, channels, small, deploy is not False, 'out_indices' in kwargs)
    )


def definition(net: UniRepLKNet, x: torch.Tensor) -> list[torch.Tensor]:
    """Compute the raw maps of the stages in evaluation mode, from the weights and the formulas alone."""
    w = net.state_dict()

    def channel_norm(name: str, y: torch.Tensor) -> torch.Tensor:
        centred = y - y.mean(1, keepdim=True)
        y = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
        return y * w[f'{name}.weight'].view(-1, 1, 1) + w[f'{name}.bias'].view(-1, 1, 1)

    def batch_norm(name: str, y: torch.Tensor) -> torch.Tensor:
        mean, var, scale, shift = (w[f'{name}.{k}'].view(-1, 1, 1) for k in ('running_mean', 'running_var', *NORM[:2]))
        return (y - mean) / (var + 1e-5).sqrt() * scale + shift

    def conv(name: str, y: torch.Tensor, **kwargs) -> torch.Tensor:
        return F.conv2d(y, w[f'{name}.weight'], w.get(f'{name}.bias'), **kwargs)

    def linear(name: str, y: torch.Tensor) -> torch.Tensor:
        y = torch.einsum('oi,nihw->nohw', w[f'{name}.weight'], y)
        return y + w[f'{name}.bias'].view(-1, 1, 1) if f'{name}.bias' in w else y

    def mixed(name: str, y: torch.Tensor) -> torch.Tensor:
        if f'{name}.weight' in w:
            return conv(name, y, padding=w[f'{name}.weight'].shape[2] // 2, groups=y.shape[1])
        if f'{name}.lk_origin.weight' not in w:
            return y
        branches = {'lk_origin': ('origin_bn', 1)}
        for key in w:
            if key.startswith(f'{name}.dil_conv_') and key.endswith('.weight'):
                branch = key.split('.')[-2]
                branches[branch] = (branch.replace('conv', 'bn'), int(branch.rpartition('_')[2]))
        out = 0
        for branch, (norm, dilation) in branches.items():
            reach = dilation * (w[f'{name}.{branch}.weight'].shape[2] // 2)
            branch = conv(f'{name}.{branch}', y, padding=reach, dilation=dilation, groups=y.shape[1])
            out = out + batch_norm(f'{name}.{norm}', branch)
        return out

    maps = []
    for stage, depth in enumerate(net.depths):
        at = f'downsample_layers.{stage}'
        x = channel_norm(f'{at}.1', conv(f'{at}.0', x, stride=2, padding=1))
        if stage == 0:
            x = x * 0.5 * (1 + torch.erf(x / 2**0.5))
            x = channel_norm(f'{at}.4', conv(f'{at}.3', x, stride=2, padding=1))
        for at in (f'stages.{stage}.{b}' for b in range(depth)):
            y = mixed(f'{at}.dwconv', x)
            y = batch_norm(f'{at}.norm', y) if f'{at}.norm.weight' in w else y
            gate = conv(f'{at}.se.up', conv(f'{at}.se.down', y.mean((2, 3), keepdim=True)).clamp_min(0))
            y = linear(f'{at}.pwconv1.1', y / (1 + (-gate).exp()))
            y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
            energy = y.square().sum((2, 3), keepdim=True).sqrt()
            gamma, beta = (w[f'{at}.act.1.{key}'].view(-1, 1, 1) for key in ('gamma', 'beta'))
            y = (gamma * energy / (energy.mean(1, keepdim=True) + 1e-6) + 1) * y + beta
            x = x + w[f'{at}.gamma'].view(-1, 1, 1) * batch_norm(f'{at}.pwconv2.2', linear(f'{at}.pwconv2.0', y))
        maps.append(x)
    return maps


@pytest.fixture
def trained(perturb):
    """Return a function that gives a net weights at which every branch counts, float64 and eval mode."""

    def function(net: nn.Module) -> nn.Module:
        net = perturb(net).double().eval()
        for name, tensor in net.state_dict().items():
            if name.endswith('.gamma') and tensor.ndim == 1:
                tensor.fill_(0.3)
        return net

    return function


@pytest.mark.parametrize('shape', [(64, 64), (75, 109)])
@pytest.mark.parametrize('kwargs', [dict(arch=ARCH), SIDES])
def test_outputs_are_those_of_the_definition(trained, kwargs, shape):
    x = batch(2, 3, *shape, dtype=torch.float64)
    net = trained(UniRepLKNet(**kwargs, **ALL))
    maps = definition(net, x)
    for i, (ours, raw) in enumerate(zip(net(x), maps, strict=True)):
        assert ours.shape == (2, CHANNELS[i], *(math.ceil(side / (4 << i)) for side in shape))
        torch.testing.assert_close(ours, net.get_submodule(f'norm{i}')(raw), rtol=1e-10, atol=1e-10)
    pooling = trained(UniRepLKNet(**kwargs))
    expected = pooling.norm(definition(pooling, x)[-1].mean((2, 3)))
    torch.testing.assert_close(pooling(x)[0], expected, rtol=1e-10, atol=1e-10)


def kernels(net: UniRepLKNet) -> list[list[int]]:
    sides = {DepthwiseConv2d: lambda m: m.kernel_size[0], DilatedReparamConv2d: lambda m: -m.lk_origin.kernel_size[0]}
    return [[sides.get(type(b.dwconv), lambda m: 0)(b.dwconv) for b in stage] for stage in net.stages]


@pytest.mark.parametrize(
    ('kernel_size', 'expected'),
    [
        (None, [[3], [-13], [-13, -13], [-13]]),
        (5, [[5], [5], [5, 5], [5]]),
        (np.int64(7), [[-7], [-7], [-7, -7], [-7]]),
        (0, [[0], [0], [0, 0], [0]]),
        ((3, 7, 9, 1), [[3], [-7], [-9, -9], [1]]),
        ([3, [7], (3, 17), 13], [[3], [-7], [3, -17], [-13]]),
    ],
)
def test_kernels_are_chosen_block_by_block(kernel_size, expected):
    assert kernels(on_meta(ARCH, kernel_size=kernel_size)) == expected


def test_branches_come_from_the_argument_or_the_official_table():
    branches = ConfigDict({13: ((5, 2), (3, 6)), 3: ((3, 1),)})
    net = on_meta(ARCH, kernel_size=(3, 13, 7, 5), branches=branches)
    assert [stage[0].dwconv.branches for stage in list(net.stages)[:3]] == [
        ((3, 1),),
        ((5, 2), (3, 6)),
        ((5, 1), (3, 2), (3, 3)),
    ]
    assert kernels(net) == [[-3], [-13], [-7, -7], [5]]


def test_blocks_without_a_kernel_have_no_norm_behind_it():
    net = on_meta(ARCH, kernel_size=0)
    assert not [name for name in net.state_dict() if '.dwconv.' in name or name.split('.')[3:4] == ['norm']]


def test_grn_decays_unless_a_config_spares_it():
    from mmengine.optim import build_optim_wrapper

    net = UniRepLKNet(ARCH)
    grn = {p for name, p in net.named_parameters() if '.act.1.' in name}
    assert {p.ndim for p in grn} == {4}
    for spared in (False, True):
        paramwise_cfg = dict(decay_rate=1.0, **({'custom_keys': {'.act.1.': dict(decay_mult=0.0)}} if spared else {}))
        wrapper = build_optim_wrapper(
            net,
            dict(
                type='OptimWrapper',
                optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
                constructor='sw_mm.LayerDecayOptimWrapperConstructor',
                paramwise_cfg=paramwise_cfg,
            ),
        )
        decays = {
            group['weight_decay'] for group in wrapper.optimizer.param_groups for p in group['params'] if p in grn
        }
        assert decays == {0.0 if spared else 0.05}


@pytest.mark.parametrize(
    ('arch', 'depth', 'last'), [('a', 5, 5), ('n', 5, 6), ('t', 8, 9), ('s', 11, 12), ('xl', 11, 12)]
)
def test_layer_depths_are_the_official_ones(arch, depth, last):
    net = on_meta(arch)
    names = {
        'downsample_layers.0.3.weight': 0,
        'stages.0.1.gamma': 1,
        'downsample_layers.1.0.bias': 2,
        'stages.1.0.dwconv.lk_origin.weight': 2,
        'downsample_layers.2.1.bias': 3,
        'stages.2.2.gamma': 3,
        'stages.2.3.se.up.bias': 4,
        f'stages.2.{net.depths[2] - 1}.gamma': {'a': 4}.get(arch, depth),
        'downsample_layers.3.0.weight': last,
        'stages.3.0.pwconv2.2.weight': last,
        'norm.weight': last + 1,
        'norm0.weight': last + 1,
    }
    for name, expected in names.items():
        assert net.get_layer_depth(name) == (expected, last + 2), name
        assert net.get_layer_depth(f'backbone.{name}', prefix='backbone.') == (expected, last + 2), name


@pytest.mark.parametrize(
    ('kwargs', 'name'),
    [
        *((dict(arch=value), 'arch') for value in ('tiny', 'h', None, dict(depths=DEPTHS))),
        (dict(arch=dict(ARCH, depths=(1, 1, 0, 1))), 'depths'),
        *((dict(arch=dict(ARCH, channels=value)), 'channels') for value in ((8, 16, 24), (3, 8, 16, 24), 3)),
        *(
            (dict(kernel_size=value), 'kernel_size must be')
            for value in (
                (3, 13, 13),
                (3, 13, 13, 12),
                (3, 13, (13, 3, 3), 13),
                (3, 13, ((13, 3), 3), 13),
                ('3', 13, 13, 13),
                '3333',
                13.0,
                -3,
                True,
                {13},
            )
        ),
        (dict(kernel_size=19), 'kernel_size must be one of'),
        *((dict(branches=value), 'branches') for value in ({13: 5}, {13: ((5, 4),)}, {13: ((4, 1),)}, ((5, 1),), 13)),
    ],
)
def test_bad_arguments_are_named(kwargs, name):
    with torch.device('meta'), pytest.raises(ValueError, match=name):
        UniRepLKNet(**{'arch': ARCH, **kwargs})
