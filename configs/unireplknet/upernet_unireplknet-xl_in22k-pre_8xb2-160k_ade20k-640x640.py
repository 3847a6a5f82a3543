"""UPerNet with UniRepLKNet-XL of ImageNet-22K on ADE20K at 640 pixels, 160k iterations on 8 GPUs x 2 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 55.2 mIoU, 55.6 with multi-scale testing. The authors
publish no config; this is that of L.
"""

_base_ = './upernet_unireplknet-l_in22k-pre_8xb2-160k_ade20k-640x640.py'

model = dict(
    backbone=dict(arch='xl'),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024),
)
