"""Large depthwise layers: what they compute, how they are stored, and their deploy forms."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sw_mm.analysis import complexity
from sw_mm.layers import DILATED_BRANCHES, DilatedReparamConv2d, LargeDepthwiseConv2d

CHANNELS = 6
LAYERS: dict[str, Callable[..., nn.Module]] = {
    'dense': LargeDepthwiseConv2d,
    'dense alone': partial(LargeDepthwiseConv2d, small_kernel=None),
    'decomposed': partial(LargeDepthwiseConv2d, small_kernel=3, decomposed=True),
    'dilated': DilatedReparamConv2d,
}
# The kernel on maps larger and smaller than it, with even and odd sides.
MAPS = [(20, 17), (16, 16), (7, 8), (1, 5)]
# Which options each layer has beside its kernel.
OPTIONS = [
    *((name, {}) for name in LAYERS),
    *((name, dict(stride=2)) for name in LAYERS if name != 'dilated'),
    *((name, dict(dilation=2)) for name in LAYERS if name != 'dilated'),
    ('dense', dict(stride=2, dilation=3)),
    ('dense', dict(norm_layer=None)),
    ('decomposed', dict(stride=2, norm_layer=None)),
    ('dilated', dict(branches=((7, 2), (3, 6), (3, 1), (1, 1)))),
]


@pytest.fixture(params=LAYERS)
def build(request):
    return partial(LAYERS[request.param], CHANNELS, 13)


def trained(layer: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The layer in eval mode, with every weight and statistic far from its start."""
    generator = torch.Generator().manual_seed(0)
    for tensor in layer.to(dtype).state_dict().values():
        if tensor.ndim == 4:
            tensor.normal_(generator=generator)
        elif tensor.ndim == 1:
            tensor.uniform_(0.5, 2.0, generator=generator)
    return layer.eval()


def random_map(height: int = 9, width: int = 10, dtype: torch.dtype = torch.float64, channels: int = CHANNELS):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, height, width, generator=generator, dtype=torch.float64).to(dtype)


