"""Promises that all backbones make, held against small nets of each; and every official net builds, runs and folds."""

import copy
import inspect
import math
import pickle
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

from sw_mm import backbones
from sw_mm.layers import DropPath

ARCH = dict(depths=(1, 1, 2, 1), channels=(8, 12, 16, 20))
COMMON = dict(arch=ARCH, kernel_size=(13, 11, 9, 7))
MOBILE = dict(width_factor=0.1, kernel_size=7)  # 8, 8, 16 and 32 channels
# By family, small nets that together have every kind of layer; the first is of the kind that was released.
NETS = {
    'ShiftWiseNet': {'v2': COMMON, 'v1': dict(COMMON, arch=dict(ARCH, design='v1'))},
    'SLaK': {
        kind: dict(COMMON, width_factor=1.0, **kwargs)
        for kind, kwargs in {
            'decomposed': {},
            'dense': dict(decomposed=False),
            'dense alone': dict(decomposed=False, small_kernel=100),
            'decomposed without norms': dict(norm_cfg=None),
            'dense without norms': dict(decomposed=False, norm_cfg=None),
            'no layer scale': dict(layer_scale_init_value=0.0),
        }.items()
    },
    'RepLKNet': {
        'small kernels': COMMON,
        'small kernels in part': dict(COMMON, kernel_size=(5, 7, 3, 9)),
        'no small kernels, wider inside': dict(COMMON, arch=dict(ARCH, dw_ratio=1.5), small_kernel=None),
        'output norms': dict(COMMON, norm_intermediate_features=True),
    },
    'UniRepLKNet': {
        'official kernels': dict(arch=ARCH, kernel_size=(3, 13, (13, 3), 13)),
        'own kernels': dict(
            arch=ARCH, kernel_size=(5, 19, (9, 0), 7), branches={5: ((3, 1),), 9: (), 19: ((7, 3), (3, 9))}
        ),
    },
    'LargeKernelConvNeXt': {
        'two kernels': COMMON,
        'large kernel alone': dict(COMMON, small_kernel=13),
        'plain': dict(COMMON, small_kernel=None),
    },
    'LargeKernelMobileNetV2': {
        'branched': dict(MOBILE, small_kernel=3),
        'plain': MOBILE,
        'last stage': dict(MOBILE, small_kernel=3, large_kernels='last_stage'),
        'dilated': dict(MOBILE, small_kernel=3, kernel_size=5, dw_dilation=3, output_stride=8),
        'no shortcuts': dict(MOBILE, shortcut=False),
    },
}
ALL = dict(out_indices=(0, 1, 2, 3))
DENSE = dict(ALL, gap_before_final_norm=False)
OUTPUTS = {'classification': {}, 'dense': DENSE}
FORMS = {'official': 'official', 'full': True}


def cases(*chosen: str) -> list:
    """Parameters for the fixture ``make``: each kind of each family, or the first ones and the chosen ones."""
    return [
        pytest.param((family, kind), id=f'{family}, {kind}')
        for family, kinds in NETS.items()
        for index, kind in enumerate(kinds)
        if not chosen or index == 0 or kind in chosen
    ]


first_kinds = pytest.mark.parametrize('make', cases('v1'), indirect=True)


@pytest.fixture(params=cases())
def make(request) -> Callable[..., nn.Module]:
    """Build a small net; layer scale is 1, so that every block counts."""
    family, kind = request.param
    build, settings = getattr(backbones, family), NETS[family][kind]
    if 'layer_scale_init_value' in inspect.signature(build).parameters:
        settings = dict(layer_scale_init_value=1.0) | settings
    return partial(build, **settings)


@pytest.fixture
def trained(perturb) -> Callable[[nn.Module], nn.Module]:
    """Return a function that gives a net weights and statistics at which every branch counts, and eval mode."""

    def function(net: nn.Module) -> nn.Module:
        for norm in batch_norms(perturb(net)):
            norm.momentum = 0.9
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.5, 0.5)
        with torch.no_grad():
            net.train()(batch(4, 3, 64, 64))
        for norm in batch_norms(net):
            norm.momentum = 0.1
        return net.eval()

    return function


