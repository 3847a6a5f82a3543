"""UPerNet with UniRepLKNet-B of ImageNet-22K on ADE20K at 640 pixels, 160k iterations on 8 GPUs x 2 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 53.5 mIoU, 53.9 with multi-scale testing.
"""

_base_ = './upernet_unireplknet-s_in22k-pre_8xb2-160k_ade20k-640x640.py'

model = dict(
    backbone=dict(arch='b'),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
