"""RepLKNet-31B of ImageNet-22K on ImageNet-1K, fine-tuned for 30 epochs on 32 GPUs x 16 images.

Official result (https://github.com/DingXiaoH/RepLKNet-pytorch): 85.2 top-1. Start it with `--cfg-options
model.backbone.init_cfg.checkpoint=FILE`, FILE being the official ImageNet-22K weights. On 8 GPUs,
`optim_wrapper.accumulative_counts=4` keeps the 512 images an update.
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_finetune_30e.py',
]

model = dict(
    backbone=dict(type='sw_mm.RepLKNet', arch='31b', drop_path_rate=0.2),
    head=dict(in_channels=1024, init_cfg=None),
    train_cfg=dict(augments=None),
)

train_dataloader = dict(batch_size=16)
custom_hooks = [dict(type='EMAHook', momentum=1e-4, update_buffers=True, priority='ABOVE_NORMAL')]
