"""UPerNet with SW-S on ADE20K, 160k iterations on 8 GPUs x 2 images.

Official result: 49.79 mIoU, 50.83 with multi-scale testing. The authors publish the result, but neither recipe nor
weights: this is the recipe of SW-T.
"""

_base_ = '../upernet_sw_ade20k.py'

model = dict(
    backbone=dict(arch='small'),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)

# Twelve layers, as stage 3 has nine blocks more.
optim_wrapper = dict(paramwise_cfg=dict(num_layers=12))
