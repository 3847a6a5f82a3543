"""Cascade Mask R-CNN with RepLKNet-31L of ImageNet-22K on COCO, 36 epochs on 64 GPUs x 1 image.

Official result (https://github.com/DingXiaoH/RepLKNet-pytorch): 53.9 box AP, 46.5 mask AP. The number of GPUs is not
published.
"""

_base_ = './cascade-mask-rcnn_replknet-31b_64xb1-3x_coco.py'

model = dict(backbone=dict(arch='31l', drop_path_rate=0.7), neck=dict(in_channels=[192, 384, 768, 1536]))
