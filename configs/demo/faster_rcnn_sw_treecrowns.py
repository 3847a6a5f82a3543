"""Faster R-CNN with a small ShiftWiseNet on tree crowns: tiles of 256 pixels of one scene, validation on another.

The data set comes from `python tools/dataset_converters/treecrowns.py`; `make demo-det` does both.
"""

_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', 'mmdet::_base_/default_runtime.py']
custom_imports = dict(imports=['sw_mm.registry'])

# Data. Pixels stay as they are, 10 cm each; seen from above, all directions are alike.
dataset_type = 'sw_mm.TreeCrownDataset'
data_root = 'data/treecrowns/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.0),  # notes the scale, which boxes are divided by in the end
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
# Reading a tile takes 2 ms: worker processes would only compete with the model for the cores.
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='InfiniteSampler'),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/val.json', metric='bbox')
test_evaluator = val_evaluator

# Model. Crowns are round, so anchors are squares: 20, 40, 80 and 160 pixels. A scene has hundreds of trees.
channels = (32, 64, 128, 256)
width = 64
strides = [4, 8, 16, 32]
model = dict(
    data_preprocessor=dict(mean=[127.0, 141.0, 116.0], std=[61.0, 56.0, 40.0]),  # of the training scene
    backbone=dict(
        _delete_=True,
        type='sw_mm.ShiftWiseNet',
        arch=dict(depths=(2, 2, 4, 2), channels=channels),
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.05,
        layer_scale_init_value=1.0,
        gap_before_final_norm=False,
    ),
    neck=dict(in_channels=list(channels), out_channels=width, num_outs=4),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        anchor_generator=dict(scales=[5], ratios=[1.0], strides=strides),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width, featmap_strides=strides),
        bbox_head=dict(in_channels=width, fc_out_channels=256, num_classes=1),
    ),
    train_cfg=dict(rpn_proposal=dict(max_per_img=200), rcnn=dict(sampler=dict(num=128))),
    test_cfg=dict(rcnn=dict(max_per_img=500)),
)

# Schedule: warm-up and linear decay.
max_iters = 300
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=100)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
    constructor='sw_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=1.0, num_layers=9),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=50),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=max_iters),
]
default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(by_epoch=False, interval=max_iters, save_best='coco/bbox_mAP_50', rule='greater'),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
