"""Cascade Mask R-CNN with SLaK-T on COCO, 12 epochs on 8 GPUs x 2 images.

Official result (https://github.com/VITA-Group/SLaK): 48.4 box AP, 41.8 mask AP, from the weights of 120 epochs, the
zeros of which stay zero, as here.
"""

_base_ = [
    '../_base_/models/cascade_mask_rcnn.py',
    '../_base_/datasets/coco_instance_ms_crop.py',
    '../_base_/schedules/coco_adamw_1x.py',
    '../_base_/sparse/slak_frozen.py',
]

model = dict(
    backbone=dict(type='sw_mm.SLaK', arch='tiny', drop_path_rate=0.4, layer_scale_init_value=1.0),
    neck=dict(in_channels=[124, 249, 499, 998]),
)

optim_wrapper = dict(
    optimizer=dict(lr=2e-4),
    constructor='sw_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.7, num_layers=6),
)
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
