"""UPerNet with SW-T on ADE20K, 160k iterations. Official result: 49.22 mIoU, 50.06 with multi-scale testing."""

_base_ = [
    '_base_/models/upernet_sw.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/adamw_160k.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(imports=['sw_mm.registry'])

# The official ImageNet-1K weights of SW-T; None trains from scratch.
checkpoint = None

crop_size = (512, 512)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(init_cfg=dict(type='sw_mm.OfficialPretrained', checkpoint=checkpoint)),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(341, 341)),
)

# A decay rate of 1 gives every layer the same rate; what remains is no weight decay on biases and norms.
optim_wrapper = dict(
    constructor='sw_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=1.0, num_layers=9),
)

# 8 GPUs x 2 images. The official code trains with the filter masks of its sparse pre-training, this trains densely.
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
