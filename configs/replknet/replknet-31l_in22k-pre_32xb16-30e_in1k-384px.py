"""RepLKNet-31L of ImageNet-22K on ImageNet-1K at 384 pixels, 30 epochs on 32 GPUs x 16 images.

Official result (https://github.com/DingXiaoH/RepLKNet-pytorch): 86.6 top-1. Start it with `--cfg-options
model.backbone.init_cfg.checkpoint=FILE`, FILE being the official ImageNet-22K weights. On 8 GPUs,
`optim_wrapper.accumulative_counts=4` keeps the 512 images an update.
"""

_base_ = './replknet-31b_in22k-pre_32xb16-30e_in1k-384px.py'

model = dict(backbone=dict(arch='31l'), head=dict(in_channels=1536))
