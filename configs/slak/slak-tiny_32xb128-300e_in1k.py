"""SLaK-T on ImageNet-1K, 300 epochs on 32 GPUs x 128 images.

Official result (https://github.com/VITA-Group/SLaK): 82.5 top-1. As there, 40 % of the weights are zero and move. On 8
GPUs, `optim_wrapper.accumulative_counts=4` keeps the 4096 images an update.
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_adamw_300e.py',
    '../_base_/sparse/slak.py',
]

model = dict(backbone=dict(type='sw_mm.SLaK', arch='tiny', drop_path_rate=0.1), head=dict(in_channels=998))

train_dataloader = dict(batch_size=128)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EMAHook', momentum=1e-4, update_buffers=True, priority='ABOVE_NORMAL'),
]
