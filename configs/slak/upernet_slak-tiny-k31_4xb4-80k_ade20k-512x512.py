"""UPerNet with SLaK-T and kernels of 31 on ADE20K, 80k iterations on 4 GPUs x 4 images.

It starts from the weights of 120 epochs.
"""

_base_ = './upernet_slak-tiny_4xb4-80k_ade20k-512x512.py'

model = dict(backbone=dict(kernel_size=(31, 29, 27, 13)))
