"""UPerNet with UniRepLKNet-S on ADE20K, 160k iterations on 8 GPUs x 2 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 50.5 mIoU, 51.0 with multi-scale testing, from the
ImageNet-1K weights.
"""

_base_ = './upernet_unireplknet-t_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='s', drop_path_rate=0.3),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.9, num_layers=12))
