"""RepLKNet against its published sizes, its official state dict, and mmpretrain's RepLKNet."""

import copy
import itertools
import math
from collections.abc import Callable
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn

import sw_mm.registry  # noqa: F401 (before mmpretrain, which needs sw_mm.compat without mmcv's operators)
from sw_mm.analysis import complexity
from sw_mm.backbones import RepLKNet

DEPTHS, CHANNELS = (1, 1, 2, 1), (8, 12, 16, 20)
ALL = dict(out_indices=(0, 1, 2, 3))
DENSE = dict(norm_intermediate_features=True, **ALL)
NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
KINDS = {
    'small kernels': dict(small_kernel=5),
    'no small kernels': dict(small_kernel=None),
    'wider inside': dict(small_kernel=None, dw_ratio=1.5),
}


def build(dw_ratio: float = 1, **kwargs) -> RepLKNet:
    """A net of a few thousand parameters."""
    arch = dict(depths=DEPTHS, channels=CHANNELS, dw_ratio=dw_ratio)
    return RepLKNet(arch, **{'kernel_size': (13, 11, 9, 7), **kwargs})


def batch(*shape: int, **kwargs) -> torch.Tensor:
    return torch.randn(*(shape or (2, 3, 64, 64)), generator=torch.Generator().manual_seed(0), **kwargs)


@pytest.fixture
def trained(perturb) -> Callable[[nn.Module], nn.Module]:
    """Return a function that gives a net weights and statistics at which every branch counts, and eval mode."""

    def function(net: nn.Module) -> nn.Module:
        for norm in batch_norms(perturb(net)):
            norm.momentum = 0.9
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
        net.train()(batch(4, 3, 64, 64))
        for norm in batch_norms(net):
            norm.momentum = 0.1
        return net.eval()

    return function


def on_meta(*args, **kwargs) -> RepLKNet:
    with torch.device('meta'):
        return RepLKNet(*args, **kwargs)


