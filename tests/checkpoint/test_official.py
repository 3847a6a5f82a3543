"""Official checkpoints load completely or not at all."""

import hashlib
import re
from argparse import Namespace

import pytest
import torch
from mmengine.registry import MODELS

from sw_mm import backbones
from sw_mm.backbones import ShiftWiseNet, SLaK
from sw_mm.checkpoint import OfficialPretrained, load_official
from sw_mm.checkpoint.releases import RELEASES

from .conftest import ARCH, DENSE, NETS, build, official, randomise

OPERATOR = 'stages.2.1.large_kernel'
SMALL = [net for net in NETS if net != 'slak-dense']


def net(**kwargs):
    return ShiftWiseNet(**{'arch': ARCH, 'kernel_size': (13, 11, 7, 5), **kwargs})


def dense_net(**kwargs):
    return net(out_indices=(0, 1, 2, 3), gap_before_final_norm=False, **kwargs)


def copy(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(scope='module')
def weights():
    """A state dict as the official code writes it for a classifier."""
    return official(randomise(net()))


@pytest.mark.parametrize('deploy', [False, 'official', True])
@pytest.mark.parametrize('name', SMALL)
def test_every_family_loads_in_every_form(name, deploy, save):
    weights = official(randomise(build(name, deploy=deploy)))
    model = build(name, deploy=deploy)
    load_official(model, save(dict(model=weights, args=Namespace(model=name))))
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[key]), key


@pytest.mark.parametrize('name', SMALL)
def test_classifiers_start_models_for_dense_prediction(name, save):
    weights = official(randomise(build(name)))
    changes = dict(DENSE, norm_intermediate_features=True) if name == 'replknet' else DENSE
    model = build(name, **changes)
    load_official(model, save(weights))
    fresh = {key for key in model.state_dict() if key not in weights}
    assert all(re.match(r'norm\d\.|stages\.\d\.norm\.', key) for key in fresh)
    assert len(fresh) == {'mobilenet': 0, 'replknet': 20}.get(name, 8)
    for key, tensor in model.state_dict().items():
        if key in weights:
            assert torch.equal(tensor, weights[key]), key


def test_dense_models_drop_the_classifier_and_keep_their_output_norms(weights, save):
    model = dense_net()
    load_official(model, str(save(weights)))
    for name, tensor in model.state_dict().items():
        if name.startswith('norm'):
            assert tensor.unique().tolist() == [float(name.endswith('weight'))], name
        else:
            assert torch.equal(tensor, weights[name]), name


def test_the_backbone_of_a_whole_model_is_found(weights, save):
    model = torch.nn.Module()
    model.backbone, model.head = net(), torch.nn.Linear(16, 10)
    head = copy(model.head)
    load_official(model, save(weights))
    assert torch.equal(model.backbone.norm.weight, weights['norm.weight'])
    assert torch.equal(model.head.weight, head['weight'])


def test_the_first_design_loads_too(save):
    weights = copy(randomise(net(arch=dict(ARCH, design='v1'))))
    model = dense_net(arch=dict(ARCH, design='v1'))
    load_official(model, save(weights))
    assert torch.equal(model.stages[2][1].pwconv1.weight, weights['stages.2.1.pwconv1.weight'])


def tables(model):
    """The tables of one operator as early official code stored them."""
    operator = model.get_submodule(OPERATOR)
    rep, ghost = operator.channel_order.split([operator.tables.channels, 16 - operator.tables.channels])
    layout = {name: torch.from_numpy(table) for name, table in operator.tables.official_layout().items()}
    stored = {'loras.pad_hv1': layout['pad_hv'], 'loras.idx_identit1': layout['idx_identit']}
    stored.update({'loras.idx_out1': layout['idx_out'], 'rep1': rep, 'ghost1': ghost})
    return {f'{OPERATOR}.{name}': tensor for name, tensor in stored.items()}


def test_stored_tables_of_early_code_are_accepted_if_they_are_the_generated_ones(weights, save):
    model = dense_net()
    load_official(model, save({**weights, **tables(model)}))
    assert torch.equal(model.stages[0][0].gamma, weights['stages.0.0.gamma'])


