"""UPerNet with SW-T on Cityscapes, 80k iterations on 8 GPUs x 2 images.

The authors publish no Cityscapes recipe. This one is ours: that of ADE20K with mmsegmentation's Cityscapes crop, and
the 80k x 16 images that RepLKNet trained for.
"""

_base_ = [
    '_base_/models/upernet_sw.py',
    '_base_/datasets/cityscapes.py',
    '_base_/schedules/adamw_80k.py',
    'mmseg::_base_/default_runtime.py',
    '_base_/sparse/sw_frozen.py',
]
custom_imports = dict(imports=['sw_mm.registry'])

# The official ImageNet-1K weights of SW-T; None trains from scratch. Edit it here;
# elsewhere (--cfg-options, a config that inherits this one) set model.backbone.init_cfg.checkpoint.
checkpoint = None

model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    backbone=dict(init_cfg=dict(type='sw_mm.OfficialPretrained', checkpoint=checkpoint)),
    decode_head=dict(num_classes=19),
    auxiliary_head=dict(num_classes=19),
)

train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
