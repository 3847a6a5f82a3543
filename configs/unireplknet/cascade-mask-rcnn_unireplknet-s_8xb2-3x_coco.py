"""Cascade Mask R-CNN with UniRepLKNet-S on COCO, 36 epochs on 8 GPUs x 2 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 53.0 box AP, 45.9 mask AP, from the ImageNet-1K weights.
"""

_base_ = './cascade-mask-rcnn_unireplknet-t_8xb2-3x_coco.py'

model = dict(backbone=dict(arch='s', drop_path_rate=0.5), neck=dict(in_channels=[96, 192, 384, 768]))
