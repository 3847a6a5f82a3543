"""MobileNetV2 with kernels of 3 on ImageNet-1K, 100 epochs on 8 GPUs x 32 images.

Official result (arXiv:2203.06717, section 3): 71.76 top-1. On one GPU, `optim_wrapper.accumulative_counts=8` keeps the
256 images an update.
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_flip.py',
    '../_base_/schedules/imagenet_sgd_100e.py',
]

# Plain cross-entropy, nothing mixed.
model = dict(
    backbone=dict(type='sw_mm.LargeKernelMobileNetV2', kernel_size=3, norm_cfg=dict(_delete_=True, type='BN')),
    head=dict(
        in_channels=1280,
        loss=dict(_delete_=True, type='CrossEntropyLoss'),
        init_cfg=dict(_delete_=True, type='Normal', layer='Linear', std=0.01),
    ),
    train_cfg=dict(augments=None),
)
