"""UPerNet with SLaK-T on ADE20K, 80k iterations on 4 GPUs x 4 images: the study of kernel sizes.

Result published by PeLK (CVPR 2024): 46.5 mIoU, from the weights of 120 epochs, the zeros of which stay zero, as here,
and 46.1 without zeros.
"""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/adamw_norm-decay_160k.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/sparse/slak_frozen.py',
]

crop_size = (512, 512)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(type='sw_mm.SLaK', arch='tiny', drop_path_rate=0.1, layer_scale_init_value=1.0),
    decode_head=dict(in_channels=[124, 249, 499, 998]),
    auxiliary_head=dict(in_channels=499),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(341, 341)),
)

param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 800
param_scheduler[1].end = 80000
train_cfg = dict(max_iters=80000)
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(enable=False, base_batch_size=16)
