"""UPerNet with RepLKNet-31L of ImageNet-22K on ADE20K at 640 pixels, 80k iterations on 32 GPUs x 2 images.

Official result (https://github.com/DingXiaoH/RepLKNet-pytorch): 52.4 mIoU, 52.7 with multi-scale testing.
"""

_base_ = './upernet_replknet-31b_in22k-pre_32xb4-40k_ade20k-640x640.py'

model = dict(
    backbone=dict(arch='31l'),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)

param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 800
param_scheduler[1].end = 80000
train_cfg = dict(max_iters=80000)
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(base_batch_size=64)
