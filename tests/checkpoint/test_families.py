"""A state dict tells its family, its form, and the arguments that build its net."""

import pytest
import torch

from sw_mm import backbones
from sw_mm.checkpoint.families import DEPLOY, describe

from .conftest import DENSE, NETS, build

FORMS = {False: 'training', 'official': 'official', True: 'full'}


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


# Forms that are the same go by the name of the first: SLaK's official form is the training form, and so on.
SAME = {
    **{(net, 'official'): 'training' for net in ('slak', 'slak-bare', 'convnext')},
    **{(net, 'full'): 'official' for net in ('unireplknet', 'unireplknet-own')},
}


@pytest.mark.parametrize('outputs', ['classification', 'dense'])
@pytest.mark.parametrize('deploy', FORMS)
@pytest.mark.parametrize('net', NETS)
def test_every_net_is_recognised_and_built_again(net, deploy, outputs):
    with torch.device('meta'):
        model = build(net, deploy=deploy, **(DENSE if outputs == 'dense' else {}))
    found = describe(model.state_dict())
    assert (found.family, found.form) == (NETS[net][0], SAME.get((net, FORMS[deploy]), FORMS[deploy]))
    if found.complete:
        assert shapes(found.build()) == shapes(model)
        assert found.config()['type'] == f'sw_mm.{found.family}'
        assert found.config()['deploy'] == DEPLOY[found.form]
    else:
        assert found.config() is None


ARCHES = [
    (family, arch)
    for family in ('ShiftWiseNet', 'SLaK', 'RepLKNet', 'UniRepLKNet', 'LargeKernelConvNeXt')
    for arch in getattr(backbones, family).arch_settings
]


@pytest.mark.parametrize(
    ('family', 'arch', 'deploy'),
    [
        *((*arch, False) for arch in ARCHES),
        ('RepLKNet', '31b', 'official'),
        ('RepLKNet', 'xl', True),
        ('UniRepLKNet', 't', True),
    ],
)
def test_every_architecture_is_told_by_its_name(family, arch, deploy):
    with torch.device('meta'):
        model = getattr(backbones, family)(arch=arch, deploy=deploy)
    found = describe(model.state_dict())
    assert (found.family, found.settings['arch']) == (family, arch)
    assert f'{family} {arch}' in str(found)
    assert shapes(found.build()) == shapes(model)


def test_a_description_reads_well():
    model = build('slak')
    assert str(describe(model.state_dict())) == (
        "SLaK {'depths': (1, 1, 2, 1), 'channels': (8, 8, 16, 16)} (width_factor=1.0, kernel_size=(13, 11, 9, 7), "
        'small_kernel=5), training form'
    )


@pytest.mark.parametrize(
    ('net', 'changes'),
    [
        ('slak', dict(layer_scale_init_value=0)),
        ('slak', dict(in_channels=4)),
        ('slak-dense', dict(small_kernel=100)),
        ('convnext-31', dict(small_kernel=100)),
        ('convnext-31', dict(small_kernel=9)),
        ('sw', dict(num_paths=1, ghost_ratio=0.31, in_channels=1)),
        ('replknet', dict(arch='13', small_kernel=None)),
        ('replknet', dict(arch='31b', kernel_size=(13, 11, 9, 7), in_channels=2)),
        ('unireplknet', dict(layer_scale_init_value=0)),
        ('unireplknet', dict(in_channels=4, kernel_size=(3, 17, 15, 11))),
        ('unireplknet', dict(kernel_size=0)),
        ('unireplknet-own', dict(branches={5: (), 19: ((17, 1),)}, deploy='official')),
        ('replknet', dict(**DENSE, norm_intermediate_features=True)),
        ('mobilenet', dict(large_kernels='last_stage')),
        ('mobilenet', dict(large_kernels='last_block', small_kernel=None, in_channels=1)),
    ],
)
def test_unusual_settings_are_found(net, changes):
    with torch.device('meta'):
        model = build(net, **changes)
    assert shapes(describe(model.state_dict()).build()) == shapes(model)


def test_released_kernels_are_assumed_for_shiftwise_only_where_they_fit():
    found = describe(build('sw', kernel_size=(13, 11, 7, 5)).state_dict())
    assert found.settings['kernel_size'] is None
    assert not found.complete
    assert 'kernel_size' not in str(found)


def test_what_no_family_has_is_not_recognised():
    assert describe({'conv1.weight': torch.ones(3), 'layer1.0.conv1.weight': torch.ones(3)}) is None
