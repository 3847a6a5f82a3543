"""ConvNeXt-T with dense kernels of 51 on ImageNet-1K, 120 epochs on 32 GPUs x 64 images.

SLaK's comparison (arXiv:2207.03620), there called RepLKNet, before its kernels are decomposed. On 8 GPUs,
`optim_wrapper.accumulative_counts=4` keeps the 2048 images an update.
"""

_base_ = './convnext-tiny-k31_32xb64-120e_in1k.py'

model = dict(backbone=dict(kernel_size=(51, 49, 47, 13)))
