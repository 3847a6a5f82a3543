"""Mask R-CNN with SW-T on COCO, 36 epochs on 8 GPUs x 2 images.

A recipe of this project, after that of the cascade: the authors publish neither one nor a result.
"""

_base_ = [
    '../_base_/models/mask_rcnn.py',
    '../_base_/datasets/coco_instance_ms_crop.py',
    '../_base_/schedules/coco_adamw_3x.py',
    '../_base_/sparse/sw_frozen.py',
]

model = dict(
    backbone=dict(type='sw_mm.ShiftWiseNet', arch='tiny', drop_path_rate=0.4, layer_scale_init_value=1.0),
    neck=dict(in_channels=[80, 160, 320, 640]),
)

optim_wrapper = dict(
    constructor='sw_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.8, num_layers=12),
)
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
