"""Official files become files of OpenMMLab and back, bit by bit, and load strictly where they should."""

import copy
import hashlib

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint

import sw_mm.registry  # noqa: F401  (stands in for the operators of a missing compiled mmcv)
from sw_mm.checkpoint import load_official, load_whole, save, to_official, to_openmmlab
from sw_mm.compat.torch_load import safe_load

from .conftest import DENSE, NETS, assert_equal, build, official, prefixed, randomise

SMALL = [net for net in NETS if net != 'slak-dense']
CHANNELS = {'mobilenet': 1280}
FORMS = [False, 'official']


@pytest.fixture
def write(tmp_path):
    """Function that writes what a conversion gives, as the tool does, and returns the path."""

    def write(conversion, name='converted.pth'):
        save(conversion.content, tmp_path / name)
        return tmp_path / name

    return write


def classifier(backbone, channels=16, num_classes=10):
    head = dict(type='LinearClsHead', num_classes=num_classes, in_channels=channels)
    return dict(type='mmpretrain.ImageClassifier', backbone=backbone, head=head)


def segmentor(backbone):
    norm_cfg = dict(type='BN')
    head = dict(type='UPerHead', in_channels=[8, 8, 16, 16], in_index=[0, 1, 2, 3], channels=8, num_classes=5)
    auxiliary = dict(type='FCNHead', in_channels=16, in_index=2, channels=8, num_convs=1, num_classes=5)
    heads = dict(decode_head=dict(head, norm_cfg=norm_cfg), auxiliary_head=dict(auxiliary, norm_cfg=norm_cfg))
    return dict(type='mmseg.EncoderDecoder', backbone=backbone, **heads, train_cfg={}, test_cfg=dict(mode='whole'))


def detector(backbone):
    neck = dict(type='FPN', in_channels=[8, 8, 16, 16], out_channels=8, num_outs=5, start_level=1)
    head = dict(
        type='FCOSHead', num_classes=4, in_channels=8, feat_channels=8, stacked_convs=1, norm_cfg=dict(type='BN')
    )
    return dict(type='mmdet.FCOS', backbone=backbone, neck=neck, bbox_head=head)


def build_model(config):
    init_default_scope(config['type'].split('.')[0])
    return MODELS.build(copy.deepcopy(config))


@pytest.mark.parametrize('deploy', FORMS)
@pytest.mark.parametrize('net', SMALL)
def test_every_family_goes_there_and_back_and_loads_strictly(net, deploy, save, write):
    weights = official(randomise(build(net, deploy=deploy)))
    source = save(dict(model=weights))
    converted = to_openmmlab(source)
    origin = converted.content['meta']['sw_mm']
    assert origin['sha256'] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (origin['source'], origin['family']) == ('official.pth', NETS[net][0])
    path = write(converted)
    assert_equal(to_official(path).content, weights)

    config = classifier(origin['backbone'], channels=CHANNELS.get(net, 16))
    model = build_model(config)
    load_checkpoint(model, str(path), map_location='cpu', strict=True)
    back = {name.removeprefix('backbone.').replace('head.fc.', 'head.'): t for name, t in model.state_dict().items()}
    assert_equal(back, weights)


@pytest.mark.parametrize('net', ['sw', 'slak', 'replknet', 'unireplknet', 'convnext'])
@pytest.mark.parametrize('whole', [segmentor, detector])
def test_models_of_official_segmentation_and_detection_code_load_strictly(net, whole, save, write):
    """They were saved by earlier versions of mmseg and mmdet, whose names of necks and heads hold today."""
    family, arguments = NETS[net]
    model = randomise(build_model(whole(dict(type=f'sw_mm.{family}', **arguments, **DENSE))))
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # Detectors of official code were trained with an averaging hook that leaves its buffers behind.
    trained = {f'ema_{name.replace(".", "_")}': tensor + 1 for name, tensor in weights.items()}
    source = save(dict(state_dict={**weights, **trained}, meta=dict(CLASSES=('a', 'b'), config='import os')))
    path = write(to_openmmlab(source))
    content = safe_load(path)
    assert_equal(content['state_dict'], weights)
    assert content['meta'].keys() == {'CLASSES', 'sw_mm'}
    model = build_model(whole(content['meta']['sw_mm']['backbone']))
    assert load_whole(model, path) == dict(CLASSES=('a', 'b'))
    assert_equal(dict(model.state_dict()), weights)
    assert_equal(to_official(path).content['state_dict'], weights)


