import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from sw_mm.backbones import ShiftWiseNet

DEPTHS, CHANNELS = (1, 1, 2, 1), (8, 16, 24, 32)
ALL = dict(out_indices=(0, 1, 2, 3))


def build(design: str = 'v2', **kwargs) -> ShiftWiseNet:
    """A net of a few thousand parameters."""
    arch = dict(depths=DEPTHS, channels=CHANNELS, design=design)
    return ShiftWiseNet(arch, **{'kernel_size': (13, 9, 7, 5), **kwargs})


@pytest.fixture(params=['v1', 'v2'])
def small(request):
    return partial(build, request.param)


def batch(*shape: int, **kwargs) -> torch.Tensor:
    return torch.randn(*(shape or (2, 3, 64, 64)), generator=torch.Generator().manual_seed(0), **kwargs)


def batch_norm_entries(name: str, channels: int) -> list[tuple]:
    entries = [
        (f'{name}.{key}', (channels,), torch.float32) for key in ('weight', 'bias', 'running_mean', 'running_var')
    ]
    return [*entries, (f'{name}.num_batches_tracked', (), torch.int64)]


def layer_entries(name: str, *weight: int) -> list[tuple]:
    return [(f'{name}.weight', weight, torch.float32), (f'{name}.bias', weight[:1], torch.float32)]


