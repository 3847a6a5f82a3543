"""UPerNet with RepLKNet-31B on ADE20K, 80k iterations on 8 GPUs x 2 images: the study of kernel sizes.

Official result (arXiv:2203.06717, section 5): 49.17 mIoU, from the weights of 120 epochs. Batch and warm-up are not
published; these are mmsegmentation's 16 images and the 1500 iterations of the other recipes.
"""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/adamw_norm-decay_160k.py',
    'mmseg::_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(type='sw_mm.RepLKNet', arch='31b', drop_path_rate=0.3),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)

param_scheduler = _base_.param_scheduler
param_scheduler[1].end = 80000
train_cfg = dict(max_iters=80000)
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
