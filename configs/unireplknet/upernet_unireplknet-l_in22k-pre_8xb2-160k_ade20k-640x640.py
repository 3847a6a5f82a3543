"""UPerNet with UniRepLKNet-L of ImageNet-22K on ADE20K at 640 pixels, 160k iterations on 8 GPUs x 2 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 54.5 mIoU, 55.0 with multi-scale testing.
"""

_base_ = './upernet_unireplknet-s_in22k-pre_8xb2-160k_ade20k-640x640.py'

model = dict(
    backbone=dict(arch='l', drop_path_rate=0.4),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.85))
