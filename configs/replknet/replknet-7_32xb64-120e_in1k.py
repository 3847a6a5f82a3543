"""RepLKNet-7 on ImageNet-1K, 120 epochs on 32 GPUs x 64 images: the study of kernel sizes.

Official result (arXiv:2203.06717, section 5): 82.73 top-1. On 8 GPUs, `optim_wrapper.accumulative_counts=4` keeps the
2048 images an update.
"""

_base_ = './replknet-31b_32xb64-120e_in1k.py'

model = dict(backbone=dict(arch='7'))
