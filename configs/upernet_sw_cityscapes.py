"""UPerNet with SW-T on Cityscapes, 80k iterations.

The authors publish no Cityscapes recipe. This one is ours: that of ADE20K with mmsegmentation's Cityscapes crop, and
the 80k x 16 images that RepLKNet trained for.
"""

_base_ = [
    '_base_/models/upernet_sw.py',
    '_base_/datasets/cityscapes.py',
    '_base_/schedules/adamw_80k.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['sw_mm.registry'])

# The official ImageNet-1K weights of SW-T; None trains from scratch.
checkpoint = None

model = dict(
    data_preprocessor=dict(size=(512, 1024)),
    backbone=dict(init_cfg=dict(type='sw_mm.OfficialPretrained', checkpoint=checkpoint)),
)

# A decay rate of 1 gives every layer the same rate; what remains is no weight decay on biases and norms.
optim_wrapper = dict(
    constructor='sw_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=1.0, num_layers=9),
)

# 8 GPUs x 2 images.
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
