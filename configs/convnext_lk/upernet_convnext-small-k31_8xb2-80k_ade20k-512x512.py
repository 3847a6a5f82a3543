"""UPerNet with ConvNeXt-S and kernels of 31 on ADE20K, 80k iterations on 8 GPUs x 2 images.

The recipe is that of ConvNeXt-T.
"""

_base_ = './upernet_convnext-tiny-k31_8xb2-80k_ade20k-512x512.py'

model = dict(backbone=dict(arch='small'))
