"""RepLKNet-XL of MegData73M on ImageNet-1K at 320 pixels, 30 epochs on 32 GPUs x 64 images.

Official result (https://github.com/DingXiaoH/RepLKNet-pytorch): 87.8 top-1. Start it with `--cfg-options
model.backbone.init_cfg.checkpoint=FILE`, FILE being the official MegData73M weights; the data of that pre-training are
private. On 8 GPUs, `optim_wrapper.accumulative_counts=4` keeps the 2048 images an update.
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_320_inception.py',
    '../_base_/schedules/imagenet_finetune_30e.py',
]

model = dict(
    backbone=dict(type='sw_mm.RepLKNet', arch='xl', drop_path_rate=0.2),
    head=dict(in_channels=2048, init_cfg=None),
    train_cfg=dict(augments=None),
)

train_dataloader = dict(batch_size=64)
# The authors publish that rates fall by 0.4 a stage, but neither the base rate nor warm-up and weight decay: these are
# those of the other fine-tunings.
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.4, decay_type='stage_wise'))
auto_scale_lr = dict(base_batch_size=2048)
