"""RepLKNet-31B on ImageNet-1K at 384 pixels, fine-tuned for 30 epochs on 32 GPUs x 32 images.

Official result (https://github.com/DingXiaoH/RepLKNet-pytorch): 84.8 top-1. Start it with `--cfg-options
model.backbone.init_cfg.checkpoint=FILE`, FILE being the official weights of 224 pixels. On 8 GPUs,
`optim_wrapper.accumulative_counts=4` keeps the 1024 images an update.

Only the backbone starts from FILE. Official code keeps the head too: convert FILE and give it as `load_from` for that.
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_384.py',
    '../_base_/schedules/imagenet_finetune_30e.py',
]

model = dict(
    backbone=dict(type='sw_mm.RepLKNet', arch='31b', drop_path_rate=0.8),
    head=dict(in_channels=1024, init_cfg=None),
    train_cfg=dict(augments=None),
)

train_dataloader = dict(batch_size=32)
custom_hooks = [dict(type='EMAHook', momentum=1e-4, update_buffers=True, priority='ABOVE_NORMAL')]
auto_scale_lr = dict(base_batch_size=1024)
