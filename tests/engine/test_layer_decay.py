"""Layer ids, learning rates and weight decays of the parameter groups."""

import logging
from itertools import chain

import pytest
import torch
from mmengine.logging import MMLogger
from torch import nn

from sw_mm import backbones
from sw_mm.backbones import ShiftWiseNet
from sw_mm.engine import LayerDecayOptimWrapperConstructor

LR, DECAY = 1e-4, 0.05

# Ids of SW-T parameters; L stands for num_layers.
IDS = {
    'backbone.downsample_layers.0.0.weight': 0,
    'backbone.downsample_layers.0.4.bias': 0,
    'backbone.stages.0.0.large_kernel.LoRAs.1.weight': 1,
    'backbone.stages.0.2.pwconv2.2.weight': 1,
    'backbone.downsample_layers.1.0.weight': 2,
    'backbone.stages.1.1.gamma': 2,
    'backbone.downsample_layers.2.1.weight': 3,
    'backbone.stages.2.0.act.1.gamma': 3,
    'backbone.stages.2.2.norm.weight': 3,
    'backbone.stages.2.3.se.down.weight': 4,
    'backbone.stages.2.16.pwconv1.1.weight': 8,
    'backbone.stages.2.17.large_kernel.bn_small.weight': 8,
    'backbone.downsample_layers.3.0.bias': 'L',
    'backbone.stages.3.0.act.1.beta': 'L',
    'backbone.stages.3.2.pwconv2.0.weight': 'L',
    'backbone.norm0.weight': 'L+1',
    'backbone.norm3.bias': 'L+1',
    'decode_head.weight': 'L+1',
    'decode_head.bias': 'L+1',
}


class Segmentor(nn.Module):
    """What all three libraries' models have in common: a backbone and something behind it."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.decode_head = nn.Conv2d(640, 17, 1)


class FlatNet(nn.Module):
    """A backbone of four layers, one linear layer each, that counts its layers itself."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(4))

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        return int(param_name.removeprefix(prefix).split('.')[1]), 5


@pytest.fixture(scope='module')
def segmentor():
    with torch.device('meta'):
        return Segmentor(ShiftWiseNet(out_indices=(0, 1, 2, 3), gap_before_final_norm=False))


def build(model, optimizer=None, **paramwise_cfg):
    optimizer = optimizer or dict(type='AdamW', lr=LR, weight_decay=DECAY)
    return LayerDecayOptimWrapperConstructor(dict(type='OptimWrapper', optimizer=optimizer), paramwise_cfg)(model)


def groups_by_name(model, wrapper):
    groups = {param: group for group in wrapper.optimizer.param_groups for param in group['params']}
    return {name: groups[param] for name, param in model.named_parameters() if param in groups}


@pytest.mark.parametrize(('num_layers', 'decay_rate'), [(9, 1.0), (9, 0.7), (12, 0.8)])
def test_ids_and_learning_rates_of_the_official_recipes(segmentor, num_layers, decay_rate):
    groups = groups_by_name(segmentor, build(segmentor, decay_rate=decay_rate, num_layers=num_layers))

    assert groups.keys() == dict(segmentor.named_parameters()).keys()
    symbols = {'L': num_layers, 'L+1': num_layers + 1}
    for name, layer_id in IDS.items():
        layer_id = symbols.get(layer_id, layer_id)
        assert groups[name]['layer_id'] == layer_id, name
        assert groups[name]['lr'] == pytest.approx(LR * decay_rate ** (num_layers + 1 - layer_id), rel=1e-12), name
    used = {group['layer_id'] for group in groups.values()}
    assert used == {*range(9), num_layers, num_layers + 1}


# Names of parameters of every design, with their stage-wise ids; N stands for num_layers.
STAGE_IDS = {
    'SLaK': {
        'downsample_layers.0.0.weight': 0,
        'downsample_layers.3.1.bias': 0,
        'stages.0.0.gamma': 1,
        'stages.2.8.large_kernel.LoRA1.conv.weight': 3,
        'stages.3.2.pwconv2.weight': 4,
        'norm3.weight': 'N+1',
    },
    'RepLKNet': {
        'stem.0.conv.weight': 0,
        'transitions.2.1.bn.weight': 0,
        'stages.0.blocks.0.prelkb_bn.weight': 1,
        'stages.2.blocks.35.pw2.conv.weight': 3,
        'stages.3.blocks.3.preffn_bn.bias': 4,
        'stages.3.norm.weight': 'N+1',
    },
    'LargeKernelMobileNetV2': {
        'conv1.conv.weight': 0,
        'layer1.0.conv.0.conv.weight': 0,
        'layer2.0.conv.0.conv.weight': 1,
        'layer4.0.conv.0.conv.weight': 0,
        'layer7.0.conv.2.bn.weight': 4,
    },
}


