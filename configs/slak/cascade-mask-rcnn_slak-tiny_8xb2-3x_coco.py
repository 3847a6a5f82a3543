"""Cascade Mask R-CNN with SLaK-T on COCO, 36 epochs on 8 GPUs x 2 images.

Official result (https://github.com/VITA-Group/SLaK): 51.3 box AP, 44.3 mask AP, from the weights of 300 epochs, the
zeros of which stay zero, as here.
"""

_base_ = './cascade-mask-rcnn_slak-tiny_8xb2-ms-crop-1x_coco.py'

param_scheduler = _base_.param_scheduler
param_scheduler[1].end = 36
param_scheduler[1].milestones = [27, 33]
train_cfg = dict(max_epochs=36)
