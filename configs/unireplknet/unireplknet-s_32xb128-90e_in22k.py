"""UniRepLKNet-S on ImageNet-22K (21841 classes), 90 epochs on 32 GPUs x 128 images.

The pre-training has no published score. On 8 GPUs, `optim_wrapper.accumulative_counts=4` keeps the 4096 images an
update.
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet22k.py',
    '../_base_/schedules/imagenet22k_adamw_90e.py',
]

model = dict(
    backbone=dict(type='sw_mm.UniRepLKNet', arch='s', drop_path_rate=0.1),
    head=dict(num_classes=21841, in_channels=768),
)
train_dataloader = dict(batch_size=128)
