"""UPerNet with UniRepLKNet-S of ImageNet-22K on ADE20K at 640 pixels, 160k iterations on 8 GPUs x 2 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 52.3 mIoU, 52.7 with multi-scale testing.
"""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k_640.py',
    '../_base_/schedules/adamw_160k.py',
    'mmseg::_base_/default_runtime.py',
]

# Whole images are tested, their sides rounded up to multiples of 32.
test_pipeline = _base_.test_pipeline
test_pipeline.insert(2, dict(type='ResizeToMultiple', size_divisor=32))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

model = dict(
    data_preprocessor=dict(size=(640, 640)),
    backbone=dict(type='sw_mm.UniRepLKNet', arch='s', drop_path_rate=0.3),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)

optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.9, num_layers=12))
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
