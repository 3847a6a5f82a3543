import copy
import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from mmengine.model import revert_sync_batchnorm
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


def batch_norms(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


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


def test_tiny_runs_for_real_and_folds():
    net = ShiftWiseNet(layer_scale_init_value=1.0).eval()
    x = batch(1, 3, 224, 224)
    with torch.no_grad():
        (expected,) = net(x)
        net.switch_to_deploy()
        (folded,) = net(x)
    assert expected.shape == (1, 640)
    torch.testing.assert_close(folded, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize(
    ('arch', 'deploy'), [*((arch, False) for arch in ShiftWiseNet.arch_settings), ('tiny', True), ('v1-tiny', True)]
)
def test_every_arch_runs_on_the_meta_device(arch, deploy):
    channels = ShiftWiseNet.arch_settings[arch]['channels']
    with torch.device('meta'):
        (pooled,) = ShiftWiseNet(arch, deploy=deploy).eval()(torch.empty(2, 3, 224, 224))
        maps = ShiftWiseNet(arch, deploy=deploy, **ALL).eval()(torch.empty(1, 3, 96, 160))
    assert pooled.shape == (2, channels[-1])
    assert [tuple(m.shape) for m in maps] == [
        (1, c, 96 // stride, 160 // stride) for c, stride in zip(channels, (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(
    ('out_indices', 'stages'),
    [(0, [0]), (-2, [2]), ((1, 3), [1, 3]), ([0, -1], [0, 3]), (np.int64(1), [1]), (range(4), [0, 1, 2, 3])],
)
def test_out_indices_choose_stages(small, out_indices, stages):
    net = small(out_indices=out_indices, gap_before_final_norm=False).eval()
    assert [tuple(m.shape) for m in net(batch())] == [(2, CHANNELS[i], 16 >> i, 16 >> i) for i in stages]
    assert {name for name, _ in net.named_children()} - {'downsample_layers', 'stages'} == {f'norm{i}' for i in stages}


def test_the_last_stage_alone_is_pooled_by_default(small):
    net, dense = small(), small(gap_before_final_norm=False)
    dense.load_state_dict(
        {k.replace('norm.', 'norm3.') if k[:5] == 'norm.' else k: v for k, v in net.state_dict().items()}
    )
    dense.norm3 = nn.Identity()
    (pooled,), (raw,) = net.eval()(batch()), dense.eval()(batch())
    torch.testing.assert_close(pooled, net.norm(raw.mean((2, 3))))


@pytest.mark.parametrize('out_indices', [4, -5, (), (0, 0), (3, 0), (0, 4), 1.5, '12', None, True, (0, True), {0, 1}])
def test_impossible_out_indices_are_refused(out_indices):
    with pytest.raises(ValueError, match='out_indices'):
        build(out_indices=out_indices)


@pytest.mark.parametrize('form', [None, 'official', 'full'])
@pytest.mark.parametrize('with_cp', [False, True])
def test_stages_are_called_once_and_give_raw_maps(small, form, with_cp):
    net = small(with_cp=with_cp, **ALL).eval()
    if form:
        net.switch_to_deploy(form)
    raw = []
    for stage in net.stages:
        stage.register_forward_hook(lambda module, args, output: raw.append(output))
    outputs = net(batch(requires_grad=True))
    assert len(net.stages) == len(raw) == 4
    for i, (inside, output) in enumerate(zip(raw, outputs, strict=True)):
        assert inside.shape == (2, CHANNELS[i], 16 >> i, 16 >> i)
        assert torch.equal(net.get_submodule(f'norm{i}')(inside), output)


@pytest.mark.parametrize('size', [(32, 32), (96, 160), (35, 77)])
def test_any_size_works(small, size):
    net = small(**ALL).eval()
    for i, m in enumerate(net(batch(1, 3, *size))):
        assert m.isfinite().all()
        assert m.shape[1] == CHANNELS[i]


def test_memory_format_of_the_input_does_not_matter(small):
    net = small(**ALL).eval()
    plain = net(batch())
    other = net(batch().contiguous(memory_format=torch.channels_last))
    for ours, theirs in zip(other, plain, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('x', [batch(1, 4, 32, 32), batch(3, 32, 32)])
def test_other_inputs_are_refused(x):
    with pytest.raises(ValueError, match='in_channels'):
        build()(x)


@pytest.mark.parametrize(('design', 'least'), [('v1', 32), ('v2', 1)])
def test_images_below_the_least_size_are_refused(design, least):
    net = build(design, **ALL).eval()
    assert [tuple(m.shape[2:]) for m in net(batch(1, 3, least, 64))][-1] == (1, 2)
    for size in ((least - 1, 64), (64, least - 1)):
        with pytest.raises(ValueError, match=f'at least {least} pixels'):
            net(batch(1, 3, *size))


def test_images_may_have_other_channels(small):
    assert small(in_channels=5).eval()(batch(1, 5, 32, 32))[0].shape == (1, 32)


def test_every_parameter_gets_a_finite_gradient(small):
    net = small(drop_path_rate=0.1, **ALL).train()
    sum(m.square().mean() for m in net(batch())).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_bf16_autocast_trains(small):
    net = small(layer_scale_init_value=1.0, **ALL)
    expected = net(batch())
    with torch.autocast('cpu', torch.bfloat16):
        outputs = net(batch())
        loss = sum(m.float().square().mean() for m in outputs)
    loss.backward()
    for ours, exact in zip(outputs, expected, strict=True):
        assert (ours - exact).norm() < 0.05 * exact.norm()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_checkpointing_changes_no_gradient_and_no_statistic(small):
    plain = small(drop_path_rate=0.5, layer_scale_init_value=1.0, **ALL)
    spared = small(drop_path_rate=0.5, layer_scale_init_value=1.0, with_cp=True, **ALL)
    spared.load_state_dict(plain.state_dict())
    for net in (plain, spared):
        torch.manual_seed(5)
        sum(m.square().mean() for m in net(batch())).backward()
    torch.testing.assert_close(spared.state_dict(), plain.state_dict(), rtol=0, atol=0)
    for ours, theirs in zip(spared.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0)


@pytest.mark.parametrize('frozen', [-1, 0, 1, 3, 4])
def test_frozen_stages_do_not_learn(small, frozen):
    net = small(frozen_stages=frozen, **ALL).train()
    before = copy.deepcopy(net.state_dict())
    sum(m.square().mean() for m in net(batch())).backward()
    for i in range(4):
        for module in (net.downsample_layers[i], net.stages[i]):
            assert {p.requires_grad for p in module.parameters()} == {i >= frozen}
            assert {m.training for m in module.modules()} == {i >= frozen}
            for name, statistic in module.named_buffers():
                if name.endswith('running_mean'):
                    place = 'stages' if module in net.stages else 'downsample_layers'
                    assert torch.equal(statistic, before[f'{place}.{i}.{name}']) == (i < frozen)
    assert all(p.requires_grad for i in range(4) for p in net.get_submodule(f'norm{i}').parameters())


@pytest.mark.parametrize('frozen', [-2, 5, '1', 1.5, None, True])
def test_impossible_frozen_stages_are_refused(frozen):
    with pytest.raises(ValueError, match='frozen_stages'):
        build(frozen_stages=frozen)


def test_norm_eval_keeps_the_statistics(small):
    net = small(norm_eval=True)
    assert net.train() is net
    before = copy.deepcopy(net.state_dict())
    net(batch())
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert net.stages[0].training
    assert not any(m.training for m in batch_norms(net))
    assert all(m.training for m in batch_norms(small().train()))


@pytest.mark.parametrize(
    ('norm_cfg', 'kind'), [(dict(type='SyncBN'), nn.SyncBatchNorm), (dict(type='BN'), nn.BatchNorm2d)]
)
def test_norm_cfg_reaches_every_batch_norm(small, norm_cfg, kind):
    norms = batch_norms(small(norm_cfg=dict(norm_cfg, eps=1e-3, momentum=0.03, requires_grad=False)))
    assert norms
    for norm in norms:
        assert isinstance(norm, kind)
        assert (norm.eps, norm.momentum) == (1e-3, 0.03)
        assert not norm.weight.requires_grad


@pytest.mark.parametrize('form', ['full', 'official'])
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize('norm', ['BN', 'SyncBN', 'reverted SyncBN'])
def test_deploy_form_is_equal_and_reloads(small, perturb, form, dtype, tolerance, norm):
    options = dict(norm_cfg=dict(type=norm.split()[-1]), **ALL)
    net = perturb(small(**options)).to(dtype)
    if norm.startswith('reverted'):
        net = revert_sync_batchnorm(net)
    net.eval()
    x = batch(dtype=dtype)
    expected = net(x)
    net.switch_to_deploy(form)
    state = copy.deepcopy(net.state_dict())
    net.switch_to_deploy(form)
    torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)
    fresh = small(deploy=form if form == 'official' else True, **options).to(dtype).eval()
    fresh.load_state_dict(state)
    for ours, theirs, exact in zip(net(x), fresh(x), expected, strict=True):
        assert torch.equal(ours, theirs)
        assert (ours - exact).abs().max() <= tolerance * exact.abs().max()


def test_official_form_can_be_folded_fully(small, perturb):
    net = perturb(small()).double().eval()
    expected = net(batch(dtype=torch.float64))
    net.switch_to_deploy('official')
    net.switch_to_deploy('full')
    torch.testing.assert_close(net(batch(dtype=torch.float64)), expected, rtol=1e-10, atol=1e-10)
    assert list(net.state_dict()) == list(small(deploy=True).state_dict())


def test_deploy_keeps_frozen_stages_frozen(small):
    net = small(frozen_stages=2)
    net.switch_to_deploy()
    trainable = {name.split('.')[1] for name, p in net.named_parameters() if p.requires_grad and name[:6] == 'stages'}
    assert trainable == {'2', '3'}
    assert not net.stages[0].training
    assert net.stages[2].training


def test_unknown_deploy_form_is_refused():
    with pytest.raises(ValueError, match='form'):
        build().switch_to_deploy('fast')


@pytest.mark.parametrize('deploy', [False, True])
def test_the_net_can_be_exported(small, perturb, deploy):
    net = perturb(small(deploy=deploy, **ALL)).eval()
    exported = torch.export.export(net, (batch(),)).module()
    for ours, theirs in zip(exported(batch()), net(batch()), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_state_dict_goes_round(small, perturb):
    net = perturb(small()).eval()
    other = small().eval()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(batch())[0], net(batch())[0])


def test_copies_are_equal_and_independent(small):
    net = small().eval()
    (expected,) = net(batch())
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(batch())[0], expected)
        nn.init.zeros_(other.norm.weight)
    assert torch.equal(net(batch())[0], expected)


def test_the_seed_alone_decides_the_weights(small):
    def weights_and_next_draw(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(seed)
        weights = torch.cat([p.detach().flatten() for p in small().parameters()])
        return weights, torch.rand(4)

    numpy_state = np.random.get_state()[1].copy()
    first, again, other = map(weights_and_next_draw, (1, 1, 2))
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    for value, same, different in zip(first, again, other, strict=True):
        assert torch.equal(value, same)
        assert not torch.equal(value, different)


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


def test_a_net_from_the_meta_device_becomes_real(small):
    with torch.device('meta'):
        net = small()
    ordinary = small()
    for n in (net.to_empty(device='cpu'), ordinary):
        torch.manual_seed(0)
        n.init_weights()
    torch.testing.assert_close(net.state_dict(), ordinary.state_dict(), rtol=0, atol=0)
    assert torch.equal(net.eval()(batch())[0], ordinary.eval()(batch())[0])


def test_init_cfg_has_the_last_word(small, perturb, tmp_path):
    trained = perturb(small())
    torch.save(trained.state_dict(), tmp_path / 'net.pth')
    net = small(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'net.pth')))
    net.init_weights()
    torch.testing.assert_close(net.state_dict(), trained.state_dict(), rtol=0, atol=0)
    net = small(init_cfg=dict(type='Constant', layer='Linear', val=0.5))
    net.init_weights()
    assert all((m.weight == 0.5).all() for m in net.modules() if isinstance(m, nn.Linear))


def test_drop_path_grows_linearly(small):
    net = small(drop_path_rate=0.4)
    rates = [block.drop_path.drop_prob for stage in net.stages for block in stage]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


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
        *((dict(in_channels=value), 'in_channels') for value in (0, '3', 3.0, None, True)),
        *((dict(width_factor=value), 'width_factor') for value in (0.01, -1, '1', None, math.inf, math.nan, True)),
        *(
            (dict(kernel_size=value), 'kernel_size')
            for value in ((51, 49, 47), (51, 49, 47, 2), 51.0, '5151', None, True)
        ),
        *((dict(small_kernel=value), 'small_kernel') for value in (4, '3', [3], (3, 3), None)),
        *((dict(ghost_ratio=value), 'ghost_ratio') for value in (1.0, -0.1, 'a', None, math.nan)),
        *((dict(num_paths=value), 'num_paths') for value in (0, '2', 2.0, None, True)),
        *((dict(num_edges=value), 'num_edges') for value in (0, 1.5, [4], None, True)),
        *((dict(drop_path_rate=value), 'drop_path_rate') for value in (1.0, -1, 'x', None)),
        *((dict(layer_scale_init_value=value), 'layer_scale_init_value') for value in (-1, 'x', None, math.inf)),
        *((dict(deploy=value), 'deploy') for value in ('fast', 1, 0, None, [True])),
        *((dict(norm_cfg=value), 'norm_cfg') for value in (None, 'BN', {})),
        (dict(norm_cfg=dict(type='Nonsense')), 'norm_cfg'),
        (dict(norm_cfg=dict(type='BN', nonsense=1)), 'norm_cfg'),
        (dict(norm_cfg=dict(type='GN', num_groups=1)), 'norm_cfg'),
        *((dict(norm_cfg=dict(type=value)), 'norm_cfg') for value in ('BN1d', 'BN3d', 'IN')),
        (dict(norm_cfg=dict(type='BN', track_running_stats=False)), 'norm_cfg.* running statistics'),
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
