"""UniRepLKNet-S on ImageNet-1K, 300 epochs on 32 GPUs x 128 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 83.9 top-1. On 8 GPUs,
`optim_wrapper.accumulative_counts=4` keeps the 4096 images an update.
"""

_base_ = './unireplknet-t_32xb128-300e_in1k.py'

model = dict(backbone=dict(arch='s', drop_path_rate=0.4), head=dict(in_channels=768))
