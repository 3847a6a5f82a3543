"""SLaK-B on ImageNet-1K at 384 pixels, fine-tuned for 30 epochs on 32 GPUs x 16 images.

Official result (https://github.com/VITA-Group/SLaK): 85.5 top-1. The authors publish no recipe; this one is that of
UniRepLKNet-S. Start it with `--cfg-options model.backbone.init_cfg.checkpoint=FILE`, FILE being the official weights of
224 pixels. On 8 GPUs, `optim_wrapper.accumulative_counts=4` keeps the 512 images an update.
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_384.py',
    '../_base_/schedules/imagenet_finetune_30e.py',
    '../_base_/sparse/slak_frozen.py',
]

model = dict(
    backbone=dict(type='sw_mm.SLaK', arch='base', drop_path_rate=0.5),
    head=dict(in_channels=1331),
    train_cfg=dict(augments=None),
)

train_dataloader = dict(batch_size=16)
optim_wrapper = dict(optimizer=dict(lr=5e-5), paramwise_cfg=dict(decay_rate=0.8))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EMAHook', momentum=1e-4, update_buffers=True, priority='ABOVE_NORMAL'),
]
