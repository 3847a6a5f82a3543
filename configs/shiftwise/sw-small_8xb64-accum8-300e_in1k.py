"""SW-S on ImageNet-1K, 300 epochs on 8 GPUs x 64 images x 8 accumulated steps. Official result: 83.9 top-1.

The authors publish the result, but neither recipe nor weights: this is the recipe of SW-T.
"""

_base_ = '../sw_imagenet.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=768))
