"""Cascade Mask R-CNN with RepLKNet-XL of MegData73M on COCO, 36 epochs on 16 GPUs x 4 images.

Official result (https://github.com/DingXiaoH/RepLKNet-pytorch): 55.5 box AP, 48.0 mask AP. The number of GPUs is not
published.
"""

_base_ = './cascade-mask-rcnn_replknet-31b_64xb1-3x_coco.py'

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(arch='xl', drop_path_rate=0.5, norm_intermediate_features=True),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
)
train_dataloader = dict(batch_size=4)