def batch_norms(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


# With the head for 1000 classes, in the training and in the official deploy form: entries of the state dict,
# parameters, billions of MACs at 224 x 224.
OFFICIAL = [
    ('31B', (1171, 931), (79_864_168, 79_527_272), ('15.431', '15.354')),
    ('31L', (1171, 931), (172_671_016, 172_165_672), ('32.781', '32.664')),
    ('XL', (1027, 931), (335_435_752, 335_399_656), ('63.079', '63.079')),
    ('3', (1027, 931), (71_906_408, 71_894_376), ('12.939', '12.939')),
    ('7', (1171, 931), (72_712_552, 72_375_656), ('13.141', '13.063')),
    ('13', (1171, 931), (74_156_392, 73_819_496), ('13.514', '13.436')),
    ('25', (1171, 931), (78_709_096, 78_372_200), ('14.887', '14.809')),
]


def size(net: RepLKNet, side: int = 224) -> tuple[int, int, str]:
    """Entries, parameters and billions of MACs of a net, with the head for 1000 classes."""
    channels = net.norm.num_features
    cost = complexity(net, (3, side, side))
    return len(net.state_dict()) + 2, cost.params + 1000 * (channels + 1), f'{(cost.macs + 1000 * channels) / 1e9:.3f}'


@pytest.mark.parametrize(('arch', 'entries', 'params', 'macs'), OFFICIAL)
def test_official_nets_have_their_size(arch, entries, params, macs):
    for form, expected in zip((False, 'official'), zip(entries, params, macs, strict=True), strict=True):
        assert size(on_meta(arch, deploy=form)) == expected


@pytest.mark.parametrize(
    ('arch', 'side', 'macs'),
    [('31b', 384, ('45.347', '45.119')), ('31l', 384, ('96.332', '95.989')), ('xl', 320, ('128.730', '128.730'))],
)
def test_cost_at_the_larger_sizes(arch, side, macs):
    assert tuple(size(on_meta(arch, deploy=form), side)[2] for form in (False, 'official')) == macs


@pytest.mark.parametrize('arch', RepLKNet.arch_settings)
def test_the_full_form_has_one_norm_left_and_costs_what_the_official_one_does(arch):
    official, full = on_meta(arch, deploy='official'), on_meta(arch, deploy=True)
    assert [name for name, m in full.named_modules() if m in batch_norms(full)] == ['norm']
    # A norm behind a convolution leaves a bias behind, one at the start of a block nothing.
    gone = sum(
        m.num_features * (2 if name.endswith(('prelkb_bn', 'preffn_bn')) else 1)
        for name, m in official.named_modules()
        if m in batch_norms(official) and name != 'norm'
    )
    (_, official_params, macs), (_, params, full_macs) = size(official), size(full)
    assert (params, full_macs) == (official_params - gone, macs)
    assert len(full.state_dict()) == 2 * (4 + 24 * 5 + 6) + len(NORM)


@pytest.mark.parametrize(
    ('kwargs', 'entries', 'params'),
    [(ALL, 1164, 78_837_120), (dict(arch='XL', **DENSE), 1040, 333_390_336), (dict(arch='XL', **ALL), 1020, None)],
)
def test_dense_nets_have_their_size(kwargs, entries, params):
    net = on_meta(**kwargs)
    assert len(net.state_dict()) == entries
    assert params in (None, sum(p.numel() for p in net.parameters()))


def official_shapes(
    kernels: tuple[int, ...], channels: tuple[int, ...], small: int | None, ratio: float, merged: bool, dense: str
) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the official state dict in its order; ``dense`` is '', 'raw' or 'norm'."""
    shapes = []

    def norm(name: str, c: int) -> None:
        shapes.extend((f'{name}.{key}', () if key == 'num_batches_tracked' else (c,)) for key in NORM)

    def conv(name: str, *weight: int) -> None:
        shapes.append((f'{name}.conv.weight', weight))
        norm(f'{name}.bn', weight[0])

    first = channels[0]
    for i, rest in enumerate(((3, 3, 3), (1, 3, 3), (first, 1, 1), (1, 3, 3))):
        conv(f'stem.{i}', first, *rest)
    for stage, (depth, k, c) in enumerate(zip((2, 2, 18, 2), kernels, channels, strict=True)):
        hidden = int(c * ratio)
        for i in range(depth):
            at = f'stages.{stage}.blocks.{2 * i}'
            conv(f'{at}.pw1', hidden, c, 1, 1)
            conv(f'{at}.pw2', c, hidden, 1, 1)
            if merged:
                shapes.append((f'{at}.large_kernel.lkb_reparam.weight', (hidden, 1, k, k)))
                shapes.append((f'{at}.large_kernel.lkb_reparam.bias', (hidden,)))
            else:
                conv(f'{at}.large_kernel.lkb_origin', hidden, 1, k, k)
                if small:
                    conv(f'{at}.large_kernel.small_conv', hidden, 1, small, small)
            norm(f'{at}.prelkb_bn', c)
            at = f'stages.{stage}.blocks.{2 * i + 1}'
            norm(f'{at}.preffn_bn', c)
            conv(f'{at}.pw1', 4 * c, c, 1, 1)
            conv(f'{at}.pw2', c, 4 * c, 1, 1)
        if dense == 'norm':
            norm(f'stages.{stage}.norm', c)
    for i, (c, d) in enumerate(itertools.pairwise(channels)):
        conv(f'transitions.{i}.0', d, c, 1, 1)
        conv(f'transitions.{i}.1', d, 1, 3, 3)
    if not dense:
        norm('norm', channels[-1])
    return shapes


BASE, LARGE, HUGE = ((c, 2 * c, 4 * c, 8 * c) for c in (128, 192, 256))
K31, K27 = (31, 29, 27, 13), (27, 27, 27, 13)


@pytest.mark.parametrize(
    ('kwargs', 'expected'),
    [
        ({}, (K31, BASE, 5, 1, False, '')),
        (dict(deploy='official'), (K31, BASE, 5, 1, True, '')),
        (ALL, (K31, BASE, 5, 1, False, 'raw')),
        (dict(gap_before_final_norm=False), (K31, BASE, 5, 1, False, 'raw')),
        (dict(arch='31L'), (K31, LARGE, 5, 1, False, '')),
        (dict(arch='xL'), (K27, HUGE, None, 1.5, False, '')),
        (dict(arch='XL', norm_intermediate_features=True), (K27, HUGE, None, 1.5, False, '')),
        (dict(arch='XL', deploy='official'), (K27, HUGE, None, 1.5, True, '')),
        (dict(arch='XL', **DENSE), (K27, HUGE, None, 1.5, False, 'norm')),
        (dict(arch='XL', small_kernel=7), (K27, HUGE, 7, 1.5, False, '')),
        (dict(arch='3'), ((3, 3, 3, 3), BASE, None, 1, False, '')),
        (dict(arch='7', small_kernel=3), ((7, 7, 7, 7), BASE, 3, 1, False, '')),
        (dict(arch='13'), ((13, 13, 13, 13), BASE, 5, 1, False, '')),
        (dict(arch='25'), ((25, 25, 25, 13), BASE, 5, 1, False, '')),
        (dict(kernel_size=7, small_kernel=None), ((7, 7, 7, 7), BASE, None, 1, False, '')),
        (dict(arch=dict(depths=(2, 2, 18, 2), channels=LARGE)), (K31, LARGE, 5, 1, False, '')),
        (
            dict(arch=dict(depths=(2, 2, 18, 2), channels=HUGE, kernel_size=9, small_kernel=3, dw_ratio=0.5)),
            ((9, 9, 9, 9), HUGE, 3, 0.5, False, ''),
        ),
    ],
)
def test_nets_have_the_official_state_dict(kwargs, expected):
    state = on_meta(**kwargs).state_dict()
    assert [(key, tuple(tensor.shape)) for key, tensor in state.items()] == official_shapes(*expected)


def mmpretrain_net(net: RepLKNet, **kwargs) -> nn.Module:
    """Build mmpretrain's net with the weights of ours, under its own name for the final norm."""
    layers = [next(iter(stage)).large_kernel for stage in net.stages]
    arch = dict(
        large_kernel_sizes=[layer.kernel_size for layer in layers],
        layers=DEPTHS,
        channels=CHANNELS,
        small_kernel=layers[0].small_conv.conv.kernel_size[0] if hasattr(layers[0], 'small_conv') else None,
        dw_ratio=layers[0].channels / CHANNELS[0],
    )
    theirs = import_module('mmpretrain.models').RepLKNet(arch, drop_path_rate=0.0, **kwargs)
    theirs.to(net.stem[0].conv.weight.dtype)
    state = {f'stages.3.{key}' if key.startswith('norm.') else key: t for key, t in net.state_dict().items()}
    theirs.load_state_dict(state)
    theirs.train(net.training)
    return theirs


@pytest.mark.parametrize('shape', [(64, 64), (75, 109)])
@pytest.mark.parametrize('kwargs', KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_outputs_are_those_of_mmpretrain(trained, kwargs, shape, dtype, tolerance):
    x = batch(2, 3, *shape, dtype=dtype)

    def compare(ours, theirs):
        assert theirs.std() > 0.1
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()

    net = trained(build(**kwargs)).to(dtype)
    theirs = mmpretrain_net(net)
    ((expected,), (out,)) = theirs(x), net(x)
    assert out.shape == (2, CHANNELS[-1])
    compare(out, expected.mean((2, 3)))
    theirs.switch_to_deploy()
    net.switch_to_deploy('official')
    ((expected,), (out,)) = theirs(x), net(x)
    compare(out, expected.mean((2, 3)))
    mmpretrain_state = {key.replace('stages.3.norm.', 'norm.'): tensor for key, tensor in theirs.state_dict().items()}
    assert net.state_dict().keys() == mmpretrain_state.keys()
    torch.testing.assert_close(mmpretrain_state, dict(net.state_dict()))
    net.switch_to_deploy()
    compare(net(x)[0], expected.mean((2, 3)))

    dense = trained(build(**kwargs, **DENSE)).to(dtype)
    maps, expected_maps = dense(x), mmpretrain_net(dense, **ALL)(x)
    for i, (ours, expected) in enumerate(zip(maps, expected_maps, strict=True)):
        assert ours.shape == (2, CHANNELS[i], *(math.ceil(side / (4 << i)) for side in shape))
        compare(ours, expected)


@pytest.mark.parametrize('kwargs', KINDS.values(), ids=KINDS)
def test_training_is_that_of_mmpretrain(trained, kwargs):
    net = trained(build(**kwargs, **DENSE)).double().train()
    theirs = mmpretrain_net(net, **ALL)
    for model in (net, theirs):
        sum(m.square().mean() for m in model(batch(dtype=torch.float64))).backward()
    torch.testing.assert_close(dict(net.state_dict()), dict(theirs.state_dict()), rtol=1e-9, atol=1e-9)
    ours, expected = ({name: p.grad for name, p in model.named_parameters()} for model in (net, theirs))
    torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize('form', [None, 'official', 'full'])
@pytest.mark.parametrize('normed', [False, True])
def test_norms_touch_only_what_is_returned(perturb, form, normed):
    net = perturb(build(norm_intermediate_features=normed, **ALL)).eval()
    if form:
        net.switch_to_deploy(form)
    raw, entered = [], []
    for i, stage in enumerate(net.stages):
        stage.register_forward_hook(lambda module, args, output: raw.append(output))
        net.entry(i).register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    outputs = net(batch())
    assert len(raw) == 4
    for before, after in zip(raw, entered[1:], strict=False):
        assert before is after
    for i, (inside, output) in enumerate(zip(raw, outputs, strict=True)):
        assert torch.equal(output, inside) != normed
        if normed:
            assert torch.equal(output, net.stages[i].norm(inside))


def test_only_returned_stages_have_norms():
    net = build(norm_intermediate_features=True, out_indices=(1, 3))
    assert [isinstance(stage.norm, nn.BatchNorm2d) for stage in net.stages] == [False, True, False, True]
    assert not hasattr(net, 'norm')


def test_the_last_stage_alone_is_normed_and_pooled(perturb):
    net = perturb(build()).train()
    dense = build(gap_before_final_norm=False).train()
    dense.load_state_dict({key: tensor for key, tensor in net.state_dict().items() if not key.startswith('norm.')})
    norm = copy.deepcopy(net.norm)
    torch.testing.assert_close(net(batch())[0], norm(dense(batch())[0]).mean((2, 3)))


@pytest.mark.parametrize('with_cp', [False, True])
def test_checkpointing_runs_blocks_and_stem_again(with_cp):
    net, calls = build(with_cp=with_cp, **ALL), {}
    once = [net.stem[0], *itertools.chain(*net.transitions)]
    twice = [*list(net.stem)[1:], *itertools.chain(*net.stages)]
    for module in (*once, *twice):
        module.pw1 = getattr(module, 'pw1', None) or module  # the recomputation stops before the end of a block
        part = module.pw1.conv if module.pw1 is not module else module.conv
        part.register_forward_hook(lambda m, args, output, key=module: calls.update({key: calls.get(key, 0) + 1}))
    sum(m.square().mean() for m in net(batch())).backward()
    assert {calls[module] for module in once} == {1}
    assert {calls[module] for module in twice} == {1 + with_cp}


def test_weights_start_as_torch_makes_them():
    net = build()
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
            assert 0.7 * bound < module.weight.abs().max() <= bound, name
            assert module.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.3), name
    for norm in batch_norms(net):
        assert (norm.weight == 1).all()
        assert (norm.running_var == 1).all()
        assert not norm.bias.any()
        assert not norm.running_mean.any()


def test_drop_path_is_one_rate_a_pair_and_grows_linearly():
    net = on_meta(drop_path_rate=0.46)
    rates = [[block.drop_path.drop_prob for block in stage.blocks] for stage in net.stages]
    assert [len(stage) for stage in rates] == [4, 4, 36, 4]
    flat = list(itertools.chain(*rates))
    assert flat[::2] == flat[1::2] == pytest.approx([0.02 * i for i in range(24)])


@pytest.mark.parametrize(
    ('name', 'depth'),
    [
        ('stem.0.conv.weight', 0),
        ('stem.3.bn.bias', 0),
        ('stages.0.blocks.0.pw1.conv.weight', 1),
        ('stages.0.blocks.3.preffn_bn.bias', 1),
        ('transitions.0.0.conv.weight', 1),
        ('stages.1.blocks.0.prelkb_bn.weight', 2),
        ('transitions.1.1.bn.weight', 2),
        ('stages.2.blocks.0.pw1.bn.weight', 3),
        ('stages.2.blocks.3.pw1.bn.weight', 3),
        ('stages.2.blocks.4.pw1.bn.weight', 4),
        ('stages.2.blocks.35.pw1.bn.weight', 11),
        ('transitions.2.0.conv.weight', 11),
        ('stages.3.blocks.0.pw2.conv.weight', 12),
        ('norm.weight', 13),
        ('stages.0.norm.weight', 13),
        ('stages.3.norm.weight', 13),
    ],
)
def test_layer_depths_are_the_official_ones(name, depth):
    net = on_meta()
    assert net.get_layer_depth(name) == (depth, 14)
    assert net.get_layer_depth(f'backbone.{name}', prefix='backbone.') == (depth, 14)
    assert net.get_layer_depth(f'head.{name}', prefix='backbone.') == (13, 14)


@pytest.mark.parametrize(('depth', 'last'), [(1, 4), (2, 4), (3, 5), (4, 5), (18, 12), (27, 17)])
def test_number_of_layers_follows_the_depth(depth, last):
    net = on_meta(dict(depths=(1, 1, depth, 1), channels=CHANNELS))
    assert net.get_layer_depth(f'stages.2.blocks.{2 * depth - 1}.pw1.conv.weight') == (last - 1, last + 2)
    assert net.get_layer_depth('transitions.2.0.conv.weight') == (last - 1, last + 2)
    assert net.get_layer_depth('stages.3.blocks.0.pw1.conv.weight') == (last, last + 2)


ARCH = dict(depths=DEPTHS, channels=CHANNELS)


@pytest.mark.parametrize(
    ('kwargs', 'name'),
    [
        *((dict(arch=value), 'arch') for value in ('31', '51', 31, None)),
        (dict(arch=dict(depths=DEPTHS)), 'arch'),
        (dict(arch=dict(ARCH, width=1)), 'arch'),
        (dict(arch=dict(ARCH, depths=(1, 1, 0, 1))), 'depths'),
        (dict(arch=dict(ARCH, channels=(8, 16, 24))), 'channels'),
        (dict(arch=dict(ARCH, kernel_size=(31, 29, 27))), 'kernel_size'),
        (dict(arch=dict(ARCH, small_kernel=4)), 'small_kernel'),
        *(
            (dict(arch=dict(ARCH, dw_ratio=value)), 'dw_ratio')
            for value in (0, 0.1, -1, '1', None, math.inf, math.nan, True)
        ),
        *((dict(kernel_size=value), 'kernel_size') for value in ((31, 29), (31, 29, 27, 12), 31.0, '3131', True)),
        *((dict(small_kernel=value), 'small_kernel') for value in (4, 0, '5', [5], True)),
    ],
)
def test_bad_arguments_are_named(kwargs, name):
    with torch.device('meta'), pytest.raises(ValueError, match=name):
        RepLKNet(**{'arch': ARCH, **kwargs})


def test_numbers_of_numpy_are_as_good_as_pythons():
    arch = dict(depths=tuple(np.array(DEPTHS)), channels=list(np.array(CHANNELS)), dw_ratio=np.float64(1.5))
    numpy = RepLKNet(arch, kernel_size=np.int64(7), small_kernel=np.int64(3), drop_path_rate=np.float32(0.5))
    plain = build(dw_ratio=1.5, kernel_size=7, small_kernel=3, drop_path_rate=0.5)
    assert str(numpy) == str(plain)
    numpy.load_state_dict(plain.state_dict())
    assert torch.equal(numpy.eval()(batch())[0], plain.eval()(batch())[0])


def test_bf16_autocast_trains_as_mmpretrain_does(trained):
    with torch.random.fork_rng():
        torch.manual_seed(0)  # one net in twelve rounds worse, in either implementation
        net = trained(build(**DENSE)).train()

    def outputs_and_errors(model: nn.Module) -> tuple[tuple[torch.Tensor, ...], list[float]]:
        exact = model(batch())
        with torch.autocast('cpu', torch.bfloat16):
            outputs = model(batch())
        return outputs, [((m.float() - e).norm() / e.norm()).item() for m, e in zip(outputs, exact, strict=True)]

    outputs, errors = outputs_and_errors(net)
    _, expected = outputs_and_errors(mmpretrain_net(net, **ALL))
    assert all(ours < 1.5 * theirs < 0.5 for ours, theirs in zip(errors, expected, strict=True))
    sum(m.float().square().mean() for m in outputs).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_the_bare_name_stays_mmpretrains():
    models = import_module('mmpretrain.registry').MODELS
    assert models.get('RepLKNet') is import_module('mmpretrain.models').RepLKNet
    assert models.get('sw_mm.RepLKNet') is RepLKNet
