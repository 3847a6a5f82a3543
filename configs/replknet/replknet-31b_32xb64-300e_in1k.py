"""RepLKNet-31B on ImageNet-1K, 300 epochs on 32 GPUs x 64 images.

Official result (https://github.com/DingXiaoH/RepLKNet-pytorch): 83.5 top-1. On 8 GPUs,
`optim_wrapper.accumulative_counts=4` keeps the 2048 images an update.
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_adamw_300e.py',
]

# Official code draws the head's weights as torch does.
model = dict(
    backbone=dict(type='sw_mm.RepLKNet', arch='31b', drop_path_rate=0.5),
    head=dict(in_channels=1024, init_cfg=None),
)

# As in the ablations: 4e-3 for 2048 images.
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 10
param_scheduler[1].begin = 10
custom_hooks = [dict(type='EMAHook', momentum=1e-4, update_buffers=True, priority='ABOVE_NORMAL')]
auto_scale_lr = dict(base_batch_size=2048)
