"""UPerNet with RepLKNet-31B of ImageNet-22K on ADE20K at 640 pixels, 40k iterations on 32 GPUs x 4 images.

Official result (https://github.com/DingXiaoH/RepLKNet-pytorch): 51.5 mIoU, 52.3 with multi-scale testing. The paper
counts 160k iterations of 32 images; the authors ran as many samples like this.
"""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k_640.py',
    '../_base_/schedules/adamw_norm-decay_160k.py',
    'mmseg::_base_/default_runtime.py',
]

# Training images are enlarged as at 512 pixels.
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (2048, 512)

crop_size = (640, 640)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(type='sw_mm.RepLKNet', arch='31b', drop_path_rate=0.3),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(426, 426)),
)

param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 400
param_scheduler[1].end = 40000
train_cfg = dict(max_iters=40000)
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
auto_scale_lr = dict(enable=False, base_batch_size=128)
