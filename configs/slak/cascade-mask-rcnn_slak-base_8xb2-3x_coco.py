"""Cascade Mask R-CNN with SLaK-B on COCO, 36 epochs on 8 GPUs x 2 images.

Result published by PeLK (CVPR 2024): 52.5 box AP, 45.5 mask AP. The recipe is not published; this is that of SLaK-T.
"""

_base_ = './cascade-mask-rcnn_slak-tiny_8xb2-3x_coco.py'

model = dict(backbone=dict(arch='base'), neck=dict(in_channels=[166, 332, 665, 1331]))
# Twelve layers, as stage 3 has 18 blocks more.
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
