"""UniRepLKNet-T on ImageNet-1K, 300 epochs on 32 GPUs x 128 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 83.2 top-1. On 8 GPUs,
`optim_wrapper.accumulative_counts=4` keeps the 4096 images an update.
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_adamw_300e.py',
]

model = dict(backbone=dict(type='sw_mm.UniRepLKNet', arch='t', drop_path_rate=0.2), head=dict(in_channels=640))
train_dataloader = dict(batch_size=128)
