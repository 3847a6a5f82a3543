"""UPerNet with UniRepLKNet-T on ADE20K, 160k iterations on 8 GPUs x 2 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 48.6 mIoU, 49.1 with multi-scale testing.
"""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/adamw_160k.py',
    'mmseg::_base_/default_runtime.py',
]

# Whole images are tested, their sides rounded up to multiples of 32.
test_pipeline = _base_.test_pipeline
test_pipeline.insert(2, dict(type='ResizeToMultiple', size_divisor=32))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(type='sw_mm.UniRepLKNet', arch='t', drop_path_rate=0.2),
    decode_head=dict(in_channels=[80, 160, 320, 640]),
    auxiliary_head=dict(in_channels=320),
)

train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
