"""Cascade Mask R-CNN with UniRepLKNet-S of ImageNet-22K on COCO, 36 epochs on 8 GPUs x 2 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 54.3 box AP, 47.1 mask AP. Nets of ImageNet-22K are
averaged while training.
"""

_base_ = './cascade-mask-rcnn_unireplknet-s_8xb2-3x_coco.py'

custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=1e-4, priority='ABOVE_NORMAL')]
