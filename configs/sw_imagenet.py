"""SW-T on ImageNet-1K, 300 epochs on 8 GPUs x 64 images x 8 accumulated steps = 4096 images an update.

Official result: 83.39 top-1, trained with 30 % of the small filters masked, as here;
`custom_hooks = []` trains densely.
"""

_base_ = [
    '_base_/models/classifier.py',
    '_base_/datasets/imagenet.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
    '_base_/sparse/sw.py',
]
custom_imports = dict(imports=['sw_mm.registry'])

# The official ImageNet-1K weights of SW-T; None trains from scratch. Edit it here;
# elsewhere (--cfg-options, a config that inherits this one) set model.backbone.init_cfg.checkpoint.
checkpoint = None

model = dict(
    backbone=dict(
        type='sw_mm.ShiftWiseNet',
        arch='tiny',
        drop_path_rate=0.2,
        layer_scale_init_value=1e-6,
        init_cfg=dict(type='sw_mm.OfficialPretrained', checkpoint=checkpoint),
    ),
    head=dict(in_channels=640),
)

# No gradient clipping, no average of the weights.
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=4e-3), accumulative_counts=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=True, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=5, convert_to_iter_based=True),
]
# mmengine scales by what it sees of the batch, which is before accumulation: 8 GPUs x 64 images.
auto_scale_lr = dict(enable=False, base_batch_size=512)

default_hooks = dict(checkpoint=dict(type='sw_mm.AtomicCheckpointHook', save_best='auto', max_keep_ckpts=3))
