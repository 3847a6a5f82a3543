"""FCOS with RepLKNet-31B on COCO, 24 epochs on 8 GPUs x 2 images.

Official result (https://github.com/DingXiaoH/RepLKNet-pytorch): 47.0 box AP, from the ImageNet-1K weights. The number
of GPUs is not published.
"""

# mmdetection's plain FCOS, without its later tricks, with group norm in the head, at a short side of 640 or 800.
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco.py'
custom_imports = dict(imports=['sw_mm.registry'])

model = dict(
    data_preprocessor=dict(
        _delete_=True,
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        _delete_=True,
        type='sw_mm.RepLKNet',
        arch='31b',
        drop_path_rate=0.5,
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        # Official weights to start from (--cfg-options model.backbone.init_cfg.checkpoint=FILE); None: from scratch.
        init_cfg=dict(type='sw_mm.OfficialPretrained', checkpoint=None),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)

# The gradients are clipped at a norm of 35, as upstream.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0),
)

dataset_type = 'sw_mm.CocoDataset'
train_dataloader = dict(batch_size=2, dataset=dict(type=dataset_type))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader
default_hooks = dict(checkpoint=dict(type='sw_mm.AtomicCheckpointHook'))
auto_scale_lr = dict(enable=False, base_batch_size=16)
