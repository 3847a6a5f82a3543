"""Cascade Mask R-CNN with UniRepLKNet-XL of ImageNet-22K on COCO, 36 epochs on 8 GPUs x 2 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 56.4 box AP, 49.0 mask AP.
"""

_base_ = './cascade-mask-rcnn_unireplknet-s_in22k-pre_8xb2-3x_coco.py'

model = dict(backbone=dict(arch='xl', drop_path_rate=0.7), neck=dict(in_channels=[256, 512, 1024, 2048]))
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.7))
