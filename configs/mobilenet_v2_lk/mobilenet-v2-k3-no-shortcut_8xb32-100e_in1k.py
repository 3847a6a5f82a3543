"""MobileNetV2 with kernels of 3, without shortcuts, on ImageNet-1K, 100 epochs on 8 GPUs x 32 images.

Official result (arXiv:2203.06717, section 3): 68.67 top-1. On one GPU, `optim_wrapper.accumulative_counts=8` keeps the
256 images an update.
"""

_base_ = './mobilenet-v2-k3_8xb32-100e_in1k.py'

model = dict(backbone=dict(kernel_size=3, shortcut=False))
