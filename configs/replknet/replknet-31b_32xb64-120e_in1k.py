"""RepLKNet-31B on ImageNet-1K, 120 epochs on 32 GPUs x 64 images: the study of kernel sizes.

Official result (arXiv:2203.06717, section 5): 83.07 top-1. On 8 GPUs, `optim_wrapper.accumulative_counts=4` keeps the
2048 images an update.
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_adamw_120e.py',
]

# Official code draws the head's weights as torch does.
model = dict(
    backbone=dict(type='sw_mm.RepLKNet', arch='31b', drop_path_rate=0.3),
    head=dict(in_channels=1024, init_cfg=None),
)
train_dataloader = dict(batch_size=64)