@pytest.mark.parametrize('num_layers', [None, 6, 12])
@pytest.mark.parametrize('family', STAGE_IDS)
def test_stage_wise_ids(family, num_layers):
    options = dict(norm_intermediate_features=True) if family == 'RepLKNet' else {}
    with torch.device('meta'):
        model = Segmentor(getattr(backbones, family)(out_indices=(0, 1, 2, 3), gap_before_final_norm=False, **options))
    given = {} if num_layers is None else dict(num_layers=num_layers)
    groups = groups_by_name(model, build(model, decay_rate=0.9, decay_type='stage_wise', **given))

    assert groups.keys() == dict(model.named_parameters()).keys()
    num_layers = num_layers or 4
    for name, layer_id in {**STAGE_IDS[family], 'decode_head.weight': 'N+1'}.items():
        layer_id = num_layers + 1 if layer_id == 'N+1' else layer_id
        group = groups[name if name.startswith('decode') else f'backbone.{name}']
        assert group['layer_id'] == layer_id, name
        assert group['lr'] == pytest.approx(LR * 0.9 ** (num_layers + 1 - layer_id), rel=1e-12), name
    assert {group['layer_id'] for group in groups.values()} == {0, 1, 2, 3, 4, num_layers + 1}


def test_stage_wise_decay_needs_stages():
    with pytest.raises(TypeError, match=r"'stage_wise' needs a backbone of sw_mm.*FlatNet is none"):
        build(Segmentor(FlatNet()), decay_rate=0.8, decay_type='stage_wise')


def test_the_backbone_counts_its_layers_if_asked(segmentor):
    groups = groups_by_name(segmentor, build(segmentor, decay_rate=0.5))
    assert groups['backbone.stages.3.0.gamma']['layer_id'] == 9
    assert groups['decode_head.weight']['lr'] == LR


def test_weight_decay_spares_biases_norms_and_layer_scales_only(segmentor):
    groups = groups_by_name(segmentor, build(segmentor, decay_rate=0.8, num_layers=12))
    for name, param in segmentor.named_parameters():
        expected = DECAY if param.ndim > 1 else 0.0
        assert groups[name]['weight_decay'] == expected, name
    assert groups['backbone.stages.0.0.act.1.gamma']['weight_decay'] == DECAY  # GRN's are four-dimensional


def test_equal_options_share_a_group(segmentor):
    wrapper = build(segmentor, decay_rate=0.8, num_layers=12)
    keys = [(group['layer_id'], group['weight_decay']) for group in wrapper.optimizer.param_groups]
    assert len(keys) == len(set(keys)) <= 2 * 11
    assert sum(len(group['params']) for group in wrapper.optimizer.param_groups) == len(list(segmentor.parameters()))


def test_options_of_the_base_class_apply_too():
    model = Segmentor(FlatNet())
    model.decode_head = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    wrapper = build(
        model,
        decay_rate=0.5,
        norm_decay_mult=2.0,
        custom_keys={
            'layers.1': dict(lr_mult=10.0),
            'layers.2.weight': dict(decay_mult=0.1),
            'layers.2.bias': dict(decay_mult=0.2),
        },
    )
    groups = groups_by_name(model, wrapper)

    def options(name):
        return groups[name]['lr'], groups[name]['weight_decay']

    assert options('backbone.layers.0.weight') == (LR * 0.5**4, DECAY)
    assert options('backbone.layers.1.weight') == (10 * LR * 0.5**3, DECAY)
    assert options('backbone.layers.1.bias') == (10 * LR * 0.5**3, 0.0)
    assert options('backbone.layers.2.weight') == (LR * 0.5**2, pytest.approx(0.1 * DECAY))
    assert options('backbone.layers.2.bias') == (LR * 0.5**2, pytest.approx(0.2 * DECAY))
    assert options('decode_head.0.bias') == (LR, 0.0)
    assert options('decode_head.1.bias') == (LR, 2 * DECAY)


def test_frozen_parameters_are_left_out_and_shared_ones_taken_once():
    model = Segmentor(FlatNet())
    model.backbone.layers[0].requires_grad_(False)
    model.decode_head.weight = model.backbone.layers[1].weight

    groups = groups_by_name(model, build(model, decay_rate=0.5))

    assert not any(name.startswith('backbone.layers.0') for name in groups)
    assert groups['backbone.layers.1.weight']['layer_id'] == 1
    params = list(chain.from_iterable(group['params'] for group in build(model, decay_rate=0.5).optimizer.param_groups))
    assert len(params) == len(set(params)) == 7


