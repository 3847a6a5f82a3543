"""Mask R-CNN with RepLKNet-31B on COCO, 12 epochs on 8 GPUs x 2 images.

A recipe of this project, after that of the cascade: the authors publish neither one nor a result.
"""

_base_ = [
    '../_base_/models/mask_rcnn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_adamw_1x.py',
]

model = dict(
    backbone=dict(type='sw_mm.RepLKNet', arch='31b', drop_path_rate=0.4),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0))
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
