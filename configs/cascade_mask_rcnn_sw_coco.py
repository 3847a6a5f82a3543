"""Cascade Mask R-CNN with SW-T on COCO, 36 epochs on 8 GPUs x 2 images.

Official result: 52.21 box AP, 45.19 mask AP. As there, filters that are zero in the pre-trained weights stay zero.
"""

_base_ = [
    '_base_/models/cascade_mask_rcnn_sw.py',
    '_base_/datasets/coco_instance_ms_crop.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
    '_base_/sparse/sw_frozen.py',
]
custom_imports = dict(imports=['sw_mm.registry'])

# The official ImageNet-1K weights of SW-T; None trains from scratch. Edit it here;
# elsewhere (--cfg-options, a config that inherits this one) set model.backbone.init_cfg.checkpoint.
checkpoint = None

model = dict(backbone=dict(init_cfg=dict(type='sw_mm.OfficialPretrained', checkpoint=checkpoint)))

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    constructor='sw_mm.LayerDecayOptimWrapperConstructor',
    # As published: stage 3 of SW-T ends at layer 8 and stage 4 is layer 12, so its rate jumps from 0.8^5 to 0.8.
    paramwise_cfg=dict(decay_rate=0.8, num_layers=12),
)

train_cfg = dict(max_epochs=36)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=36, by_epoch=True, milestones=[27, 33], gamma=0.1),
]

train_dataloader = dict(batch_size=2)
default_hooks = dict(checkpoint=dict(type='sw_mm.AtomicCheckpointHook'))
auto_scale_lr = dict(enable=False, base_batch_size=16)
