"""UPerNet with RepLKNet-31B on Cityscapes, 20k iterations on 32 GPUs x 2 images.

Official result (https://github.com/DingXiaoH/RepLKNet-pytorch): 83.1 mIoU, 83.5 with multi-scale testing, from the
ImageNet-1K weights. The paper counts 80k iterations of 16 images; the authors ran as many samples like this.
"""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/cityscapes_769.py',
    '../_base_/schedules/adamw_norm-decay_160k.py',
    'mmseg::_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=(769, 769)),
    backbone=dict(type='sw_mm.RepLKNet', arch='31b', drop_path_rate=0.5),
    decode_head=dict(num_classes=19, in_channels=[128, 256, 512, 1024], align_corners=True),
    auxiliary_head=dict(num_classes=19, in_channels=512, align_corners=True),
)

param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 400
param_scheduler[1].end = 20000
train_cfg = dict(max_iters=20000)
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=64)