def batch(*shape: int, **kwargs) -> Tensor:
    return torch.randn(*(shape or (2, 3, 64, 64)), generator=torch.Generator().manual_seed(0), **kwargs)


def batch_norms(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def shapes(net: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(tensor.shape)) for name, tensor in net.state_dict().items()]


def train_on(net: nn.Module, x: Tensor) -> None:
    """Compute gradients of a number that depends on every output."""
    sum(m.float().square().mean() for m in net(x)).backward()


def assert_close(ours: Sequence[Tensor], exact: Sequence[Tensor], tolerance: float) -> None:
    """Compare maps, relative to the largest value of each."""
    for a, b in zip(ours, exact, strict=True):
        assert b.std() > 0.01
        assert (a - b).abs().max() <= tolerance * b.abs().max()


def test_every_family_is_here():
    assert set(NETS) == set(backbones.__all__)


@pytest.mark.parametrize('family', NETS)
def test_all_have_the_same_arguments_with_the_same_defaults(family):
    common = dict(
        in_channels=3,
        out_indices=-1,
        frozen_stages=0,
        norm_eval=False,
        gap_before_final_norm=True,
        with_cp=False,
        norm_cfg=dict(type='BN'),
        init_cfg=None,
        deploy=False,
    )
    theirs = {name: p.default for name, p in inspect.signature(getattr(backbones, family)).parameters.items()}
    assert {name: theirs.get(name, 'missing') for name in common} == common
    documented = inspect.getdoc(getattr(backbones, family))
    assert not [name for name in theirs if f'\n    {name}: ' not in documented]


# ------------------------------------------------------------------------------------------- every official net

# LargeKernelMobileNetV2 has no names; these kernels, and the small ones beside them, are those of the paper.
MOBILES = [
    dict(kernel_size=k, small_kernel=s) for k, s in ((3, None), (7, None), (9, None), (9, 3), (13, None), (13, 3))
]
OFFICIAL = [
    pytest.param(family, kwargs, id=f'{family}, {" ".join(map(str, kwargs.values()))}')
    for family in NETS
    for kwargs in (
        MOBILES
        if family == 'LargeKernelMobileNetV2'
        else [dict(arch=arch) for arch in getattr(backbones, family).arch_settings]
    )
]


def channels_of(family: str, kwargs: dict) -> tuple[int, ...]:
    if 'arch' not in kwargs:
        return 24, 32, 96, 320
    channels = getattr(backbones, family).arch_settings[kwargs['arch']]['channels']
    return tuple(int(1.3 * c) for c in channels) if family == 'SLaK' else channels


@pytest.mark.parametrize('form', ['full', pytest.param('official', marks=pytest.mark.slow)])
@pytest.mark.parametrize(('family', 'kwargs'), OFFICIAL)
def test_official_nets_run_and_fold_on_the_meta_device(family, kwargs, form):
    build, channels = partial(getattr(backbones, family), **kwargs), channels_of(family, kwargs)
    with torch.device('meta'):
        maps = build(**ALL)(torch.empty(1, 3, 96, 160))
        net, built = build(), build(deploy=FORMS[form]).eval()
        net.switch_to_deploy(form)
        (pooled,) = built(torch.empty(2, 3, 224, 224))
    assert [tuple(m.shape) for m in maps] == [(1, c, 24 >> i, 40 >> i) for i, c in enumerate(channels)]
    assert tuple(pooled.shape) == (2, 1280 if 'arch' not in kwargs else channels[-1])
    assert shapes(net) == shapes(built)


@pytest.mark.slow
@pytest.mark.parametrize(('family', 'kwargs'), OFFICIAL)
def test_every_parameter_of_official_nets_gets_a_gradient(family, kwargs):
    for outputs in OUTPUTS.values():
        with torch.device('meta'):
            net = getattr(backbones, family)(**kwargs, **outputs)
            train_on(net, torch.empty(2, 3, 64, 64))
        assert not [name for name, p in net.named_parameters() if p.grad is None]


