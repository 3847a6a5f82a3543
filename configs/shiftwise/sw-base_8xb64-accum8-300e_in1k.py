"""SW-B on ImageNet-1K, 300 epochs on 8 GPUs x 64 images x 8 accumulated steps.

The official code defines this net, but its authors publish no result; the recipe is that of SW-T.
"""

_base_ = '../sw_imagenet.py'

model = dict(backbone=dict(arch='base'), head=dict(in_channels=1024))
