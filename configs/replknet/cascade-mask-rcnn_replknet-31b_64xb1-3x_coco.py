"""Cascade Mask R-CNN with RepLKNet-31B on COCO, 36 epochs on 64 GPUs x 1 image.

Official result (https://github.com/DingXiaoH/RepLKNet-pytorch): 52.2 box AP, 45.2 mask AP, from the ImageNet-1K
weights. One image a GPU and a rate of 4e-4 are official; the number of GPUs is not published. 64 is what the rate would
mean beside the usual 1e-4 for 16 images.
"""

_base_ = [
    '../_base_/models/cascade_mask_rcnn.py',
    '../_base_/datasets/coco_instance_ms_crop.py',
    '../_base_/schedules/coco_adamw_3x.py',
]

model = dict(
    backbone=dict(type='sw_mm.RepLKNet', arch='31b', drop_path_rate=0.6),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)

optim_wrapper = dict(optimizer=dict(lr=4e-4), paramwise_cfg=dict(norm_decay_mult=0.0))
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(enable=False, base_batch_size=64)
