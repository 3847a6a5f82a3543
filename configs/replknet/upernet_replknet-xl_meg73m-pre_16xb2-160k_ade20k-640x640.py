"""UPerNet with RepLKNet-XL of MegData73M on ADE20K at 640 pixels, 160k iterations on 16 GPUs x 2 images.

Official result (https://github.com/DingXiaoH/RepLKNet-pytorch): 55.2 mIoU, 56.0 with multi-scale testing. The official
config trains on its test pipeline by mistake; this one trains as the smaller nets do.
"""

_base_ = './upernet_replknet-31b_in22k-pre_32xb4-40k_ade20k-640x640.py'

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(arch='xl', drop_path_rate=0.5, norm_intermediate_features=True),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024),
)

param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 1500
param_scheduler[1].end = 160000
train_cfg = dict(max_iters=160000)
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(base_batch_size=32)
