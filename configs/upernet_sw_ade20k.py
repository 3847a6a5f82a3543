"""UPerNet with SW-T on ADE20K, 160k iterations on 8 GPUs x 2 images.

Official result: 49.22 mIoU, 50.06 with multi-scale testing. As there, filters that are zero in the pre-trained weights
stay zero.
"""

_base_ = [
    '_base_/models/upernet_sw.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_160k.py',
    'mmseg::_base_/default_runtime.py',
    '_base_/sparse/sw_frozen.py',
]
custom_imports = dict(imports=['sw_mm.registry'])

# The official ImageNet-1K weights of SW-T; None trains from scratch. Edit it here;
# elsewhere (--cfg-options, a config that inherits this one) set model.backbone.init_cfg.checkpoint.
checkpoint = None

crop_size = (512, 512)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(init_cfg=dict(type='sw_mm.OfficialPretrained', checkpoint=checkpoint)),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(341, 341)),
)

train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
