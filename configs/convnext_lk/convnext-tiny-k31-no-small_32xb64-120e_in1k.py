"""ConvNeXt-T with kernels of 31 alone on ImageNet-1K, 120 epochs on 32 GPUs x 64 images.

ConvNeXt's own layers with larger kernels: with bias, without the 5 x 5 kernels and batch norms. On 8 GPUs,
`optim_wrapper.accumulative_counts=4` keeps the 2048 images an update.
"""

_base_ = './convnext-tiny-k31_32xb64-120e_in1k.py'

model = dict(backbone=dict(small_kernel=None))
