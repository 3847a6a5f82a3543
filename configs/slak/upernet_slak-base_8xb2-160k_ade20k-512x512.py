"""UPerNet with SLaK-B on ADE20K, 160k iterations on 8 GPUs x 2 images.

Official result: 50.2 mIoU in the paper, 50.0 in https://github.com/VITA-Group/SLaK, from the weights of 300 epochs, the
zeros of which stay zero, as here.
"""

_base_ = './upernet_slak-tiny_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='base'),
    decode_head=dict(in_channels=[166, 332, 665, 1331]),
    auxiliary_head=dict(in_channels=665),
)
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
