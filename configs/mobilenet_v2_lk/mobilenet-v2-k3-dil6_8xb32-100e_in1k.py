"""MobileNetV2 with kernels of 3, dilated by 6, on ImageNet-1K, 100 epochs on 8 GPUs x 32 images.

It reaches as far as dense kernels of 13 and is compared with them: `mobilenet-v2-k13`. On one GPU,
`optim_wrapper.accumulative_counts=8` keeps the 256 images an update.
"""

_base_ = './mobilenet-v2-k3_8xb32-100e_in1k.py'

model = dict(backbone=dict(kernel_size=3, dw_dilation=6))