def official_entries(paths: tuple[str, ...] = ('LoRAs.0', 'LoRAs.1'), dense: bool = False) -> list[tuple]:
    """Names, shapes and dtypes of the official SW-T state dict in its order, without the head."""
    entries = [*layer_entries('downsample_layers.0.0', 40, 3, 3, 3), *layer_entries('downsample_layers.0.1', 40)]
    entries += [*layer_entries('downsample_layers.0.3', 80, 40, 3, 3), *layer_entries('downsample_layers.0.4', 80)]
    widths = (80, 160, 320, 640)
    for i, width in enumerate(widths[1:], start=1):
        entries += layer_entries(f'downsample_layers.{i}.0', width, width // 2, 3, 3)
        entries += layer_entries(f'downsample_layers.{i}.1', width)
    for stage, depth, width, rep, filters in zip(
        range(4), (3, 3, 18, 3), widths, (60, 122, 246, 492), (1020, 2074, 3936, 2460), strict=True
    ):
        for b in range(depth):
            at = f'stages.{stage}.{b}'
            entries.append((f'{at}.gamma', (width,), torch.float32))
            entries += [(f'{at}.large_kernel.{path}.weight', (filters, 1, 3, 3), torch.float32) for path in paths]
            for norm in ('bn_lora1', 'bn_lora2', 'bn_small'):
                entries += batch_norm_entries(f'{at}.large_kernel.{norm}', rep)
            entries += batch_norm_entries(f'{at}.norm', width)
            entries += layer_entries(f'{at}.se.down', width // 4, width, 1, 1)
            entries += layer_entries(f'{at}.se.up', width, width // 4, 1, 1)
            entries += layer_entries(f'{at}.pwconv1.1', 4 * width, width)
            entries += [(f'{at}.act.1.{key}', (1, 1, 1, 4 * width), torch.float32) for key in ('gamma', 'beta')]
            entries.append((f'{at}.pwconv2.0.weight', (width, 4 * width), torch.float32))
            entries += batch_norm_entries(f'{at}.pwconv2.2', width)
    if dense:
        return entries + [e for i, width in enumerate(widths) for e in layer_entries(f'norm{i}', width)]
    return entries + layer_entries('norm', 640)


@pytest.mark.parametrize(
    ('kwargs', 'expected'),
    [
        (dict(arch='tiny'), official_entries()),
        (dict(arch='TINY', deploy='official'), official_entries(paths=('LoRA',))),
        (ALL, official_entries(dense=True)),
    ],
)
def test_tiny_has_the_official_state_dict(kwargs, expected):
    with torch.device('meta'):
        state = ShiftWiseNet(**kwargs).state_dict()
    assert [(key, tuple(tensor.shape), tensor.dtype) for key, tensor in state.items()] == expected


def test_the_official_state_dict_has_as_many_entries_as_released():
    assert len(official_entries()) == 1023 - 2
    assert len(official_entries(paths=('LoRA',))) == 996 - 2


def test_the_last_stage_alone_is_pooled_by_default(small):
    net, dense = small(), small(gap_before_final_norm=False)
    dense.load_state_dict(
        {k.replace('norm.', 'norm3.') if k[:5] == 'norm.' else k: v for k, v in net.state_dict().items()}
    )
    dense.norm3 = nn.Identity()
    (pooled,), (raw,) = net.eval()(batch()), dense.eval()(batch())
    torch.testing.assert_close(pooled, net.norm(raw.mean((2, 3))))


def test_weights_start_as_in_the_papers(small):
    net = small(layer_scale_init_value=0.3)
    filters = torch.cat([m.weight.flatten() for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)])
    filters = filters.detach()
    assert filters.std() == pytest.approx(0.02, rel=0.05)
    assert filters.mean() == pytest.approx(0, abs=0.001)
    starts = dict(gamma=0.3, beta=0.0, bias=0.0, running_mean=0.0, running_var=1.0, num_batches_tracked=0)
    for name, tensor in net.state_dict().items():
        leaf = name.rpartition('.')[2]
        if leaf == 'weight' and tensor.ndim == 1:
            assert (tensor == 1).all(), name
        elif leaf == 'gamma' and tensor.ndim == 4:
            assert (tensor == 0).all(), name
        elif leaf != 'weight':
            assert (tensor == torch.tensor(starts[leaf])).all(), name


def test_width_factor_scales_all_channels():
    net = build(width_factor=1.3, **ALL).eval()
    assert [m.shape[1] for m in net(batch())] == [10, 20, 31, 41]


@pytest.mark.parametrize(
    ('kwargs', 'name'),
    [
        (dict(arch='huge'), 'arch'),
        (dict(arch=None), 'arch'),
        (dict(arch=dict(depths=DEPTHS)), 'arch'),
        (dict(arch=dict(depths=DEPTHS, channels=CHANNELS, depth=1)), 'arch'),
        (dict(arch=dict(depths=DEPTHS, channels=CHANNELS, design='v3')), 'design'),
        (dict(arch=dict(depths=DEPTHS[:3], channels=CHANNELS)), 'depths'),
        (dict(arch=dict(depths=(1, 1, 0, 1), channels=CHANNELS)), 'depths'),
        (dict(arch=dict(depths=(True, 1, 1, 1), channels=CHANNELS)), 'depths'),
        (dict(arch=dict(depths=None, channels=CHANNELS)), 'depths'),
        (dict(arch=dict(depths=DEPTHS, channels=(8, 16, 24, 32.5))), 'channels'),
        *((dict(width_factor=value), 'width_factor') for value in (0.01, -1, '1', None, math.inf, math.nan, True)),
        *(
            (dict(kernel_size=value), 'kernel_size')
            for value in ((51, 49, 47), (51, 49, 47, 2), 51.0, '5151', None, True)
        ),
        *((dict(small_kernel=value), 'small_kernel') for value in (4, '3', [3], (3, 3), None)),
        *((dict(ghost_ratio=value), 'ghost_ratio') for value in (1.0, -0.1, 'a', None, math.nan)),
        *((dict(num_paths=value), 'num_paths') for value in (0, '2', 2.0, None, True)),
        *((dict(num_edges=value), 'num_edges') for value in (0, 1.5, [4], None, True)),
    ],
)
def test_bad_arguments_are_named(kwargs, name):
    with torch.device('meta'), pytest.raises(ValueError, match=name):
        ShiftWiseNet(**{'arch': dict(depths=DEPTHS, channels=CHANNELS), **kwargs})


def test_numbers_of_numpy_are_as_good_as_pythons():
    arch = dict(depths=tuple(np.array(DEPTHS)), channels=list(np.array(CHANNELS)))
    integers = dict(in_channels=3, kernel_size=7, small_kernel=3, num_paths=2, num_edges=4, frozen_stages=1)
    numbers = dict(width_factor=1.0, ghost_ratio=0.5, drop_path_rate=0.5, layer_scale_init_value=1.0)
    plain = ShiftWiseNet(dict(depths=DEPTHS, channels=CHANNELS), **integers, **numbers)
    numpy = ShiftWiseNet(
        arch,
        **{name: np.int64(value) for name, value in integers.items()},
        **{name: np.float64(value) for name, value in numbers.items()},
    )
    assert str(numpy) == str(plain)
    numpy.load_state_dict(plain.state_dict())
    assert torch.equal(numpy.eval()(batch())[0], plain.eval()(batch())[0])


@pytest.mark.parametrize(
    ('name', 'depth'),
    [
        ('downsample_layers.0.3.weight', 0),
        ('stages.0.2.gamma', 1),
        ('downsample_layers.1.0.bias', 2),
        ('stages.1.0.gamma', 2),
        ('downsample_layers.2.1.bias', 3),
        ('stages.2.0.gamma', 3),
        ('stages.2.2.gamma', 3),
        ('stages.2.3.gamma', 4),
        ('stages.2.17.gamma', 8),
        ('downsample_layers.3.0.weight', 9),
        ('stages.3.0.gamma', 9),
        ('norm.weight', 10),
        ('norm0.weight', 10),
    ],
)
def test_layer_depths_are_the_official_ones(name, depth):
    with torch.device('meta'):
        net = ShiftWiseNet()
    assert net.get_layer_depth(name) == (depth, 11)
    assert net.get_layer_depth(f'backbone.{name}', prefix='backbone.') == (depth, 11)
    assert net.get_layer_depth(f'head.{name}', prefix='backbone.') == (10, 11)


def test_number_of_layers_follows_the_depth():
    with torch.device('meta'):
        assert ShiftWiseNet('small').get_layer_depth('stages.2.26.gamma') == (11, 14)
        assert ShiftWiseNet('v1-tiny').get_layer_depth('stages.2.8.gamma') == (5, 8)