@pytest.mark.parametrize(('library', 'net'), [(classifier, 'replknet'), (segmentor, 'slak'), (detector, 'convnext-31')])
def test_configs_of_all_libraries_start_from_official_files(library, net, save):
    weights = official(randomise(build(net)))
    family, arguments = NETS[net]
    init_cfg = dict(type='sw_mm.OfficialPretrained', checkpoint=str(save(dict(model=weights))))
    outputs = {} if library is classifier else DENSE
    model = build_model(library(dict(type=f'sw_mm.{family}', init_cfg=init_cfg, **arguments, **outputs)))
    model.init_weights()
    loaded = {name: tensor for name, tensor in model.backbone.state_dict().items() if name in weights}
    assert len(loaded) >= len(weights) - 7
    for name, tensor in loaded.items():
        assert torch.equal(tensor, weights[name]), name


def test_averaged_weights_are_converted_on_demand(save):
    weights = official(randomise(build('slak')))
    averaged = {name: tensor + 1 for name, tensor in weights.items()}
    path = save(dict(model=weights, model_ema=averaged))
    assert torch.equal(to_openmmlab(path, ema=True).content['state_dict']['head.fc.bias'], averaged['head.bias'])
    assert_equal(to_official(path).content, weights)
    assert_equal(to_official(path, ema=True).content, averaged)


def test_files_of_mmpretrains_own_conversion_become_official(save):
    model = randomise(build('replknet'))
    weights = official(model)
    moved = {}
    for name, tensor in weights.items():
        name = f'stages.3.{name}' if name.startswith('norm.') else name
        moved[name.replace('head.', 'head.fc.') if name[:5] == 'head.' else f'backbone.{name}'] = tensor
    converted = to_official(save(dict(state_dict=moved, meta={})))
    assert_equal(converted.content, weights)


def test_mmpretrains_own_replknet_loads_and_computes_the_same(save):
    from mmpretrain.models.backbones import RepLKNet

    arch = dict(large_kernel_sizes=[13, 11, 9, 7], layers=[1, 1, 2, 1], channels=[8, 8, 16, 16], small_kernel=5)
    theirs = RepLKNet(arch=dict(arch, dw_ratio=1.5), drop_path_rate=0)
    theirs.eval()  # returns nothing
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    path = save(dict(state_dict=prefixed('backbone.', theirs.state_dict()), meta={}))
    ours = build('replknet').eval()
    load_official(ours, path)
    x = torch.randn(2, 3, 64, 96)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0].mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)


def tables(model):
    """The tables of all operators as early official code stored them."""
    stored = {}
    for name, operator in model.named_modules():
        if hasattr(operator, 'tables'):
            layout = operator.tables.official_layout()
            for table in ('pad_hv', 'idx_identit', 'idx_out'):
                stored[f'{name}.loras.{table}1'] = torch.from_numpy(layout[table])
            order = operator.channel_order.split(
                [operator.tables.channels, operator.in_channels - operator.tables.channels]
            )
            stored.update({f'{name}.rep1': order[0], f'{name}.ghost1': order[1]})
    return stored


