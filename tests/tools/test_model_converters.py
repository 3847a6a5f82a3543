"""The command lines that convert and fold checkpoints, on small models of all three libraries."""

import logging

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint

import sw_mm.registry  # noqa: F401  (stands in for the operators of a missing compiled mmcv)
from sw_mm.backbones import SLaK
from sw_mm.compat.torch_load import safe_load

ARCH = dict(depths=(1, 1, 1, 1), channels=(8, 8, 16, 16))
SLAK = dict(arch=ARCH, width_factor=1.0, kernel_size=(13, 11, 9, 7))
DENSE = dict(out_indices=(0, 1, 2, 3))
MODEL = {
    'mmpretrain': dict(
        type='ImageClassifier',
        backbone=dict(type='sw_mm.SLaK', **SLAK),
        head=dict(type='LinearClsHead', num_classes=10, in_channels=16),
    ),
    'mmseg': dict(
        type='EncoderDecoder',
        backbone=dict(type='sw_mm.SLaK', **SLAK, **DENSE),
        decode_head=dict(
            type='FCNHead', in_channels=16, channels=8, num_convs=1, num_classes=5, norm_cfg=dict(type='BN')
        ),
    ),
    'mmdet': dict(
        type='FCOS',
        backbone=dict(type='sw_mm.SLaK', **SLAK, **DENSE),
        neck=dict(type='FPN', in_channels=[8, 8, 16, 16], out_channels=8, num_outs=5),
        bbox_head=dict(
            type='FCOSHead', num_classes=4, in_channels=8, feat_channels=8, stacked_convs=1, norm_cfg=dict(type='BN')
        ),
    ),
}


@pytest.fixture(scope='module')
def convert(load_tool):
    return load_tool('model_converters.official_to_sw_mm').main


@pytest.fixture(scope='module')
def reparameterize(load_tool):
    return load_tool('model_converters.reparameterize').main


def randomise(model):
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + ('var' in name) * 0.5)
    return model


@pytest.fixture
def weights():
    head = {'head.weight': torch.rand(10, 16), 'head.bias': torch.rand(10)}
    return {**randomise(SLaK(**SLAK)).state_dict(), **head}


@pytest.fixture
def source(weights, tmp_path):
    torch.save(
        dict(model=weights, model_ema={name: tensor + 1 for name, tensor in weights.items()}), tmp_path / 'a.pth'
    )
    return str(tmp_path / 'a.pth')


@pytest.fixture(params=MODEL)
def config(request, tmp_path):
    config = Config(dict(default_scope=request.param, model=MODEL[request.param]))
    config.dump(tmp_path / 'config.py')
    return str(tmp_path / 'config.py')


def build(config, **backbone):
    config = Config.fromfile(config)
    init_default_scope(config.default_scope)
    config.model.backbone.update(backbone)
    return MODELS.build(config.model)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_conversion_there_and_back(convert, source, weights, tmp_path, caplog):
    target, back = tmp_path / 'b.pth', tmp_path / 'c.pth'
    with caplog.at_level(logging.INFO, 'sw_mm'):
        convert([source, str(target)])
    (line,) = [record.getMessage() for record in caplog.records if record.name == 'sw_mm']
    assert line.startswith(f'{target}: SLaK ')
    assert line.endswith(f'training form, {len(weights)} entries')
    content = safe_load(target)
    assert torch.equal(content['state_dict']['head.fc.weight'], weights['head.weight'])
    assert content['meta']['sw_mm']['backbone']['type'] == 'sw_mm.SLaK'
    convert([str(target), str(back), '--to', 'official'])
    content = safe_load(back)
    assert list(content) == list(weights)
    assert all(torch.equal(content[name], weights[name]) for name in weights)


def test_averaged_weights_are_converted(convert, source, weights, tmp_path):
    convert([source, str(tmp_path / 'b.pth'), '--ema', '--to', 'official'])
    assert torch.equal(safe_load(tmp_path / 'b.pth')['head.bias'], weights['head.bias'] + 1)


def test_a_file_is_replaced_only_on_demand(convert, source, tmp_path):
    (tmp_path / 'b.pth').write_text('mine')
    with pytest.raises(SystemExit, match=r'official_to_sw_mm: .*b\.pth exists; choose another name, or pass --force'):
        convert([source, str(tmp_path / 'b.pth')])
    assert (tmp_path / 'b.pth').read_text() == 'mine'
    convert([source, str(tmp_path / 'b.pth'), '--force'])
    assert 'state_dict' in safe_load(tmp_path / 'b.pth')


