"""ConvNeXt-B with kernels of 31 on ImageNet-1K, 120 epochs on 32 GPUs x 64 images.

The recipe is that of ConvNeXt-T. On 8 GPUs, `optim_wrapper.accumulative_counts=4` keeps the 2048 images an update.
"""

_base_ = './convnext-tiny-k31_32xb64-120e_in1k.py'

model = dict(backbone=dict(arch='base'), head=dict(in_channels=1024))
