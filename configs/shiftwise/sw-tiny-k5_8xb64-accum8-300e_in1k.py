"""SW-T with small kernels of 5 on ImageNet-1K, 300 epochs on 8 GPUs x 64 images x 8 accumulated steps.

This is the default of the official code, not of the released net, which has 3; the authors publish its speed only.
"""

_base_ = '../sw_imagenet.py'

model = dict(backbone=dict(small_kernel=5))
