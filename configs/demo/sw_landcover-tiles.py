"""`sw_imagenet.py` at the size of two CPU cores: the land cover of tiles of 32 pixels, ten classes, a few minutes.

The data set comes from `python tools/dataset_converters/landcover_tiles.py`; `make demo-cls` does both.
"""

_base_ = '../sw_imagenet.py'

# Data. Tiles are enlarged, so that 2 x 2 pixels of them reach the last stage; all directions are alike, and colour,
# which tells the classes apart, is left alone.
dataset_type = 'sw_mm.LandCoverTilesDataset'
data_root = 'data/landcover_tiles'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='Resize', scale=64),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=64), dict(type='PackInputs')]
# Reading a small tile takes 1 ms: worker processes would only compete with the model for the cores.
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(_delete_=True, type=dataset_type, data_root=data_root, data_prefix='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(_delete_=True, type=dataset_type, data_root=data_root, data_prefix='val', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator
data_preprocessor = dict(num_classes=10, mean=[87.0, 85.0, 67.0], std=[70.0, 60.0, 61.0])  # of the training tiles

# Size.
channels = (32, 64, 128, 256)
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, depths=(2, 2, 4, 2), channels=channels),
        drop_path_rate=0.05,
        layer_scale_init_value=1.0,
    ),
    head=dict(num_classes=10, in_channels=channels[-1]),
    train_cfg=None,  # neither Mixup nor CutMix: they need hundreds of epochs
)

# Schedule: warm-up, cosine decay, and an average of the weights over the last few dozen steps, which are few and noisy.
train_cfg = dict(max_epochs=4)
optim_wrapper = dict(optimizer=dict(lr=1e-3), accumulative_counts=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=1, convert_to_iter_based=True),
]
custom_hooks = [dict(type='EMAHook', momentum=0.03, update_buffers=True)]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(save_best='accuracy/top1', max_keep_ckpts=1))
randomness = dict(seed=0)