@pytest.mark.parametrize('name', ['loras.pad_hv1', 'loras.idx_identit1', 'loras.idx_out1', 'rep1', 'ghost1'])
def test_other_tables_are_refused(weights, save, name):
    model = dense_net()
    before = copy(model)
    stored = tables(model)
    stored[f'{OPERATOR}.{name}'] = stored[f'{OPERATOR}.{name}'].flip(0)
    with pytest.raises(ValueError, match=rf'other connections.*{OPERATOR}\.{name}'):
        load_official(model, save({**weights, **stored}))
    assert_unchanged(model, before)


def test_tables_of_an_operator_that_is_not_there_are_refused(weights, save):
    with pytest.raises(ValueError, match=r'no operator for stages\.3\.9\.large_kernel\.rep1'):
        load_official(net(), save({**weights, 'stages.3.9.large_kernel.rep1': torch.zeros(3)}))


def assert_unchanged(model, before):
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def without(weights, *names):
    return {name: tensor for name, tensor in weights.items() if name not in names}


MISFITS = {
    'missing': (lambda weights: without(weights, 'stages.0.0.gamma'), r'1 missing \(stages\.0\.0\.gamma\)'),
    'many missing': (
        lambda weights: {name: tensor for name, tensor in weights.items() if 'stages.3' not in name},
        r'\d\d missing \(stages\.3\.0\.gamma, [^,]*, [^,]*, \.\.\.\)',
    ),
    'unexpected': (
        lambda weights: {**weights, 'stages.0.0.large_kernel.LoRAs.2.weight': torch.ones(1)},
        r'1 unexpected \(stages\.0\.0\.large_kernel\.LoRAs\.2\.weight\)',
    ),
    'other shape': (
        lambda weights: {**weights, 'stages.0.0.gamma': torch.ones(9)},
        r'1 of another shape \(stages\.0\.0\.gamma \(9,\) instead of \(8,\)\)',
    ),
    'other shape of the final norm': (
        lambda weights: {**weights, 'norm.weight': torch.ones(9)},
        r'of another shape \(norm\.weight \(9,\)',
    ),
    'other network': (lambda _: dict(conv1=torch.ones(3)), r'1 unexpected \(conv1\); \d+ missing'),
}


@pytest.mark.parametrize(('change', 'message'), MISFITS.values(), ids=MISFITS)
def test_a_misfit_is_one_error_and_changes_nothing(weights, save, change, message):
    model = net()
    before = copy(model)
    path = save(change(weights))
    with pytest.raises(ValueError, match=message) as error:
        load_official(model, path)
    assert f"checkpoint='{path}' does not fit ShiftWiseNet" in str(error.value)
    assert_unchanged(model, before)


def test_another_number_of_paths_is_a_misfit(weights, save):
    with pytest.raises(ValueError, match=r'unexpected \(stages\.0\.0\.large_kernel\.LoRAs\.1\.weight.*num_paths'):
        load_official(net(num_paths=1), save(weights))


@pytest.mark.parametrize(
    ('file', 'model', 'remedy'),
    [
        (False, True, 'build it with deploy=False, load the file, then call switch_to_deploy()'),
        (False, 'official', 'build it with deploy=False, load the file, then call switch_to_deploy()'),
        ('official', True, "build it with deploy='official', load the file, then call switch_to_deploy()"),
        ('official', False, "build it with deploy='official'"),
        (True, False, 'build it with deploy=True'),
    ],
)
def test_another_form_is_a_misfit_with_a_remedy(save, file, model, remedy):
    forms = {False: 'training form', 'official': 'official deploy form', True: 'full deploy form'}
    with pytest.raises(ValueError, match='does not fit ShiftWiseNet') as error:
        load_official(net(deploy=model), save(net(deploy=file).state_dict()))
    message = str(error.value)
    assert message.endswith(remedy)
    of_file, of_model = message.split('The file is ')[1].split('; the model is ')
    assert forms[file] in of_file
    assert forms[model] in of_model


@pytest.mark.parametrize(
    ('file', 'model', 'message'),
    [
        ('slak', 'replknet', r'The file is SLaK .*training form; the model is RepLKNet .*: take a file of RepLKNet'),
        ('convnext', 'slak', r'The file is LargeKernelConvNeXt .*; the model is SLaK .*, or build LargeKernelConvNeXt'),
    ],
)
def test_another_family_is_a_misfit_that_names_both(save, file, model, message):
    model = build(model)
    before = copy(model)
    with pytest.raises(ValueError, match=message):
        load_official(model, save(build(file).state_dict()))
    assert_unchanged(model, before)


