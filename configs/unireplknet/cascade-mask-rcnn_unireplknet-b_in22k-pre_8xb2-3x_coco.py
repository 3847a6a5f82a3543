"""Cascade Mask R-CNN with UniRepLKNet-B of ImageNet-22K on COCO, 36 epochs on 8 GPUs x 2 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 54.8 box AP, 47.4 mask AP.
"""

_base_ = './cascade-mask-rcnn_unireplknet-s_in22k-pre_8xb2-3x_coco.py'

model = dict(backbone=dict(arch='b', drop_path_rate=0.6), neck=dict(in_channels=[128, 256, 512, 1024]))