def test_a_model_may_be_its_own_backbone_and_needs_no_weight_decay():
    model = FlatNet()
    wrapper = build(model, optimizer=dict(type='SGD', lr=0.1), decay_rate=0.5, num_layers=6)
    groups = groups_by_name(model, wrapper)
    assert [groups[f'layers.{i}.weight']['layer_id'] for i in range(4)] == [0, 1, 2, 6]
    assert groups['layers.0.weight']['lr'] == pytest.approx(0.1 * 0.5**7)
    assert groups['layers.0.bias'] is groups['layers.0.weight']


def test_one_step_moves_every_layer_by_its_own_rate():
    model = FlatNet()
    before = [layer.weight.detach().clone() for layer in model.layers]
    wrapper = build(model, optimizer=dict(type='SGD', lr=0.1), decay_rate=0.5)
    wrapper.update_params(sum(layer.weight.sum() for layer in model.layers))
    for i, (layer, old) in enumerate(zip(model.layers, before, strict=True)):
        assert torch.allclose(old - layer.weight, torch.full((2, 2), 0.1 * 0.5 ** (4 - i)), atol=1e-7)


def test_groups_are_summarised_in_the_log(segmentor, caplog):
    MMLogger.get_current_instance().addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO):
            build(segmentor, decay_rate=0.8, num_layers=12)
    finally:
        MMLogger.get_current_instance().removeHandler(caplog.handler)
    (record,) = [record for record in caplog.records if 'Layer decay' in record.getMessage()]
    assert 'Layer decay 0.8 over 12 layers' in record.getMessage()
    assert len(record.getMessage().splitlines()) == 2 + 2 * len({*range(9), 12, 13})


@pytest.mark.parametrize('upstream', ['ConvNeXt', 'SwinTransformer'])
def test_upstream_backbones_work(upstream):
    models = pytest.importorskip('mmpretrain.models')
    backbone = getattr(models, upstream)(arch='tiny')
    model = Segmentor(backbone)
    groups = groups_by_name(model, build(model, decay_rate=0.8))
    name = next(iter(dict(backbone.named_parameters())))
    depth, count = backbone.get_layer_depth(f'backbone.{name}', 'backbone.')
    assert groups[f'backbone.{name}']['lr'] == pytest.approx(LR * 0.8 ** (count - 1 - depth))
    assert groups['decode_head.weight']['lr'] == LR


@pytest.mark.parametrize(
    ('paramwise_cfg', 'message'),
    [
        ({}, 'decay_rate'),
        (dict(decay_rate=0), 'decay_rate'),
        (dict(decay_rate=1.5), 'decay_rate'),
        (dict(decay_rate='0.8'), 'decay_rate'),
        (dict(decay_rate=True), 'decay_rate'),
        (dict(decay_rate=0.8, num_layers=0), 'num_layers'),
        (dict(decay_rate=0.8, num_layers=9.0), 'num_layers'),
        (dict(decay_rate=0.8, num_layers=True), 'num_layers'),
        (dict(decay_rate=0.8, num_layers=7), 'num_layers=7 is too small: this backbone needs 8'),
        (dict(decay_rate=0.8, num_layers=3, decay_type='stage_wise'), 'num_layers=3 is too small: .* needs 4'),
        (dict(decay_rate=0.8, decay_type='stagewise'), "decay_type must be 'layer_wise' or 'stage_wise'"),
    ],
)
def test_bad_options_are_refused(segmentor, paramwise_cfg, message):
    with pytest.raises(ValueError, match=message):
        build(segmentor, **paramwise_cfg)


def test_a_decay_rate_of_one_leaves_every_rate_alone_whatever_num_layers_is(segmentor):
    wrapper = build(segmentor, decay_rate=1.0, num_layers=7)
    assert {group['lr'] for group in wrapper.optimizer.param_groups} == {LR}


def test_an_optimizer_without_learning_rate_is_refused(segmentor):
    with pytest.raises(ValueError, match=r'optimizer\.lr'):
        build(segmentor, optimizer=dict(type='AdamW'), decay_rate=0.8)


def test_a_backbone_without_layer_depths_is_refused():
    with pytest.raises(TypeError, match=r'get_layer_depth.*Conv2d has none'):
        build(Segmentor(nn.Conv2d(3, 3, 1)), decay_rate=0.8)
