"""Cascade Mask R-CNN with UniRepLKNet-L of ImageNet-22K on COCO, 36 epochs on 8 GPUs x 2 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 55.8 box AP, 48.4 mask AP.
"""

_base_ = './cascade-mask-rcnn_unireplknet-s_in22k-pre_8xb2-3x_coco.py'

model = dict(backbone=dict(arch='l', drop_path_rate=0.7), neck=dict(in_channels=[192, 384, 768, 1536]))
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.7))
