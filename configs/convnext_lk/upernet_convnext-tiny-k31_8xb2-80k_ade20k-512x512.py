"""UPerNet with ConvNeXt-T and kernels of 31 on ADE20K, 80k iterations on 8 GPUs x 2 images.

The recipe is that of RepLKNet's study of kernel sizes (arXiv:2203.06717, section 5), from the weights of 120 epochs.
"""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/adamw_norm-decay_160k.py',
    'mmseg::_base_/default_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(type='sw_mm.LargeKernelConvNeXt', arch='tiny', drop_path_rate=0.3, layer_scale_init_value=1.0),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)

param_scheduler = _base_.param_scheduler
param_scheduler[1].end = 80000
train_cfg = dict(max_iters=80000)
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
