"""`upernet_sw_ade20k.py` at the size of two CPU cores: 17 land-cover classes, tiles of 128 pixels, a few minutes.

The data set comes from `python tools/dataset_converters/landcover.py`; `make demo` does both.
"""

_base_ = ['../upernet_sw_ade20k.py', './landcover_classes.json']

# Data. Training takes quarters of tiles, many different ones in a batch; seen from above, all directions are alike.
# There is no scale jitter, as a degree is a degree, and no colour jitter, as colour is what tells the classes apart.
data_root = 'data/landcover'
crop_size = (64, 64)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
dataset = dict(type='sw_mm.LandCoverDataset', data_root=data_root, metainfo=_base_.metainfo, reduce_zero_label=True)
# Reading a small tile takes 2 ms: worker processes would only compete with the model for the cores.
in_process = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=16, **in_process, dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(batch_size=1, **in_process, dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
channel_mean, channel_std = [75.0, 81.0, 74.0], [64.0, 52.5, 57.0]  # of the training images

# Size.
num_classes = len(_base_.metainfo['classes'])
channels = (32, 64, 128, 256)
model = dict(
    data_preprocessor=dict(size=crop_size, mean=channel_mean, std=channel_std),
    backbone=dict(arch=dict(_delete_=True, depths=(2, 2, 4, 2), channels=channels), drop_path_rate=0.05),
    decode_head=dict(num_classes=num_classes, in_channels=list(channels), channels=64),
    auxiliary_head=dict(num_classes=num_classes, in_channels=channels[2], channels=32),
    test_cfg=dict(_delete_=True, mode='whole'),
)

# Schedule: warm-up, linear decay, and an average of the weights over the last few dozen steps, which are few and noisy.
max_iters = 400
train_cfg = dict(max_iters=max_iters, val_interval=100)
optim_wrapper = dict(optimizer=dict(lr=2e-3), clip_grad=dict(max_norm=5.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=max_iters),
]
custom_hooks = [dict(type='EMAHook', momentum=0.03, update_buffers=True)]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=max_iters, save_best='mIoU'))
randomness = dict(seed=0)
