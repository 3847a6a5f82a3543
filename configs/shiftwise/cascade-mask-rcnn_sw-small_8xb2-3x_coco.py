"""Cascade Mask R-CNN with SW-S on COCO, 36 epochs on 8 GPUs x 2 images. Official result: 52.7 box AP, 45.67 mask AP.

The authors publish the result, but neither recipe nor weights: this is the recipe of SW-T.
"""

_base_ = '../cascade_mask_rcnn_sw_coco.py'

model = dict(backbone=dict(arch='small'), neck=dict(in_channels=[96, 192, 384, 768]))
