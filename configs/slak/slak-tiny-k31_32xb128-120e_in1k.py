"""SLaK-T with kernels of 31 on ImageNet-1K, 120 epochs on 32 GPUs x 128 images.

Official result (https://github.com/VITA-Group/SLaK): 81.5 top-1. As there, 40 % of the weights are zero and move. On 8
GPUs, `optim_wrapper.accumulative_counts=4` keeps the 4096 images an update.
"""

_base_ = './slak-tiny_32xb128-120e_in1k.py'

model = dict(backbone=dict(kernel_size=(31, 29, 27, 13)))