# Those that take seconds.
SMALLER = [
    case for case in OFFICIAL if not {'base', 'large', 'v1-large', '31l', 'xl', 'l'} & set(case.values[1].values())
]


@pytest.mark.slow
@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize(('family', 'kwargs'), SMALLER)
def test_official_nets_fold_exactly(trained, family, kwargs, form):
    net = trained(getattr(backbones, family)(**kwargs))
    double, x = copy.deepcopy(net).double(), batch(1, 3, 96, 96)
    for model, tolerance in ((net, 1e-5), (double, 1e-10)):
        with torch.no_grad():
            x = x.to(next(model.parameters()))
            before = model(x)
            model.switch_to_deploy(form)
            assert_close(model(x), before, tolerance)


# ------------------------------------------------------------------------------------------------------ outputs


@pytest.mark.parametrize('size', [(224, 224), (96, 160), (35, 77)])
def test_nets_run_at_any_size(make, size):
    with torch.no_grad():
        (pooled,) = make().eval()(batch(1, 3, *size))
        maps = make(**DENSE).eval()(batch(1, 3, *size))
    strides = (4, 8, 8, 8) if 'output_stride' in make.keywords else (4, 8, 16, 32)
    for m, stride in zip(maps, strides, strict=True):
        assert all(got in (side // stride, -(-side // stride)) for got, side in zip(m.shape[2:], size, strict=True))
    assert pooled.shape == (1, 1280 if make.func is backbones.LargeKernelMobileNetV2 else maps[-1].shape[1])
    assert all(m.isfinite().all() for m in (pooled, *maps))


@first_kinds
@pytest.mark.parametrize(
    ('out_indices', 'stages'),
    [(0, [0]), (-2, [2]), ((1, 3), [1, 3]), ([0, -1], [0, 3]), (np.int64(1), [1]), (range(4), [0, 1, 2, 3])],
)
def test_out_indices_choose_maps(make, trained, out_indices, stages):
    whole = trained(make(**DENSE))
    net = make(out_indices=out_indices, gap_before_final_norm=False).eval()
    surplus = net.load_state_dict(whole.state_dict(), strict=False)
    assert not surplus.missing_keys
    maps = whole(batch())
    assert all(torch.equal(a, maps[i]) for a, i in zip(net(batch()), stages, strict=True))
    assert {name.split('.')[0] for name in surplus.unexpected_keys} <= {f'norm{i}' for i in range(4)} | {'stages'}


@first_kinds
@pytest.mark.parametrize('form', [None, *FORMS])
@pytest.mark.parametrize('with_cp', [False, True])
def test_stages_are_called_once_and_give_the_raw_maps(make, form, with_cp):
    net = make(with_cp=with_cp, **ALL).eval()
    if form:
        net.switch_to_deploy(form)
    raw = []
    for stage in net.stages:
        stage.register_forward_hook(lambda module, args, output: raw.append(output))
    outputs = net(batch(requires_grad=True))
    assert len(net.stages) == len(raw) == 4
    for i, (inside, output) in enumerate(zip(raw, outputs, strict=True)):
        assert torch.equal(getattr(net, f'norm{i}', nn.Identity())(inside), output)


def test_memory_format_of_the_input_does_not_matter(make, trained):
    net = trained(make(**DENSE))
    assert_close(net(batch().contiguous(memory_format=torch.channels_last)), net(batch()), 1e-5)


@first_kinds
def test_images_may_have_other_channels(make):
    net = make(in_channels=5).eval()
    assert net(batch(1, 5, 64, 64))[0].isfinite().all()
    for shape in ((1, 3, 64, 64), (5, 64, 64)):
        with pytest.raises(ValueError, match='in_channels=5'):
            net(batch(*shape))


@first_kinds
def test_images_below_the_least_size_are_refused(make):
    net = make(**ALL).eval()
    assert all(m.isfinite().all() for m in net(batch(1, 3, net.min_size, net.min_size)))
    for size in ((net.min_size - 1, 64), (64, net.min_size - 1)):
        with pytest.raises(ValueError, match=f'at least {net.min_size} pixels'):
            net(batch(1, 3, *size))


# ----------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize('outputs', OUTPUTS)
@pytest.mark.parametrize('deploy', [False, 'official', True])
def test_every_parameter_gets_a_finite_gradient(make, outputs, deploy):
    drop_path = dict(drop_path_rate=0.1) if 'drop_path_rate' in inspect.signature(make.func).parameters else {}
    net = make(deploy=deploy, **drop_path, **OUTPUTS[outputs]).train()
    train_on(net, batch())
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@first_kinds
def test_bf16_autocast_computes_the_same_and_trains(make, trained):
    net = trained(make(**DENSE))
    exact = net(batch())
    with torch.autocast('cpu', torch.bfloat16):
        outputs = net(batch())
        train_on(net.train(), batch())
    for ours, theirs in zip(outputs, exact, strict=True):
        assert (ours - theirs).norm() < 0.1 * theirs.norm()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@first_kinds
def test_checkpointing_changes_no_gradient_and_no_statistic(make):
    drop_path = dict(drop_path_rate=0.5) if 'drop_path_rate' in inspect.signature(make.func).parameters else {}
    plain, spared = (make(with_cp=with_cp, **drop_path, **DENSE).train() for with_cp in (False, True))
    spared.load_state_dict(plain.state_dict())
    saved = []
    for net in (plain, spared):
        kept = []
        torch.manual_seed(5)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            loss = sum(m.square().mean() for m in net(batch()))
        loss.backward()
        saved.append(len(kept))
    assert saved[1] < saved[0] / 2
    torch.testing.assert_close(spared.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert all(norm.num_batches_tracked == 1 for norm in batch_norms(spared))
    for ours, theirs in zip(spared.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0)


@first_kinds
def test_drop_path_grows_linearly(make):
    if 'drop_path_rate' not in inspect.signature(make.func).parameters:
        pytest.skip('there is no such argument')
    net = make(drop_path_rate=0.4)
    rates = [m.drop_prob for m in net.modules() if isinstance(m, DropPath)]
    pair = 2 if make.func is backbones.RepLKNet else 1
    assert rates == pytest.approx([rate for rate in (0, 0.1, 0.2, 0.3, 0.4) for _ in range(pair)])


@first_kinds
@pytest.mark.parametrize('frozen', [-1, 0, 1, 3, 4])
def test_frozen_stages_do_not_learn(make, frozen):
    net = make(frozen_stages=frozen, norm_cfg=dict(type='BN'), **DENSE).train()
    before = {name: tensor.clone() for name, tensor in net.named_buffers()}
    sum(m.square().mean() for m in net(batch())).requires_grad_().backward()
    after, names = dict(net.named_buffers()), {id(t): name for name, t in net.named_buffers()}
    for i in range(4):
        part = nn.ModuleList([net.entry(i), net.stages[i]])
        assert {p.requires_grad for p in part.parameters()} == {i >= frozen}
        assert {p.grad is not None for p in part.parameters()} == {i >= frozen}
        assert {m.training for m in part.modules() if list(m.parameters(recurse=False))} == {i >= frozen}
        for name in (names[id(t)] for n, t in part.named_buffers() if n.endswith('running_mean')):
            assert torch.equal(after[name], before[name]) == (i < frozen), name


@first_kinds
def test_norm_eval_keeps_the_statistics(make):
    net = make(norm_eval=True, norm_cfg=dict(type='BN'))
    assert net.train() is net
    before = copy.deepcopy(net.state_dict())
    net(batch())
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert net.stages[0].training
    assert batch_norms(net)
    assert not any(norm.training for norm in batch_norms(net))


@pytest.mark.parametrize(('name', 'kind'), [('SyncBN', nn.SyncBatchNorm), ('BN', nn.BatchNorm2d)])
def test_norm_cfg_reaches_every_batch_norm(make, name, kind):
    wanted = dict(type=name, eps=1e-3, momentum=0.03, requires_grad=False)
    norms = batch_norms(make(**dict(DENSE, norm_cfg=wanted)))
    assert len(norms) == len(batch_norms(make(**dict(DENSE, norm_cfg=dict(type='BN')))))
    for norm in norms:
        assert isinstance(norm, kind)
        assert (norm.eps, norm.momentum, norm.weight.requires_grad) == (1e-3, 0.03, False)


# ------------------------------------------------------------------------------------------------------- deploy


@pytest.mark.parametrize('outputs', OUTPUTS)
@pytest.mark.parametrize('form', FORMS)
def test_deploy_form_is_equal_and_reloads(make, trained, form, outputs):
    original = trained(make(**OUTPUTS[outputs]))
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        net, x = copy.deepcopy(original).to(dtype), batch(dtype=dtype)
        expected = net(x)
        net.switch_to_deploy(form)
        state = copy.deepcopy(net.state_dict())
        net.switch_to_deploy(form)
        torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)
        fresh = make(deploy=FORMS[form], **OUTPUTS[outputs]).to(dtype).eval()
        assert list(fresh.state_dict()) == list(state)
        fresh.load_state_dict(state)
        folded = net(x)
        assert_close(folded, expected, tolerance)
        assert all(torch.equal(a, b) for a, b in zip(fresh(x), folded, strict=True))
        net.switch_to_deploy('full')
        assert_close(net(x), expected, tolerance)
        assert shapes(net) == shapes(make(deploy=True, **OUTPUTS[outputs]))


@first_kinds
@pytest.mark.parametrize('form', FORMS)
def test_synchronised_norms_fold_too(make, trained, form):
    """They are turned into plain ones by mmengine where training is not distributed."""
    original = trained(make(norm_cfg=dict(type='SyncBN'))).double()
    expected = original(batch(dtype=torch.float64))
    for net in (copy.deepcopy(original), revert_sync_batchnorm(copy.deepcopy(original)).eval()):
        net.switch_to_deploy(form)
        assert shapes(net) == shapes(make(deploy=FORMS[form]))
        assert_close(net(batch(dtype=torch.float64)), expected, 1e-10)


@first_kinds
@pytest.mark.parametrize('form', FORMS)
def test_deploy_keeps_mode_dtype_and_what_is_frozen(make, form):
    net = make(frozen_stages=2, **DENSE).bfloat16().train()
    net.switch_to_deploy(form)
    for i in range(4):
        part = nn.ModuleList([net.entry(i), net.stages[i]])
        assert {p.requires_grad for p in part.parameters()} == {i >= 2}
        assert {m.training for m in part.modules() if list(m.parameters(recurse=False))} == {i >= 2}
    assert {p.dtype for p in net.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize('family', NETS)
def test_unknown_form_is_refused(family):
    with torch.device('meta'):
        net = getattr(backbones, family)()
    before = shapes(net)
    with pytest.raises(ValueError, match="form must be 'full' or 'official'; got 'fast'"):
        net.switch_to_deploy('fast')
    assert shapes(net) == before


@pytest.mark.parametrize('deploy', [True, pytest.param(False, marks=pytest.mark.slow)])
@first_kinds
def test_nets_can_be_exported(make, trained, deploy):
    net = trained(make(deploy=deploy, **DENSE))
    assert_close(torch.export.export(net, (batch(),)).module()(batch()), net(batch()), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('deploy', [True, False])
@first_kinds
def test_nets_can_be_compiled_in_one_graph(make, trained, deploy):
    torch.compiler.reset()  # all nets share the code of `forward`, which is compiled a limited number of times
    net = trained(make(deploy=deploy, **DENSE))
    compiled = torch.compile(net, backend='aot_eager', fullgraph=True)
    assert_close(compiled(batch()), net(batch()), 1e-5)
    train_on(compiled, batch())
    assert all(p.grad.isfinite().all() for p in net.parameters())


# ------------------------------------------------------------------------------------------------------ weights


@pytest.mark.parametrize('deploy', [False, 'official', True])
def test_state_dict_goes_round(make, trained, deploy, tmp_path):
    net = trained(make(deploy=deploy, **ALL))
    torch.save(net.state_dict(), tmp_path / 'net.pth')
    other = make(deploy=deploy, **ALL).eval()
    other.load_state_dict(torch.load(tmp_path / 'net.pth'))
    assert all(torch.equal(a, b) for a, b in zip(other(batch()), net(batch()), strict=True))


@first_kinds
def test_copies_are_equal_and_independent(make):
    net = make().eval()
    (expected,) = net(batch())
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(batch())[0], expected)
        for parameter in other.parameters():
            nn.init.zeros_(parameter)
    assert torch.equal(net(batch())[0], expected)


def test_a_net_from_the_meta_device_becomes_real(make):
    with torch.device('meta'):
        net = make()
    ordinary = make()
    for n in (net.to_empty(device='cpu'), ordinary):
        torch.manual_seed(0)
        n.init_weights()
    torch.testing.assert_close(net.state_dict(), ordinary.state_dict(), rtol=0, atol=0)
    assert torch.equal(net.eval()(batch())[0], ordinary.eval()(batch())[0])


@first_kinds
def test_the_seed_alone_decides_the_weights(make):
    def weights_and_next_draw(seed: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        weights = torch.cat([p.detach().flatten() for p in make().parameters()])
        return weights, torch.rand(4)

    numpy_state = np.random.get_state()[1].copy()
    first, again, other = map(weights_and_next_draw, (1, 1, 2))
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    for value, same, different in zip(first, again, other, strict=True):
        assert torch.equal(value, same)
        assert not torch.equal(value, different)


@first_kinds
def test_init_cfg_has_the_last_word(make, trained, tmp_path):
    source = trained(make())
    torch.save(source.state_dict(), tmp_path / 'net.pth')
    net = make(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'net.pth')))
    net.init_weights()
    torch.testing.assert_close(net.state_dict(), source.state_dict(), rtol=0, atol=0)
    net = make(init_cfg=dict(type='Constant', layer='Conv2d', val=0.5))
    net.init_weights()
    assert all((m.weight == 0.5).all() for m in net.modules() if type(m) is nn.Conv2d)


# ---------------------------------------------------------------------------------------------------- arguments

BAD = {
    'in_channels': (0, '3', 3.0, None, True),
    'drop_path_rate': (1.0, -1, 'x', None),
    'layer_scale_init_value': (-1, 'x', None, math.inf),
    'out_indices': (4, -5, (), (0, 0), (3, 0), (0, 4), 1.5, '12', None, True, (0, True), {0, 1}),
    'frozen_stages': (-2, 5, '1', 1.5, None, True),
    'deploy': ('fast', 1, 0, None, [True]),
    'norm_cfg': (
        'BN',
        {},
        *(dict(type=name) for name in ('Nonsense', 'BN1d', 'BN3d', 'IN')),
        dict(type='BN', nonsense=1),
        dict(type='BN', track_running_stats=False),
        dict(type='GN', num_groups=1),
    ),
}


@pytest.mark.parametrize('name', BAD)
@first_kinds
def test_bad_arguments_are_named(make, name):
    if name not in inspect.signature(make.func).parameters:
        pytest.skip('there is no such argument')
    for value in BAD[name]:
        with torch.device('meta'), pytest.raises(ValueError, match=name):
            make(**{name: value})


@pytest.mark.parametrize('family', [family for family in NETS if family != 'SLaK'])
def test_batch_norms_are_a_must(family):
    """Only SLaK has them left out in its paper."""
    with torch.device('meta'), pytest.raises(ValueError, match='norm_cfg'):
        getattr(backbones, family)(norm_cfg=None)
