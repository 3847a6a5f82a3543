"""UniRepLKNet-S of ImageNet-22K on ImageNet-1K at 384 pixels, 30 epochs on 32 GPUs x 16 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 86.4 top-1. Start it with `--cfg-options
model.backbone.init_cfg.checkpoint=FILE`, FILE being unireplknet_s_in22k_pretrain.pth. On 8 GPUs,
`optim_wrapper.accumulative_counts=4` keeps the 512 images an update.
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet_384.py',
    '../_base_/schedules/imagenet_finetune_30e.py',
]

# The head starts a thousand times smaller.
model = dict(
    backbone=dict(type='sw_mm.UniRepLKNet', arch='s', drop_path_rate=0.2),
    head=dict(in_channels=768, init_cfg=dict(std=2e-5)),
    train_cfg=dict(augments=None),
)

train_dataloader = dict(batch_size=16)
optim_wrapper = dict(optimizer=dict(lr=5e-5), paramwise_cfg=dict(decay_rate=0.8))
# No warm-up.
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, convert_to_iter_based=True)]
