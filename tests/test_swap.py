"""Backbone swaps: what the config says afterwards, as an object and as a file. ``test_swap_table`` trains them."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

import sw_mm
from sw_mm import backbones
from sw_mm.swap import backbone_names, base_name, build_without_weights, locate, plan_swap, swap_backbone

PYPROJECT = Path(__file__).parents[1] / 'pyproject.toml'
UPERNET = '''"""slak-tiny in the place of ResNetV1c, in mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py.

- The optimiser is still SGD; the papers of these networks use AdamW.
"""

_base_ = 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'
custom_imports = dict(imports=['sw_mm.registry'], allow_failed_imports=False)

# ImageNet-1K weights, official ones or your own; None trains from scratch. Edit it here;
# elsewhere (--cfg-options, a config that inherits this one) set model.backbone.init_cfg.checkpoint.
checkpoint = None

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='sw_mm.SLaK',
        arch='tiny',
        out_indices=(0, 1, 2, 3),
        gap_before_final_norm=False,
        layer_scale_init_value=1.0,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        init_cfg=dict(type='sw_mm.OfficialPretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[124, 249, 499, 998]),
    auxiliary_head=dict(in_channels=499),
)
'''
UPERNET_CONFIG = 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'
OTHERS = [  # lists of heads, lists of necks, nested models, dropped necks, replaced options of the optimiser
    'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    'mmdet::dyhead/atss_swin-l-p4-w12_fpn_dyhead_ms-2x_coco.py',
    'mmdet::rpn/rpn_r50-caffe-c4_1x_coco.py',
    'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
    'mmpretrain::arcface/resnet50-arcface_8xb32_inshop.py',
    'mmpretrain::mocov2/mocov2_resnet50_8xb32-coslr-200e_in1k.py',
    'mmseg::beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py',
    'mmseg::ocrnet/ocrnet_hr18_4xb2-160k_cityscapes-512x1024.py',
]


def without_scope(config: Config) -> dict:
    """Return a config without mmengine's marks of where its parts were inherited from."""

    def clean(value: object) -> object:
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items() if key != '_scope_'}
        return [clean(inner) for inner in value] if isinstance(value, list) else value

    return clean(config.to_dict())


def test_the_file_is_what_a_person_would_write():
    assert plan_swap(UPERNET_CONFIG, 'slak-tiny').text(UPERNET_CONFIG) == UPERNET


@pytest.mark.parametrize('config', OTHERS)
def test_the_file_says_what_was_returned(config, tmp_path):
    swap = plan_swap(config, 'shiftwise-small')
    path = tmp_path / 'swapped.py'
    path.write_text(swap.text(base_name(config, tmp_path)))
    written, wanted = without_scope(Config.fromfile(path)), without_scope(swap.config)
    assert {key: written.get(key) for key in wanted} == wanted
    for command in (['check', '--ignore=F821'], ['format', '--check']):
        ruff = [sys.executable, '-m', 'ruff', *command, '--config', PYPROJECT, path]
        subprocess.run(ruff, check=True)