def definition(layer: nn.Module, x: torch.Tensor, stride: int = 1, dilation: int = 1) -> torch.Tensor:
    """Compute the sum of the branches from the state dict alone: convolution, then batch norm."""
    state, out = layer.state_dict(), 0
    for name in [key for key, tensor in state.items() if tensor.ndim == 4]:
        weight, branch = state[name], name.removesuffix('.weight')
        if isinstance(layer, DilatedReparamConv2d):
            norm = 'origin_bn' if branch == 'lk_origin' else branch.replace('conv', 'bn')
            dilation = 1 if branch == 'lk_origin' else int(branch.rpartition('_')[2])
        else:
            norm = branch.removesuffix('conv') + 'bn'
        padding = [dilation * (side // 2) for side in weight.shape[2:]]
        y = F.conv2d(x, weight, state.get(f'{branch}.bias'), stride, padding, dilation, groups=len(weight))
        if f'{norm}.running_mean' in state:
            mean, var, scale, shift = (
                state[f'{norm}.{key}'] for key in ('running_mean', 'running_var', 'weight', 'bias')
            )
            y = F.batch_norm(y, mean, var, scale, shift)
        out = out + y
    return out


def relative_error(value, expected):
    return ((value - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize('size', MAPS)
@pytest.mark.parametrize(('name', 'options'), OPTIONS)
def test_forward_follows_the_definition(name, options, size):
    layer, x = trained(LAYERS[name](CHANNELS, 13, **options)), random_map(*size)
    geometry = {key: value for key, value in options.items() if key in ('stride', 'dilation')}
    expected = definition(layer, x, **geometry)
    assert expected.shape[2:] == tuple((side - 1) // options.get('stride', 1) + 1 for side in size)
    torch.testing.assert_close(layer(x), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize('form', ['full', 'official'])
@pytest.mark.parametrize(('dtype', 'bound'), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(('name', 'options'), OPTIONS)
def test_deploy_is_exact_idempotent_and_reloads(name, options, dtype, bound, form):
    build = partial(LAYERS[name], CHANNELS, 13, **options)
    layer, x = trained(build(), dtype), random_map(18, 11, dtype)
    expected = layer(x)
    layer.switch_to_deploy(form)
    state = copy.deepcopy(layer.state_dict())
    layer.switch_to_deploy(form)
    torch.testing.assert_close(layer.state_dict(), state, rtol=0, atol=0)
    assert relative_error(layer(x), expected) < bound
    fresh = build(deploy=form if form == 'official' else True).to(dtype).eval()
    fresh.load_state_dict(state)
    assert list(fresh.state_dict()) == list(state)
    assert torch.equal(fresh(x), layer(x))
    fresh.switch_to_deploy(form)
    torch.testing.assert_close(fresh.state_dict(), state, rtol=0, atol=0)
    geometry = {key: value for key, value in options.items() if key in ('stride', 'dilation')}
    assert relative_error(definition(layer, x, **geometry), expected) < bound


@pytest.mark.parametrize('kernel_size', DILATED_BRANCHES)
def test_every_table_of_dilated_branches_folds(kernel_size):
    layer, x = trained(DilatedReparamConv2d(CHANNELS, kernel_size)), random_map(19, 18)
    expected = definition(layer, x)
    torch.testing.assert_close(layer(x), expected, rtol=1e-11, atol=1e-11)
    layer.switch_to_deploy()
    assert relative_error(layer(x), expected) < 1e-10
    assert {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()} == {
        'lk_origin.weight': (CHANNELS, 1, kernel_size, kernel_size),
        'lk_origin.bias': (CHANNELS,),
    }


def test_dilated_branches_are_the_official_ones():
    convolutions = [name for name in DilatedReparamConv2d(4, 13).state_dict() if name.startswith('dil_conv')]
    assert convolutions == [f'dil_conv_k{k}_{r}.weight' for k, r in ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5))]
    assert {k: len(branches) for k, branches in DILATED_BRANCHES.items()} == {
        17: 5, 15: 5, 13: 5, 11: 5, 9: 4, 7: 3, 5: 2
    }  # fmt: skip


def test_official_decomposed_form_is_the_training_form():
    layer = trained(LargeDepthwiseConv2d(CHANNELS, 13, decomposed=True))
    before = copy.deepcopy(layer.state_dict())
    layer.switch_to_deploy('official')
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)
    x = random_map()
    expected = layer(x)
    layer.switch_to_deploy('full')
    assert relative_error(layer(x), expected) < 1e-10


def test_names_and_shapes():
    def shapes(**kwargs):
        layer = LargeDepthwiseConv2d(CHANNELS, 13, **kwargs)
        return {name: tuple(t.shape[2:]) for name, t in layer.state_dict().items() if '.bn.' not in name}

    assert shapes() == {'lkb_origin.conv.weight': (13, 13), 'small_conv.conv.weight': (5, 5)}
    for small_kernel in (None, 13, 100):
        assert shapes(small_kernel=small_kernel) == {'lkb_origin.conv.weight': (13, 13)}
    assert list(shapes(decomposed=True, small_kernel=3).items()) == [
        ('LoRA1.conv.weight', (13, 3)),
        ('LoRA2.conv.weight', (3, 13)),
        ('small_conv.conv.weight', (3, 3)),
    ]
    for deploy in (True, 'official'):
        assert shapes(deploy=deploy) == {'lkb_reparam.weight': (13, 13), 'lkb_reparam.bias': ()}
    assert shapes(decomposed=True, deploy=True) == {
        'vertical.weight': (13, 5), 'vertical.bias': (), 'horizontal.weight': (5, 13)
    }  # fmt: skip
    state = list(LargeDepthwiseConv2d(CHANNELS, 13).state_dict())
    norm = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    assert state == [
        f'{branch}.{key}'
        for branch in ('lkb_origin', 'small_conv')
        for key in ('conv.weight', *(f'bn.{n}' for n in norm))
    ]


@pytest.mark.parametrize(('name', 'options'), OPTIONS)
def test_every_parameter_gets_a_finite_gradient(name, options):
    layer = LAYERS[name](CHANNELS, 13, **options)
    trained(layer, torch.float32).train()
    x = random_map(7, 8, torch.float32).requires_grad_()
    y = layer(x)
    (y * random_map(*y.shape[2:], torch.float32)).sum().backward()
    for name, parameter in [*layer.named_parameters(), ('x', x)]:
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_gradients_are_those_of_the_definition(build):
    layer, x = trained(build()), random_map(7, 8)
    expected_layer = copy.deepcopy(layer)
    weights = dict(expected_layer.named_parameters())
    expected_layer.state_dict = lambda: {**dict(expected_layer.named_buffers()), **weights}
    factor = random_map(7, 8)
    (definition(expected_layer, x) * factor).sum().backward()
    (layer(x) * factor).sum().backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize('form', ['full', 'official'])
def test_sync_batch_norms_fold(build, form):
    layer, x = trained(build(norm_layer=nn.SyncBatchNorm)), random_map()
    assert any(isinstance(m, nn.SyncBatchNorm) for m in layer.modules())
    expected = layer(x)
    layer.switch_to_deploy(form)
    assert relative_error(layer(x), expected) < 1e-10


@pytest.mark.parametrize('form', ['full', 'official'])
def test_deploy_keeps_mode_dtype_and_frozenness(build, form):
    frozen = trained(build(), torch.bfloat16).train().requires_grad_(False)
    frozen.switch_to_deploy(form)
    assert all(module.training for module in frozen.modules())
    assert {(p.dtype, p.requires_grad) for p in frozen.parameters()} == {(torch.bfloat16, False)}
    trainable = trained(build())
    trainable.switch_to_deploy(form)
    assert {(p.requires_grad, p.grad_fn) for p in trainable.parameters()} == {(True, None)}
    assert not any(module.training for module in trainable.modules())


def test_norms_without_statistics_cannot_be_folded(build):
    layer = build(norm_layer=partial(nn.BatchNorm2d, track_running_stats=False))
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ValueError, match='keeps no running statistics'):
        layer.switch_to_deploy()
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)
    assert layer(random_map(dtype=torch.float32)).isfinite().all()


def test_following_norm_is_absorbed():
    layer, norm, x = trained(DilatedReparamConv2d(CHANNELS, 9)), trained(nn.BatchNorm2d(CHANNELS)), random_map()
    expected = norm(layer(x))
    layer.absorb_norm(norm)
    assert relative_error(layer(x), expected) < 1e-10
    assert list(layer.state_dict()) == ['lk_origin.weight', 'lk_origin.bias']


@pytest.mark.parametrize('deploy', [False, True, 'official'])
def test_built_on_the_meta_device(build, deploy):
    with torch.device('meta'):
        layer = build(deploy=deploy)
    assert {tensor.device.type for tensor in layer.state_dict().values()} == {'meta'}
    assert layer(torch.empty(1, CHANNELS, 8, 9, device='meta')).shape == (1, CHANNELS, 8, 9)
    layer.switch_to_deploy()
    assert list(layer.state_dict()) == list(build(deploy=True).state_dict())


def test_published_macs():
    def macs(**kwargs):
        with torch.device('meta'):
            return complexity(LargeDepthwiseConv2d(CHANNELS, 31, **kwargs), (CHANNELS, 14, 12)).macs

    positions = CHANNELS * 14 * 12
    assert macs() == positions * (31 * 31 + 5 * 5)
    assert macs(stride=2) == positions // 4 * (31 * 31 + 5 * 5)
    assert macs(deploy=True) == positions * 31 * 31
    assert macs(decomposed=True) == positions * (2 * 31 * 5 + 5 * 5)
    assert macs(decomposed=True, deploy=True) == positions * 2 * 31 * 5
    assert complexity(DilatedReparamConv2d(4, 13), (4, 5, 6)).macs == 4 * 5 * 6 * (169 + 25 + 49 + 27)


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        *(('channels', dict(channels=value)) for value in (0, 6.0, None)),
        *(('kernel_size', dict(kernel_size=value)) for value in (0, 14, 13.0, (13, 13), [13], None, True)),
        *(('kernel_size', dict(kernel_size=value, decomposed=True)) for value in (14, None)),
        *(('small_kernel', dict(small_kernel=value)) for value in (0, 4, 5.0, (5, 5), '5')),
        *(('small_kernel', dict(small_kernel=value, decomposed=True)) for value in (None, 4, 13, 15)),
        *(('stride', dict(stride=value)) for value in (0, 1.5, None)),
        *(('dilation', dict(dilation=value)) for value in (0, '1')),
        *(('deploy', dict(deploy=value)) for value in ('full', 1, None)),
    ],
)
def test_bad_arguments_are_named(name, arguments):
    with pytest.raises(ValueError, match=f'{name} must be.*; got'):
        LargeDepthwiseConv2d(**{'channels': CHANNELS, 'kernel_size': 13, **arguments})


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [
        *(('channels', dict(channels=value)) for value in (0, None)),
        *(('kernel_size', dict(kernel_size=value)) for value in (3, 19, '13', None, [13], (13, 13))),
        *(('kernel_size', dict(kernel_size=value, branches=((3, 1),))) for value in (12, None, 0, '13')),
        *(
            ('branches', dict(branches=value))
            for value in (
                ((5, 1), (5, 1)),
                ((4, 1),),
                ((5, 4),),
                ((15, 1),),
                ((3, 0),),
                ((3.0, 1),),
                (3, 1),
                3,
                ((3,),),
            )
        ),
        *(('deploy', dict(deploy=value)) for value in ('full', 1, None)),
    ],
)
def test_bad_arguments_of_dilated_layers_are_named(name, arguments):
    with pytest.raises(ValueError, match=f'{name} must'):
        DilatedReparamConv2d(**{'channels': CHANNELS, 'kernel_size': 13, **arguments})


def test_unknown_form_is_refused(build):
    with pytest.raises(ValueError, match="form must be 'full' or 'official'; got 'fast'"):
        build().switch_to_deploy('fast')
