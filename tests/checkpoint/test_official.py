"""Official checkpoints load completely or not at all, whatever is wrapped around their weights."""

import logging
from argparse import Namespace

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import MODELS

from sw_mm.backbones import ShiftWiseNet
from sw_mm.checkpoint import OfficialPretrained, load_official

ARCH = dict(depths=(1, 1, 2, 1), channels=(8, 8, 16, 16))
OPERATOR = 'stages.2.1.large_kernel'


def net(**kwargs):
    return ShiftWiseNet(**{'arch': ARCH, 'kernel_size': (13, 11, 7, 5), **kwargs})


def dense_net(**kwargs):
    return net(out_indices=(0, 1, 2, 3), gap_before_final_norm=False, **kwargs)


def randomise(model):
    """Give every entry of the state dict a value that no initialisation would."""
    generator = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * 9 + 1)
    return model


def copy(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def prefixed(prefix, state_dict):
    return {prefix + name: tensor for name, tensor in state_dict.items()}


@pytest.fixture(scope='module')
def weights():
    """A state dict as the official code writes it for a classifier."""
    state_dict = copy(randomise(net()))
    return {**state_dict, 'head.weight': torch.rand(10, 16), 'head.bias': torch.rand(10)}


@pytest.fixture
def save(tmp_path):
    def save(content):
        torch.save(content, tmp_path / 'official.pth')
        return tmp_path / 'official.pth'

    return save


@pytest.fixture
def log():
    """Records of mmengine's logger, which does not hand them on to the root logger."""

    class Recorder(logging.Handler):
        def __init__(self):
            super().__init__()
            self.records = []
            self.emit = self.records.append

        def warnings(self):
            return [record.getMessage() for record in self.records if record.levelno >= logging.WARNING]

    recorder = Recorder()
    logger = MMLogger.get_current_instance()
    logger.addHandler(recorder)
    yield recorder
    logger.removeHandler(recorder)


CONTAINERS = {
    'bare': lambda weights: weights,
    'training script': lambda weights: dict(
        model=weights, optimizer={'state': {}}, epoch='best', scaler={}, args=Namespace(model='tiny', lr=4e-3)
    ),
    'mmengine': lambda weights: dict(meta=dict(epoch=3), state_dict=weights),
    'data parallel': lambda weights: dict(model=prefixed('module.', weights)),
    'whole classifier': lambda weights: dict(
        state_dict={**prefixed('backbone.', weights), 'head.fc.weight': torch.rand(3, 3)}
    ),
    'both': lambda weights: dict(state_dict=prefixed('module.backbone.', weights)),
}


@pytest.mark.parametrize('wrap', CONTAINERS.values(), ids=CONTAINERS)
def test_every_container_loads(weights, save, wrap):
    model = net()
    load_official(model, save(wrap(weights)))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


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
        (False, True, 'build it with False, load the file, then call switch_to_deploy()'),
        (False, 'official', 'build it with False, load the file, then call switch_to_deploy()'),
        ('official', True, "build it with 'official', load the file, then call switch_to_deploy()"),
        ('official', False, "build it with 'official'"),
        (True, False, 'build it with True'),
    ],
)
def test_another_form_is_a_misfit_with_a_remedy(save, file, model, remedy):
    with pytest.raises(ValueError, match='does not fit ShiftWiseNet') as error:
        load_official(net(deploy=model), save(net(deploy=file).state_dict()))
    assert str(error.value).endswith(f'The file has the form deploy={file!r}, the model deploy={model!r}: {remedy}')


def test_a_file_of_the_home_folder_loads(weights, save, monkeypatch):
    path = save(weights)
    monkeypatch.setenv('HOME', str(path.parent))
    model = net()
    load_official(model, f'~/{path.name}')
    assert torch.equal(model.norm.weight, weights['norm.weight'])


def test_a_url_has_to_be_downloaded_first():
    with pytest.raises(FileNotFoundError, match=r"checkpoint='https://example.com/a.pth' is a URL; download it first"):
        load_official(net(), 'https://example.com/a.pth')


@pytest.mark.parametrize('content', [[1, 2], {}, dict(model={}), dict(epoch=3), dict(state_dict=[torch.ones(1)])])
def test_a_file_without_weights_is_refused(save, content):
    with pytest.raises(ValueError, match='holds no weights'):
        load_official(net(), save(content))


@pytest.mark.parametrize('place', ['nowhere.pth', '.'])
def test_a_path_that_is_no_file_is_refused(tmp_path, place):
    with pytest.raises(FileNotFoundError, match=r'checkpoint=.* is not a file') as error:
        load_official(net(), tmp_path / place)
    assert str(tmp_path) in str(error.value)


def test_a_damaged_file_is_refused(weights, save):
    path = save(weights)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r'official\.pth'):
        load_official(net(), path)


class Evil:
    def __reduce__(self):
        return open, ('touched', 'w')


def test_code_in_a_file_is_not_run(weights, save, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match='open'):
        load_official(net(), save(dict(model=weights, args=Evil())))
    assert not (tmp_path / 'touched').exists()


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


def test_a_checkpoint_has_to_be_a_path():
    with pytest.raises(TypeError, match='checkpoint must be a path or None; got True'):
        OfficialPretrained(checkpoint=True)
