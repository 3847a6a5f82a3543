"""UniRepLKNet-B of ImageNet-22K on ImageNet-1K at 384 pixels, 30 epochs on 32 GPUs x 16 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 87.4 top-1. Start it with `--cfg-options
model.backbone.init_cfg.checkpoint=FILE`, FILE being unireplknet_b_in22k_pretrain.pth. On 8 GPUs,
`optim_wrapper.accumulative_counts=4` keeps the 512 images an update.
"""

_base_ = './unireplknet-s_in22k-pre_32xb16-30e_in1k-384px.py'

model = dict(backbone=dict(arch='b'), head=dict(in_channels=1024))
