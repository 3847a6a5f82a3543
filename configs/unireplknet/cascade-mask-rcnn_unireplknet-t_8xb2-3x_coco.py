"""Cascade Mask R-CNN with UniRepLKNet-T on COCO, 36 epochs on 8 GPUs x 2 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 51.7 box AP (51.8 in the paper), 44.9 mask AP.
"""

_base_ = [
    '../_base_/models/cascade_mask_rcnn.py',
    '../_base_/datasets/coco_instance_ms_crop.py',
    '../_base_/schedules/coco_adamw_3x.py',
]

model = dict(
    backbone=dict(type='sw_mm.UniRepLKNet', arch='t', drop_path_rate=0.3, with_cp=True),
    neck=dict(in_channels=[80, 160, 320, 640]),
)

# As published, T too has the 12 layers of the larger nets: stage 3 ends at layer 8 and stage 4 is layer 12.
optim_wrapper = dict(
    constructor='sw_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.8, num_layers=12),
)
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
