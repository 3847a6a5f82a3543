"""A config of each library takes the backbone by its registry name, and learns."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData

README = (Path(__file__).parents[2] / 'README.md').read_text()
SNIPPET = next(block for block in re.findall(r'```python\n(.*?)```', README, re.DOTALL) if '_base_' in block)

MASK_RCNN = """
_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['sw_mm.registry'])
model = dict(
    backbone=dict(_delete_=True, type='ShiftWiseNet', width_factor=0.1, out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[8, 16, 32, 64]),
)
"""
# The output for classification is pooled already, so there is no neck.
CLASSIFIER = """
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['sw_mm.registry'])
model = dict(
    backbone=dict(_delete_=True, type='ShiftWiseNet', width_factor=0.1),
    neck=None,
    head=dict(in_channels=64),
)
"""
TENTH_OF_THE_WIDTH = {
    'model.backbone.width_factor': 0.1,
    'model.backbone.init_cfg': None,
    'model.decode_head.in_channels': [8, 16, 32, 64],
    'model.decode_head.channels': 8,
    'model.auxiliary_head.in_channels': 32,
    'model.auxiliary_head.channels': 8,
    'model.data_preprocessor.size': (64, 64),
}


def build_model(path: Path, text: str, options: dict) -> torch.nn.Module:
    path.write_text(text)
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(options)
    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model)


def labelled_map():
    from mmseg.structures import SegDataSample

    return SegDataSample(gt_sem_seg=PixelData(data=torch.arange(64 * 64).view(1, 64, 64) % 150))


def boxed_object():
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    masks = BitmapMasks(np.ones((1, 64, 64), dtype=np.uint8), 64, 64)
    box = InstanceData(bboxes=torch.tensor([[8.0, 8.0, 40.0, 48.0]]), labels=torch.tensor([3]), masks=masks)
    return DetDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)), gt_instances=box)


def labelled_image():
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(3)


@pytest.mark.parametrize(
    ('text', 'options', 'truth'),
    [
        pytest.param(SNIPPET, TENTH_OF_THE_WIDTH, labelled_map, id='mmseg'),
        pytest.param(MASK_RCNN, {}, boxed_object, id='mmdet'),
        pytest.param(CLASSIFIER, {}, labelled_image, id='mmpretrain'),
    ],
)
def test_every_parameter_of_the_backbone_learns(text, options, truth, tmp_path):
    model = revert_sync_batchnorm(build_model(tmp_path / 'config.py', text, options)).train()
    images = [torch.full((3, 64, 64), value, dtype=torch.uint8) for value in (30, 200)]
    data = model.data_preprocessor(dict(inputs=images, data_samples=[truth(), truth()]), training=True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert type(model.backbone).__module__ == 'sw_mm.backbones.shiftwise'
    assert loss.isfinite()
    assert loss > 0
    for name, parameter in model.backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_widths_in_the_readme_fit_together(tmp_path):
    with torch.device('meta'):
        model = build_model(tmp_path / 'config.py', SNIPPET, {}).eval()
        assert model(torch.empty(1, 3, 64, 64), mode='tensor').shape == (1, 150, 16, 16)
        assert model.auxiliary_head(model.backbone(torch.empty(1, 3, 64, 64))).shape == (1, 150, 4, 4)
