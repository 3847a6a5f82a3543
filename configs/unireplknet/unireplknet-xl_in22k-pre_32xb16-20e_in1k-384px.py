"""UniRepLKNet-XL of ImageNet-22K on ImageNet-1K at 384 pixels, 20 epochs on 32 GPUs x 16 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 88.0 top-1. Start it with `--cfg-options
model.backbone.init_cfg.checkpoint=FILE`, FILE being unireplknet_xl_in22k_pretrain.pth. On 8 GPUs,
`optim_wrapper.accumulative_counts=4` keeps the 512 images an update.
"""

_base_ = './unireplknet-l_in22k-pre_32xb16-20e_in1k-384px.py'

model = dict(backbone=dict(arch='xl'), head=dict(in_channels=2048))