@pytest.mark.parametrize(
    ('arguments', 'message'), [(['--sha256', '0' * 8], 'has the SHA-256'), (['--sha256', 'x'], 'at least the first 8')]
)
def test_a_bad_file_is_one_line_and_leaves_nothing(convert, source, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=f'official_to_sw_mm: .*{message}'):
        convert([source, str(tmp_path / 'b.pth'), *arguments])
    with pytest.raises(SystemExit, match=r'official_to_sw_mm: .*nowhere\.pth. is not a file'):
        convert([str(tmp_path / 'nowhere.pth'), str(tmp_path / 'b.pth')])
    assert names(tmp_path) == ['a.pth']


@pytest.mark.parametrize(('form', 'deploy'), [('full', True), ('official', 'official')])
def test_models_of_all_libraries_are_folded(reparameterize, config, tmp_path, caplog, form, deploy):
    model = randomise(build(config)).eval()
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=('a',)))), tmp_path / 'a.pth')
    with caplog.at_level(logging.INFO, 'sw_mm'):
        reparameterize([config, str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth'), '--form', form])
    (line,) = [record.getMessage() for record in caplog.records if record.name == 'sw_mm']
    assert f'b.pth: {form} form' in line
    content = safe_load(tmp_path / 'b.pth')
    assert content['meta']['dataset_meta'] == dict(classes=('a',))
    assert content['meta']['sw_mm']['form'] == form
    folded = build(config, deploy=deploy).eval()
    load_checkpoint(folded, str(tmp_path / 'b.pth'), map_location='cpu', strict=True)
    assert any('vertical' in name for name in folded.state_dict()) == (form == 'full')
    x = torch.rand(1, 3, 64, 64)
    for old, new in zip(model.extract_feat(x), folded.extract_feat(x), strict=True):
        assert (new - old).abs().max() <= 1e-5 * old.abs().max()


def write_config(tmp_path, **changes):
    config = Config(dict(dict(default_scope='mmpretrain', model=MODEL['mmpretrain']), **changes))
    config.dump(tmp_path / 'config.py')
    return str(tmp_path / 'config.py')


def test_official_weights_are_folded_without_conversion(reparameterize, source, tmp_path):
    reparameterize([write_config(tmp_path), source, str(tmp_path / 'b.pth')])
    load_checkpoint(build(write_config(tmp_path), deploy=True), str(tmp_path / 'b.pth'), strict=True)


BAD = {
    'incomplete': (
        lambda weights: {name: tensor for name, tensor in weights.items() if 'stages.3.0.norm' not in name},
        {},
        'does not fit SLaK: 2 missing',
    ),
    'not finite': (
        lambda weights: {**weights, 'head.bias': torch.full((10,), torch.nan)},
        {},
        'the folded model gives other outputs',
    ),
    'no library': (lambda weights: weights, dict(default_scope=None), 'must have default_scope'),
}


@pytest.mark.parametrize(('change', 'settings', 'message'), BAD.values(), ids=BAD)
def test_what_cannot_be_folded_leaves_nothing(reparameterize, weights, tmp_path, change, settings, message):
    torch.save(change(weights), tmp_path / 'a.pth')
    with pytest.raises(SystemExit, match=f'reparameterize: .*{message}'):
        reparameterize([write_config(tmp_path, **settings), str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth')])
    assert names(tmp_path) == ['a.pth', 'config.py']


def test_outputs_are_compared(reparameterize, source, tmp_path, monkeypatch):
    fold = SLaK.switch_to_deploy

    def fold_badly(self, form='full'):
        fold(self, form)
        self.stages[3][0].pwconv2.weight.data[0] *= 1 + 1e-5

    monkeypatch.setattr(SLaK, 'switch_to_deploy', fold_badly)
    with pytest.raises(SystemExit, match='the folded model gives other outputs'):
        reparameterize([write_config(tmp_path), source, str(tmp_path / 'b.pth')])
    assert not (tmp_path / 'b.pth').exists()


def test_help_says_how_the_result_is_loaded(reparameterize, capsys):
    with pytest.raises(SystemExit, match='0'):
        reparameterize(['--help'])
    assert 'model.backbone.deploy=True' in capsys.readouterr().out