def test_a_config_may_be_an_object_or_a_path(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'\n")
    config = Config.fromfile(path)
    before = copy.deepcopy(config.to_dict())
    swapped = sw_mm.swap_backbone(config, 'replknet-31b')
    assert config.to_dict() == before
    assert swapped.model == sw_mm.swap_backbone(path, 'replknet-31b').model
    assert swapped.model.backbone.type == 'sw_mm.RepLKNet'
    assert swapped.model.neck.in_channels == [256, 512, 1024]
    assert swapped.model.neck.start_level == 0
    (tmp_path / 'sub').mkdir()
    assert base_name(path, tmp_path) == './mine.py'
    assert base_name(path, tmp_path / 'sub') == '../mine.py'
    assert base_name(locate(UPERNET_CONFIG), tmp_path) == UPERNET_CONFIG


def test_names_are_those_of_families_and_architectures():
    names = backbone_names()
    assert {config['type'].removeprefix('sw_mm.') for config in names.values()} == set(backbones.__all__)
    assert {'shiftwise-tiny', 'slak-base', 'replknet-31b', 'convnext31-tiny', 'mobilenetv2-lk'} <= set(names)
    assert names['shiftwise-v1-tiny'] == dict(type='sw_mm.ShiftWiseNet', arch='v1-tiny')
    for config in names.values():
        assert build_without_weights(config, 'mmseg').in_channels == 3


@pytest.mark.parametrize(
    ('config', 'places'),
    [
        (
            'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024.py',
            {'decode_head.in_channels': 320, 'decode_head.in_index': 2, 'decode_head.c1_in_channels': 24},
        ),
        (
            'mmseg::ocrnet/ocrnet_r101-d8_4xb2-40k_cityscapes-512x1024.py',
            {'decode_head.0.in_index': 0, 'decode_head.1.in_index': 1, 'decode_head.1.in_channels': 320},
        ),
        ('mmseg::_base_/models/lraspp_m-v3-d8.py', {'decode_head.in_channels': (24, 32, 320)}),
    ],
)
def test_dilated_backbones_keep_their_stride(config, places):
    swap = plan_swap(config, 'mobilenetv2-lk')
    assert swap.config.model.backbone.output_stride == 8
    changed = {'.'.join(map(str, place[1:])): value for place, value in swap.changes.items()}
    assert places.items() <= changed.items()
    assert not any('fine structures' in note for note in swap.notes)
    assert not any('dilations' in place for place in changed)


def test_dilations_of_heads_shrink_with_the_map():
    swap = plan_swap('mmseg::deeplabv3/deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024.py', 'shiftwise-tiny')
    assert swap.config.model.decode_head.dilations == (1, 3, 6, 9)
    assert any('stride 32 instead of 8' in note for note in swap.notes)


@pytest.mark.parametrize(
    ('config', 'options'),
    [
        ('mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py', dict(decay_rate=0.95)),
        (
            'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
            dict(
                custom_keys={
                    key: dict(decay_mult=0.0) for key in ('absolute_pos_embed', 'relative_position_bias_table', 'norm')
                },
                norm_decay_mult=0.0,
            ),
        ),
    ],
)
def test_optimizer_spares_the_norms(config, options):
    swap = plan_swap(config, 'shiftwise-tiny')
    assert swap.config.optim_wrapper.paramwise_cfg.to_dict() == options
    init_default_scope(swap.library)
    with torch.device('meta'):
        model = MODELS.build(swap.config.model)
    wrapper = dict(swap.config.optim_wrapper, type='OptimWrapper')
    wrapper.pop('loss_scale', None)
    groups = build_optim_wrapper(model, wrapper).optimizer.param_groups
    assert sum(len(group['params']) for group in groups) == len(list(model.parameters()))
    names = {parameter: name for name, parameter in model.named_parameters()}
    decays = {names[p]: group['weight_decay'] for group in groups for p in group['params']}
    norms = {name: decay for name, decay in decays.items() if 'large_kernel.bn' in name and name.endswith('weight')}
    assert set(norms.values()) == {0}
    assert decays['backbone.stages.0.0.pwconv2.0.weight'] == swap.config.optim_wrapper.optimizer.weight_decay > 0


@pytest.mark.parametrize(
    ('config', 'expected'),
    [
        ('mmdet::retinanet/retinanet_r50-caffe_fpn_1x_coco.py', dict(bgr_to_rgb=True, mean=[123.675, 116.28, 103.53])),
        ('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', dict(bgr_to_rgb=True, std=[58.395, 57.12, 57.375])),
        ('mmpretrain::resnet/resnet18_8xb16_cifar10.py', dict(to_rgb=False, mean=[125.307, 122.961, 113.8575])),
        ('mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py', dict(to_rgb=True, std=[58.395, 57.12, 57.375])),
    ],
)
def test_images_are_what_the_weights_expect(config, expected):
    config = swap_backbone(config, 'shiftwise-tiny')
    preprocessor = config.model.get('data_preprocessor') or config.data_preprocessor
    assert expected.items() <= preprocessor.to_dict().items()


def test_images_are_padded_to_whole_patches():
    config = 'mmdet::detr/detr_r50_8xb2-150e_coco.py'
    assert swap_backbone(config, 'slak-tiny').model.data_preprocessor.pad_size_divisor == 32
    assert swap_backbone(config, 'shiftwise-tiny').model.data_preprocessor.pad_size_divisor == 1


@pytest.mark.parametrize(
    ('config', 'kind'),
    [
        ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'SyncBN'),  # frozen there
        ('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', 'SyncBN'),  # layer norm there
        ('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', None),  # trained there
        ('mmpretrain::resnet/resnet50_8xb32_in1k.py', None),
    ],
)
def test_norm_of_the_backbone(config, kind):
    assert swap_backbone(config, 'shiftwise-tiny').model.backbone.get('norm_cfg', {}).get('type') == kind


def test_a_last_stage_without_use_is_said():
    swap = plan_swap('mmdet::rpn/rpn_r50-caffe-c4_1x_coco.py', 'shiftwise-tiny')
    assert swap.config.find_unused_parameters
    assert swap.config.model.backbone.out_indices == (2,)
    assert swap.config.model.rpn_head.in_channels == 320
    assert any('the last stage of the backbone learns nothing' in note for note in swap.notes)


def test_replknet_xl_has_its_norms():
    config = swap_backbone('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 'replknet-xl')
    assert config.model.backbone.norm_intermediate_features


def test_weights_of_the_old_network_are_not_loaded():
    config = Config.fromfile(locate(UPERNET_CONFIG))
    config.load_from = 'upernet_r50.pth'
    swap = plan_swap(config, 'slak-tiny')
    assert swap.config.load_from is None
    assert swap.config.model.pretrained is None
    assert 'load_from = None\n' in swap.text(UPERNET_CONFIG)


@pytest.mark.parametrize(
    ('config', 'name', 'error', 'message'),
    [
        (UPERNET_CONFIG, 'slak-tinny', ValueError, r"name must be one of .*; got 'slak-tinny'; 'slak-tiny'\?"),
        ('mmseg::fcn/fcn_r50-d8_4xb2', 'slak-tiny', FileNotFoundError, "no config 'mmseg::fcn/fcn_r50-d8_4xb2'; did"),
        ('mmrotate::a/b.py', 'slak-tiny', ValueError, 'must start with one of mmdet, mmpretrain, mmseg'),
        (Config(dict(model=dict(type='FCOS'))), 'slak-tiny', ValueError, 'cfg must have default_scope'),
        (Config(dict(default_scope='mmseg')), 'slak-tiny', ValueError, 'has no backbone of its own'),
        (
            'mmpretrain::replknet/replknet-31B_32xb64_in1k.py',
            'slak-tiny',
            ValueError,
            'mmengine cannot read',
        ),
    ],
)
def test_bad_input_is_one_clear_error(config, name, error, message):
    with pytest.raises(error, match=message):
        swap_backbone(config, name)