def test_another_width_is_a_misfit_that_names_both(save):
    with torch.device('meta'):
        file, model = SLaK(), SLaK(width_factor=1.0)
    path = save({name: torch.zeros(()).expand(tensor.shape) for name, tensor in file.state_dict().items()})
    with pytest.raises(ValueError, match='does not fit SLaK') as error:
        load_official(model, path)
    assert 'The file is SLaK tiny (width_factor=1.3, ' in str(error.value)
    assert '; the model is SLaK tiny (width_factor=1.0, ' in str(error.value)
    assert str(error.value).endswith('build it with the width_factor of the file')


def test_a_file_that_lacks_a_part_of_its_own_net_is_a_misfit(save):
    weights = build('slak').state_dict()
    del weights['stages.2.1.norm.weight']
    with pytest.raises(
        ValueError, match=r'1 missing \(stages\.2\.1\.norm\.weight\).*the file is incomplete or was changed'
    ):
        load_official(build('slak'), save(weights))


def test_output_norms_are_all_in_the_file_or_none(save):
    weights = copy(build('slak', **DENSE))
    model = build('slak', **DENSE)
    load_official(model, save(weights))
    del weights['norm2.weight']
    with pytest.raises(ValueError, match=r'1 missing \(norm2\.weight\)'):
        load_official(model, save(weights))


def test_no_checkpoint_gives_one_warning_that_names_the_official_file(log):
    init_cfg = dict(type='sw_mm.OfficialPretrained', checkpoint=None)
    model = MODELS.build(dict(type='sw_mm.ShiftWiseNet', arch='tiny', width_factor=0.1, init_cfg=init_cfg))
    assert not log.warnings()
    model.init_weights()
    (message,) = log.warnings()
    assert "for the released settings of arch='tiny', are SW-T" in message
    assert '1U4DOZv5V9_7wJdqdicjp0tCmNIdRNJOc' in message
    assert '--cfg-options model.backbone.init_cfg.checkpoint=FILE' in message


def test_no_checkpoint_for_an_architecture_without_official_weights_says_so(log):
    net(init_cfg=dict(type='sw_mm.OfficialPretrained')).init_weights()
    (message,) = log.warnings()
    assert 'No official weights are known' in message
    assert 'cfg-options' not in message


def test_a_config_starts_a_classifier_from_official_weights(weights, save, log):
    path = save(dict(model=weights, args=Namespace()))
    backbone = dict(type='sw_mm.ShiftWiseNet', arch=ARCH, kernel_size=(13, 11, 7, 5))
    backbone['init_cfg'] = dict(type='sw_mm.OfficialPretrained', checkpoint=str(path))
    head = dict(type='LinearClsHead', num_classes=10, in_channels=16)
    model = MODELS.build(dict(type='mmpretrain.ImageClassifier', backbone=backbone, head=head))
    model.init_weights()
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert not log.warnings()
    assert any('OfficialPretrained: loaded from' in record.getMessage() for record in log.records)


def test_arguments_are_checked_when_the_config_is_read():
    with pytest.raises(TypeError, match='checkpoint must be a path or None; got True'):
        OfficialPretrained(checkpoint=True)
    with pytest.raises(TypeError, match="ema must be True or False; got 'yes'"):
        OfficialPretrained(ema='yes')
    with pytest.raises(ValueError, match='sha256 must be at least the first 8'):
        OfficialPretrained(sha256='fd08e26')


def test_a_config_chooses_averaged_weights_and_names_the_very_file(weights, save):
    averaged = {name: tensor + 1 for name, tensor in weights.items()}
    path = save(dict(model=weights, model_ema=averaged))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    init_cfg = dict(type='sw_mm.OfficialPretrained', checkpoint=str(path), sha256=digest[:8], ema=True)
    model = MODELS.build(dict(type='sw_mm.ShiftWiseNet', arch=ARCH, kernel_size=(13, 11, 7, 5), init_cfg=init_cfg))
    model.init_weights()
    assert torch.equal(model.norm.weight, averaged['norm.weight'])
    init_cfg['sha256'] = '0' * 8
    with pytest.raises(ValueError, match=f'has the SHA-256 {digest}'):
        net(init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize(('family', 'arch'), RELEASES)
def test_releases_are_of_known_architectures_and_in_the_advice(family, arch, log):
    with torch.device('meta'):
        model = getattr(backbones, family)(arch=arch.upper())
    OfficialPretrained()(model)
    (message,) = log.warnings()
    for release in RELEASES[family, arch]:
        assert f'{release.name} ({release.source})' in message