@pytest.mark.parametrize('settings', [{}, dict(kernel_size=(14, 13, 11, 7), num_edges=2)])
def test_tables_of_early_shiftwise_code_are_checked_and_left_out(settings, save):
    model = randomise(build('sw', **settings))
    weights, stored = official(model), tables(model)
    converted = to_openmmlab(save({**weights, **stored}))
    assert_equal(to_official(save(converted.content)).content, weights)
    found = converted.description.settings
    assert found['num_edges'] == settings.get('num_edges', 4)
    sides = zip(found['kernel_size'], settings.get('kernel_size', (51, 49, 47, 13)), strict=True)
    assert all(side // 2 == given // 2 for side, given in sides)

    other = 'stages.2.1.large_kernel.loras.idx_identit1'
    with pytest.raises(ValueError, match=rf'other connections than this model has: {other} differs'):
        to_openmmlab(save({**weights, **stored, other: stored[other].flip(0)}))


def without(weights, part):
    return {name: tensor for name, tensor in weights.items() if part not in name}


BAD = {
    'incomplete': (lambda weights: without(weights, 'stages.2.1.norm'), r'incomplete or was changed: 2 missing'),
    'no final norm': (lambda weights: without(weights, 'norm.'), r'incomplete or was changed: \d+ missing'),
    'without a stage': (
        lambda weights: without(weights, 'stages.3'),
        'looks like SLaK, training form, but is incomplete',
    ),
    'another shape': (
        lambda weights: {**weights, 'stages.2.1.norm.bias': torch.ones(3)},
        r'1 of another shape \(stages\.2\.1\.norm\.bias \(3,\) instead of \(16,\)\)',
    ),
    'more': (lambda weights: {**weights, 'stages.0.0.extra': torch.ones(3)}, r'1 unexpected \(stages\.0\.0\.extra\)'),
    'another network': (
        lambda weights: {'conv1.weight': torch.ones(3), 'fc.weight': torch.ones(3)},
        'is of no family known here; its first names are conv1.weight, fc.weight',
    ),
}


@pytest.mark.parametrize('convert', [to_openmmlab, to_official])
@pytest.mark.parametrize(('change', 'message'), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused(change, message, convert, save):
    weights = official(randomise(build('slak')))
    with pytest.raises(ValueError, match=message) as error:
        convert(save(dict(model=change(weights))))
    assert 'official.pth' in str(error.value)


def test_the_full_form_has_no_official_names(save):
    source = save(build('slak', deploy=True).state_dict())
    assert to_openmmlab(source).content['meta']['sw_mm']['form'] == 'full'
    with pytest.raises(ValueError, match=r'is SLaK .*full deploy form, which official code does not have'):
        to_official(source)


def test_saving_replaces_nothing_unasked_and_leaves_no_parts(tmp_path, monkeypatch):
    path = tmp_path / 'folder' / 'a.pth'
    save(dict(a=torch.ones(3)), path)
    with pytest.raises(FileExistsError, match=r'a\.pth exists; choose another name, or pass --force'):
        save(dict(a=torch.zeros(3)), path)
    with pytest.raises(FileExistsError, match=r'exists; choose another name$'):
        save({}, tmp_path / 'folder', force=True)
    assert safe_load(path)['a'].sum() == 3
    save(dict(a=torch.zeros(3)), path, force=True)
    assert safe_load(path)['a'].sum() == 0

    def fail(content, file):
        file.write(b'half')
        raise OSError('no space left')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='no space left'):
        save(dict(a=torch.ones(3)), path, force=True)
    assert [entry.name for entry in path.parent.iterdir()] == ['a.pth']
    assert safe_load(path)['a'].sum() == 0


def test_a_small_part_of_a_large_tensor_is_saved_alone(tmp_path):
    save(dict(a=torch.zeros(100_000)[:3]), tmp_path / 'a.pth')
    assert (tmp_path / 'a.pth').stat().st_size < 10_000


def test_prefixes_alone_change_nothing(save):
    weights = official(randomise(build('convnext')))
    wrapped = prefixed('module.', prefixed('backbone.', weights))
    assert_equal(to_official(save(dict(state_dict=wrapped))).content, weights)
