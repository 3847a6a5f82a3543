"""Cascade Mask R-CNN with RepLKNet-31B of ImageNet-22K on COCO, 36 epochs on 64 GPUs x 1 image.

Official result (https://github.com/DingXiaoH/RepLKNet-pytorch): 53.0 box AP, 46.0 mask AP. The number of GPUs is not
published.
"""

_base_ = './cascade-mask-rcnn_replknet-31b_64xb1-3x_coco.py'

model = dict(backbone=dict(drop_path_rate=0.4))
